//! SIGTERM and SIGINT as bytes on a socket: the first asks for a clean end, the second ends at once.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

/// Exit code of a director that was asked twice.
const IMPATIENT: i32 = 1;

/// The process's request to end.
#[derive(Debug)]
pub struct Signals {
    receiver: UnixStream,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn install() -> io::Result<Self> {
        let (receiver, sender) = UnixStream::pair()?;
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag clear, and only then sets it.
            signal_hook::flag::register_conditional_shutdown(signal, IMPATIENT, Arc::clone(&asked))?;
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { receiver })
    }

    /// Waits for the request, at most this long (`None`: for ever); `true` when it came.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn wait(&mut self, at_most: Option<Duration>) -> io::Result<bool> {
        self.receiver.set_read_timeout(at_most)?;
        loop {
            match self.receiver.read(&mut [0]) {
                Ok(count) => return Ok(count > 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_request() {
        let mut signals = Signals::install().unwrap();
        assert!(!signals.wait(Some(Duration::from_millis(10))).unwrap());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(signals.wait(Some(Duration::from_secs(5))).unwrap());
    }
}
