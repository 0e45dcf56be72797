//! Where answers go, datagram by datagram.

use std::io;

use rustix::io::Errno;

use super::message::{DATAGRAM, Family, Request};

/// The way back to a client.
pub(super) trait Outbox {
    /// Sends one datagram.
    ///
    /// # Errors
    ///
    /// The client is gone or does not read.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;
}

/// Why a request was not answered to its end.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// It is refused.
    Refused(Errno),
    /// Its client is gone.
    Gone(io::Error),
}

impl From<Errno> for Unanswered {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// Many messages that answer one request, several to a datagram.
pub(super) struct Dump<'a> {
    request: &'a Request<'a>,
    outbox: &'a mut dyn Outbox,
    datagram: Vec<u8>,
}

impl<'a> Dump<'a> {
    /// To `request`.
    pub(super) fn new(request: &'a Request<'a>, outbox: &'a mut dyn Outbox) -> Self {
        Self { request, outbox, datagram: Vec::new() }
    }

    /// One more message of a family.
    pub(super) fn item<F: Family>(&mut self, payload: F) -> io::Result<()> {
        let message = self.request.item(payload);
        self.push(&message)
    }

    /// One more piece of a text; with its header it fits a datagram.
    pub(super) fn piece(&mut self, text: &str) -> io::Result<()> {
        let message = self.request.piece(text);
        self.push(&message)
    }

    fn push(&mut self, message: &[u8]) -> io::Result<()> {
        if self.datagram.len() + message.len() > DATAGRAM {
            self.flush()?;
        }
        self.datagram.extend_from_slice(message);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.datagram.is_empty() {
            self.outbox.send(&self.datagram)?;
            self.datagram.clear();
        }
        Ok(())
    }

    /// Ends it, in a datagram of its own as the kernel does. What went wrong on the way is told here.
    pub(super) fn end(mut self, outcome: Result<(), Unanswered>) -> Result<(), Unanswered> {
        let errno = match outcome {
            Ok(()) => None,
            Err(Unanswered::Refused(errno)) => Some(errno),
            Err(gone) => return Err(gone),
        };
        self.flush()?;
        self.outbox.send(&self.request.done(errno))?;
        Ok(())
    }
}
