//! Lines from and to a client, each with a bound on its length and on its time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const CHUNK: usize = 16 * 1024;
/// A buffer that grew for one long line is given back after it.
const KEEP: usize = 256 * 1024;

/// Why there is no next line.
#[derive(Debug)]
pub(super) enum LineError {
    /// The client closed, or the server shut the connection down.
    Closed,
    /// More bytes than allowed without a line feed.
    TooLong,
    /// Nothing came for too long, or a started line took too long.
    TimedOut,
    /// The system refused.
    Io(io::Error),
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a line's first byte.
    pub(super) idle: Duration,
    /// From its first byte to its line feed.
    pub(super) line: Duration,
}

/// Cuts a stream into lines.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    stream: &'a UnixStream,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are known to have no line feed.
    searched: usize,
    limit: usize,
    patience: Patience,
}

impl<'a> Lines<'a> {
    pub(super) fn new(stream: &'a UnixStream, limit: usize, patience: Patience) -> Self {
        Self { stream, buffer: Vec::new(), searched: 0, limit, patience }
    }

    /// The next line without its line feed.
    pub(super) fn next(&mut self) -> Result<Vec<u8>, LineError> {
        let mut started = (!self.buffer.is_empty()).then(Instant::now);
        let mut chunk = vec![0_u8; CHUNK];
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + at;
                if end > self.limit {
                    return Err(LineError::TooLong);
                }
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.searched = 0;
                if self.buffer.is_empty() && self.buffer.capacity() > KEEP {
                    self.buffer = Vec::new();
                }
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > self.limit {
                return Err(LineError::TooLong);
            }
            let wait = match started {
                None => self.patience.idle,
                Some(since) => self
                    .patience
                    .line
                    .checked_sub(since.elapsed())
                    .filter(|left| !left.is_zero())
                    .ok_or(LineError::TimedOut)?,
            };
            self.stream.set_read_timeout(Some(wait)).map_err(LineError::Io)?;
            match (&mut &*self.stream).read(&mut chunk) {
                Ok(0) => return Err(LineError::Closed),
                Ok(count) => {
                    self.buffer.extend_from_slice(&chunk[..count]);
                    started.get_or_insert_with(Instant::now);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Err(LineError::TimedOut),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        return Err(LineError::Closed);
                    }
                    _ => return Err(LineError::Io(error)),
                },
            }
        }
    }
}

/// Writes all of `bytes` or fails when the client has not taken them within `patience`.
pub(super) fn write_all(mut stream: &UnixStream, bytes: &[u8], patience: Duration) -> io::Result<()> {
    let until = Instant::now() + patience;
    let mut rest = bytes;
    while !rest.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left))?;
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
