//! Messages: a datagram's requests, and what answers them.

use std::num::NonZeroI32;

use netlink_packet_core::{
    DoneMessage, Emitable, ErrorMessage, NLM_F_ACK, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use rustix::io::Errno;

use super::attribute::Attribute;
use super::number;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;
/// Most bytes of a datagram that carries several messages: what libnl reads at a time.
pub(super) const DATAGRAM: usize = 16 * 1024;

/// One request of a datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// `nlmsg_type`: which family.
    pub(super) family: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    /// Header and all, as long as its header says.
    whole: &'a [u8],
}

impl<'a> Request<'a> {
    /// Splits a datagram. What a header contradicts is passed over in silence, with the rest, as the kernel does.
    pub(super) fn all(datagram: &'a [u8]) -> impl Iterator<Item = Self> {
        let mut rest = datagram;
        std::iter::from_fn(move || {
            let header = NetlinkBuffer::new_checked(rest).ok()?;
            let length = usize::try_from(header.length()).ok()?;
            let request = Self {
                family: header.message_type(),
                flags: header.flags(),
                sequence: header.sequence_number(),
                port: header.port_number(),
                whole: rest.get(..length)?,
            };
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            Some(request)
        })
    }

    /// Only requests are answered.
    pub(super) fn is_request(&self) -> bool {
        self.flags & NLM_F_REQUEST != 0
    }

    /// Whether success is to be told.
    pub(super) fn wants_acknowledgement(&self) -> bool {
        self.flags & NLM_F_ACK != 0
    }

    /// Whether everything is asked for, not one thing.
    pub(super) fn is_dump(&self) -> bool {
        self.flags & NLM_F_DUMP == NLM_F_DUMP
    }

    /// What follows netlink's own header.
    pub(super) fn payload(&self) -> &'a [u8] {
        self.whole.get(HEADER..).unwrap_or(&[])
    }

    /// The command of a generic netlink message, and its attributes.
    ///
    /// # Errors
    ///
    /// `EINVAL`: it is too short.
    pub(super) fn generic(&self) -> Result<(u8, &'a [u8]), Errno> {
        let header = GenlHeader::parse(self.payload()).map_err(|_| Errno::INVAL)?;
        Ok((header.cmd, self.payload().get(GENERIC_HEADER..).unwrap_or(&[])))
    }

    /// `NLMSG_ERROR`: success (`None`) quotes the request's header, failure all of it.
    pub(super) fn verdict(&self, errno: Option<Errno>) -> Vec<u8> {
        let mut error = ErrorMessage::default();
        error.code = errno.and_then(|errno| NonZeroI32::new(-errno.raw_os_error()));
        let quoted = if errno.is_some() { self.whole } else { self.whole.get(..HEADER).unwrap_or(&[]) };
        error.header = quoted.to_vec();
        error.header.resize(quoted.len().next_multiple_of(4), 0);
        let flags = if errno.is_some() { 0 } else { NLM_F_CAPPED };
        self.message::<Ipvs>(flags, NetlinkPayload::Error(error))
    }

    /// `NLMSG_DONE`, the end of a dump.
    pub(super) fn done(&self, errno: Option<Errno>) -> Vec<u8> {
        let mut done = DoneMessage::default();
        done.code = errno.map_or(0, |errno| -errno.raw_os_error());
        self.message::<Ipvs>(NLM_F_MULTIPART, NetlinkPayload::Done(done))
    }

    /// The one answer of a family.
    pub(super) fn reply<F: Family>(&self, payload: F) -> Vec<u8> {
        self.message(0, NetlinkPayload::InnerMessage(GenlMessage::from_payload(payload)))
    }

    /// One of many.
    pub(super) fn item<F: Family>(&self, payload: F) -> Vec<u8> {
        self.message(NLM_F_MULTIPART, NetlinkPayload::InnerMessage(GenlMessage::from_payload(payload)))
    }

    /// A piece of a file's text.
    pub(super) fn piece(&self, text: &str) -> Vec<u8> {
        let mut message = NetlinkMessage::new(
            self.header(NLM_F_MULTIPART),
            NetlinkPayload::InnerMessage(Piece(text.as_bytes().to_vec())),
        );
        message.finalize();
        serialized(&message)
    }

    fn header(&self, flags: u16) -> NetlinkHeader {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        header.port_number = self.port;
        header
    }

    fn message<F: Family>(&self, flags: u16, payload: NetlinkPayload<GenlMessage<F>>) -> Vec<u8> {
        let mut message = NetlinkMessage::new(self.header(flags), payload);
        message.finalize();
        serialized(&message)
    }
}

/// The message, padded as the kernel pads it behind the length that its header tells.
fn serialized<P: NetlinkSerializable>(message: &NetlinkMessage<P>) -> Vec<u8> {
    let length = message.buffer_len();
    let mut bytes = vec![0; length.next_multiple_of(4)];
    if let Some(exact) = bytes.get_mut(..length) {
        message.serialize(exact);
    }
    bytes
}

/// What a generic netlink message carries.
pub(super) trait Family: GenlFamily + Emitable + std::fmt::Debug {}

impl<F: GenlFamily + Emitable + std::fmt::Debug> Family for F {}

/// A message of the IPVS family.
#[derive(Debug)]
pub(super) struct Ipvs {
    /// What it is.
    pub(super) command: u8,
    /// What it carries.
    pub(super) attributes: Vec<Attribute>,
}

impl GenlFamily for Ipvs {
    fn family_name() -> &'static str {
        "IPVS"
    }

    fn family_id(&self) -> u16 {
        number::IPVS
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Ipvs {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

#[derive(Debug)]
struct Piece(Vec<u8>);

impl NetlinkSerializable for Piece {
    fn message_type(&self) -> u16 {
        number::FILE
    }

    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}
