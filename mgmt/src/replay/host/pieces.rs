//! IPv4 fragments that wait for the rest of their datagram.

use std::collections::VecDeque;

use super::word;

/// Datagrams that wait at most; the oldest gives way.
const DATAGRAMS: usize = 64;
/// Pieces of one datagram.
const PIECES: usize = 64;
/// Bytes of an IPv4 header without options.
const HEADER: usize = 20;

/// What names a datagram (RFC 791): source, destination, identification, protocol.
type Name = ([u8; 8], u16, u8);

/// Waiting pieces.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    waiting: VecDeque<(Name, Vec<Vec<u8>>)>,
}

/// Whether a packet is a piece of a longer one.
pub(super) fn is_piece(packet: &[u8]) -> bool {
    word(packet, 6) & 0x3fff != 0
}

fn offset(packet: &[u8]) -> usize {
    usize::from(word(packet, 6) & 0x1fff) * 8
}

fn header(packet: &[u8]) -> usize {
    usize::from(packet[0] & 15) * 4
}

impl Pieces {
    /// Takes a piece in; all pieces in order once the last one has come.
    pub(super) fn add(&mut self, packet: &[u8]) -> Option<Vec<Vec<u8>>> {
        let name = (packet[12..HEADER].try_into().unwrap_or_default(), word(packet, 4), packet[9]);
        let place = self.waiting.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            if self.waiting.len() == DATAGRAMS {
                self.waiting.pop_front();
            }
            self.waiting.push_back((name, Vec::new()));
            self.waiting.len() - 1
        });
        let pieces = &mut self.waiting[place].1;
        pieces.push(packet.to_vec());
        pieces.sort_by_key(|piece| offset(piece));
        if complete(pieces) {
            return self.waiting.remove(place).map(|(_, pieces)| pieces);
        }
        if pieces.len() >= PIECES {
            self.waiting.remove(place);
        }
        None
    }
}

/// Whether sorted pieces follow each other from the first to the last.
fn complete(pieces: &[Vec<u8>]) -> bool {
    let mut end = 0;
    for piece in pieces {
        if offset(piece) != end {
            return false;
        }
        end += piece.len() - header(piece);
    }
    pieces.last().is_some_and(|last| word(last, 6) & 0x2000 == 0)
}

/// The datagram that the pieces make.
pub(super) fn join(pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = pieces.first().cloned().unwrap_or_default();
    for piece in pieces.iter().skip(1) {
        whole.extend(&piece[header(piece)..]);
    }
    let total = super::length(whole.len()).to_be_bytes();
    whole[2..4].copy_from_slice(&total);
    let flags = word(&whole, 6) & 0x4000;
    whole[6..8].copy_from_slice(&flags.to_be_bytes());
    let header = header(&whole);
    dataplane::packet::checksum::fill_header(&mut whole[..header]);
    whole
}
