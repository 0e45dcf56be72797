//! Route sockets: subscriptions, dumps and acknowledged requests.

use super::wire::{Event, Link, Message, Messages, answer, decode, kind};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Multicast groups of the route family (`linux/rtnetlink.h`, `RTNLGRP_*` numbers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Links.
    Link = 1,
    /// Neighbours.
    Neighbour = 3,
    /// IPv4 addresses.
    Ipv4Address = 5,
    /// IPv4 routes.
    Ipv4Route = 7,
    /// IPv6 addresses.
    Ipv6Address = 9,
    /// IPv6 routes.
    Ipv6Route = 11,
}

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("netlink socket: {0}")]
    Io(#[from] io::Error),
    /// The kernel refused.
    #[error("{}{}", io::Error::from_raw_os_error(*.errno), explained(.explanation.as_deref()))]
    Refused {
        /// Positive errno.
        errno: i32,
        /// The kernel's own words, when it gave any.
        explanation: Option<String>,
    },
    /// The kernel did not answer in time.
    #[error("the kernel did not answer within {0:?}")]
    Timeout(Duration),
    /// The tables changed during every attempt to read them.
    #[error("the kernel's tables did not hold still long enough to be read")]
    Inconsistent,
}

fn explained(explanation: Option<&str>) -> String {
    explanation.map(|text| format!(": {text}")).unwrap_or_default()
}

impl NetlinkError {
    /// The errno with which the kernel refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(Errno::from_raw_os_error(*errno)),
            Self::Io(error) => Errno::from_io_error(error),
            _ => None,
        }
    }
}

/// What a receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// So many bytes of messages.
    Datagram(usize),
    /// Nothing is waiting.
    Nothing,
    /// The kernel dropped messages because this socket was not read in time.
    Overrun,
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel fills dumps up to 32 KiB a datagram.
const BUFFER: usize = 64 * 1024;
const DUMP_ATTEMPTS: usize = 8;

/// A netlink route socket of the calling thread's network namespace.
#[derive(Debug)]
pub struct RouteSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl RouteSocket {
    /// Opens a socket for requests.
    ///
    /// # Errors
    /// What `socket` or `bind` return.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Only makes error messages longer; old kernels do without.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Opens a socket that hears `groups`, with room for `receive_buffer` bytes (beyond `rmem_max` when allowed).
    ///
    /// # Errors
    /// What `socket`, `bind` or `setsockopt` return.
    pub fn subscribe(groups: &[Group], receive_buffer: usize) -> Result<Self, NetlinkError> {
        let socket = Self::open()?;
        for group in groups {
            socket.socket.add_membership(*group as u32)?;
        }
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket.socket, receive_buffer).is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket.socket, receive_buffer)
                .map_err(io::Error::from)?;
        }
        Ok(socket)
    }

    /// Receives one datagram if one is waiting; [`Self::datagram`] reads it.
    ///
    /// # Errors
    /// What `recv` returns, but for the two that [`Received`] names.
    pub fn receive(&mut self) -> Result<Received, NetlinkError> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        match rustix::net::recv(&self.socket, &mut self.buffer[..], flags) {
            Ok((_, length)) if length > self.buffer.len() => Ok(Received::Overrun),
            Ok((_, length)) => Ok(Received::Datagram(length)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
            Err(Errno::NOBUFS) => Ok(Received::Overrun),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// The messages of the datagram that [`Self::receive`] brought.
    #[must_use]
    pub fn datagram(&self, length: usize) -> Messages<'_> {
        Messages::new(&self.buffer[..length.min(self.buffer.len())])
    }

    /// Sends a request and returns its sequence number; refusals (and, when `flags` ask for it, the acknowledgement)
    /// arrive as messages.
    ///
    /// # Errors
    /// What `send` returns.
    pub fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<u32, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags | NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        Ok(self.sequence)
    }

    /// Sends a request and waits for the kernel's verdict.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        let sequence = self.send(message, flags | NLM_F_ACK)?;
        self.collect(sequence, &mut |_| {}).map(|_| ())
    }

    /// Reads a whole table of the kernel's; read again when it changes meanwhile. Also returns how many messages of it
    /// were malformed.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn dump(&mut self, request: &RouteNetlinkMessage) -> Result<(Vec<Event>, u64), NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let (mut events, mut malformed) = (Vec::new(), 0);
            let sequence = self.send(request.clone(), NLM_F_DUMP)?;
            let consistent = self.collect(sequence, &mut |message| match decode(&message) {
                Ok(event) => events.extend(event),
                Err(_) => malformed += 1,
            })?;
            if consistent {
                return Ok((events, malformed));
            }
        }
        Err(NetlinkError::Inconsistent)
    }

    /// Finds a link by name.
    ///
    /// # Errors
    /// [`NetlinkError`]; `ENODEV` when there is none.
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let sequence = self.send(super::message::get_link(name), NLM_F_ACK)?;
        let mut found = None;
        self.collect(sequence, &mut |message| {
            if let Ok(Some(Event::Link(link))) = decode(&message) {
                found = Some(link);
            }
        })?;
        found.ok_or(NetlinkError::Refused { errno: Errno::NODEV.raw_os_error(), explanation: None })
    }

    /// Hands the answers to `sequence` to `each` until the last; whether they are one consistent picture.
    fn collect(&mut self, sequence: u32, each: &mut impl FnMut(Message<'_>)) -> Result<bool, NetlinkError> {
        let started = Instant::now();
        let mut consistent = true;
        loop {
            match self.receive()? {
                Received::Datagram(length) => {
                    for message in self.datagram(length).filter(|message| message.sequence == sequence) {
                        consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                        if message.kind != kind::ERROR && message.kind != kind::DONE {
                            each(message);
                            continue;
                        }
                        return match answer(&message) {
                            Some((0, _)) | None => Ok(consistent),
                            Some((errno, explanation)) => Err(NetlinkError::Refused { errno, explanation }),
                        };
                    }
                }
                Received::Overrun => consistent = false,
                Received::Nothing => {
                    let left = ANSWER_TIMEOUT.checked_sub(started.elapsed());
                    let left = left.ok_or(NetlinkError::Timeout(ANSWER_TIMEOUT))?;
                    self.wait(left)?;
                }
            }
        }
    }

    fn wait(&self, timeout: Duration) -> Result<(), NetlinkError> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

impl AsFd for RouteSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
