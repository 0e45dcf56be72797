//! SIGTERM, SIGINT and SIGHUP as bytes on a socket: the first request to end asks for a clean end, the second ends at once.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Exit code of a director that was asked twice.
const IMPATIENT: i32 = 1;

/// What the process is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To end.
    End,
    /// To read its configuration again.
    Reload,
}

/// The process's requests.
#[derive(Debug)]
pub struct Signals {
    receiver: UnixStream,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT and SIGHUP.
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
        let reload = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGHUP, Arc::clone(&reload))?;
        signal_hook::low_level::pipe::register(SIGHUP, sender)?;
        Ok(Self { receiver, reload })
    }

    /// Waits for a request, at most this long (`None`: for ever); `None` when none came.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn wait(&mut self, at_most: Option<Duration>) -> io::Result<Option<Signal>> {
        self.receiver.set_read_timeout(at_most)?;
        loop {
            match self.receiver.read(&mut [0]) {
                Ok(0) => return Ok(None),
                Ok(_) if self.reload.swap(false, Ordering::SeqCst) => return Ok(Some(Signal::Reload)),
                Ok(_) => return Ok(Some(Signal::End)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(None);
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
        assert_eq!(signals.wait(Some(Duration::from_millis(10))).unwrap(), None);
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert_eq!(signals.wait(Some(Duration::from_secs(5))).unwrap(), Some(Signal::Reload));
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(signals.wait(Some(Duration::from_secs(5))).unwrap(), Some(Signal::End));
    }
}
