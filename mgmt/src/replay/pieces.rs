//! Pieces of IPv4 datagrams, which the two directors send on at different moments.
//!
//! The kernel puts a datagram together before IPVS sees it, and takes it apart again to send it on; ours sends every piece on as
//! soon as it knows the ports. The same frames leave, in other records. Of a datagram that never becomes whole the kernel sends
//! nothing; ours has sent what came in order.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::compare::{Found, Item, Mark, Whose};
use super::text;
use super::trace::Record;

/// Which datagram a frame is a piece of (RFC 791): source, destination, identification, protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identification: u16,
    protocol: u8,
}

impl Piece {
    /// If it is one.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let header = frame.get(14..34)?;
        let piece = header[0] >> 4 == 4 && (header[6] & 0x3f != 0 || header[7] != 0);
        piece.then(|| Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
            destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]),
            identification: u16::from_be_bytes([header[4], header[5]]),
            protocol: header[9],
        })
    }
}

/// The one frame of an item.
fn alone(item: &Item) -> Option<(Whose, usize, &Vec<u8>)> {
    match item {
        Item::Frame { link, kernel: Some(frame), ours: None } => Some((Whose::Kernel, *link, frame)),
        Item::Frame { link, kernel: None, ours: Some(frame) } => Some((Whose::Ours, *link, frame)),
        _ => None,
    }
}

/// Marks the pieces that both sent, and those of datagrams that never became whole, with what follows from those.
pub fn mark(records: &[Record], found: &mut [(usize, Vec<Found>)]) {
    let sent: BTreeSet<Piece> =
        records.iter().flat_map(|record| &record.out).filter_map(|out| Piece::of(&out.frame)).collect();
    let mut theirs: Vec<(usize, usize, Vec<u8>)> = Vec::new();
    for (place, item) in found.iter().flat_map(|(place, items)| items.iter().map(|one| (*place, &one.item))) {
        if let Some((Whose::Kernel, link, frame)) =
            alone(item).filter(|(_, _, frame)| Piece::of(frame).is_some())
        {
            theirs.push((place, link, frame.clone()));
        }
    }
    let (mut both, mut unfinished) = (Vec::new(), BTreeSet::new());
    for (place, items) in found.iter_mut() {
        for one in items.iter_mut() {
            let Some((Whose::Ours, link, frame)) = alone(&one.item) else { continue };
            let Some(piece) = Piece::of(frame) else { continue };
            let same =
                |(at, on, other): &(usize, usize, Vec<u8>)| at >= place && *on == link && other == frame;
            if let Some(found) = theirs.iter().position(same) {
                both.push(theirs.remove(found));
                one.mark = Some(Mark::Piece);
            } else if !sent.contains(&piece) {
                one.mark = Some(Mark::Unfinished);
                unfinished.insert((piece.source.to_string(), piece.destination.to_string()));
            }
        }
    }
    for (place, items) in found.iter_mut() {
        for one in items.iter_mut() {
            let Some((Whose::Kernel, link, frame)) = alone(&one.item) else { continue };
            if let Some(at) =
                both.iter().position(|(on, by, other)| on == place && *by == link && other == frame)
            {
                both.remove(at);
                one.mark = Some(Mark::Piece);
            }
        }
        follow(items, &unfinished);
    }
}

/// Marks lines about connections that an unfinished datagram kept alive with us alone.
fn follow(items: &mut [Found], unfinished: &BTreeSet<(String, String)>) {
    let connections: Vec<_> = items
        .iter()
        .map(|one| match &one.item {
            Item::Line { whose, line } => text::connection(line).map(|parsed| (*whose, parsed)),
            _ => None,
        })
        .collect();
    let longer = |(whose, line): &(Whose, text::ConnectionLine)| {
        let of_pieces = |(source, destination): &(String, String)| {
            let mut words = line.name.split(' ').skip(1).map(|end| end.split(':').next().unwrap_or_default());
            words.next() == Some(source) && words.next() == Some(destination)
        };
        let other = connections
            .iter()
            .flatten()
            .find(|(side, other)| side != whose && other.rest == line.rest)
            .is_some_and(|(_, other)| (other.seconds < line.seconds) == (*whose == Whose::Ours));
        other && unfinished.iter().any(of_pieces)
    };
    let marks: Vec<bool> = connections.iter().map(|one| one.as_ref().is_some_and(longer)).collect();
    for (one, marked) in items.iter_mut().zip(marks) {
        if marked {
            one.mark = Some(Mark::Unfinished);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Piece, mark};
    use crate::replay::compare::{Found, Item, Mark, Whose};
    use crate::replay::trace::{Action, Emitted, Record};
    use dataplane::bench::Frame;

    fn piece(id: u16, offset: u8, more: bool) -> Vec<u8> {
        let mut frame = Frame::new("10.1.0.5:1".parse().unwrap(), "10.0.0.100:53".parse().unwrap());
        frame.id = id;
        let mut frame = frame.ip(17, &[offset; 8]);
        frame[20..22].copy_from_slice(&[if more { 0x20 } else { 0 }, offset]);
        frame
    }

    fn record(out: Vec<Vec<u8>>) -> Record {
        let out = out.into_iter().map(|frame| Emitted { link: 1, frame }).collect();
        Record { number: 0, at_ms: 0, line: String::new(), action: Action::Sleep, out }
    }

    fn ours(frame: Vec<u8>) -> Found {
        Item::Frame { link: 1, kernel: None, ours: Some(frame) }.into()
    }

    fn kernel(frame: Vec<u8>) -> Found {
        Item::Frame { link: 1, kernel: Some(frame), ours: None }.into()
    }

    #[test]
    fn pieces_sent_at_other_moments_are_found() {
        let records = [record(vec![]), record(vec![piece(7, 0, true), piece(7, 1, false)])];
        let mut found = vec![
            (0, vec![ours(piece(7, 0, true))]),
            (1, vec![kernel(piece(7, 0, true)), kernel(piece(7, 1, false)), ours(piece(7, 2, false))]),
        ];
        mark(&records, &mut found);
        assert_eq!(found[0].1[0].mark, Some(Mark::Piece));
        let marks: Vec<_> = found[1].1.iter().map(|one| one.mark).collect();
        assert_eq!(marks, [Some(Mark::Piece), None, None], "what only one sent stays a difference");
    }

    #[test]
    fn pieces_of_what_never_became_whole_are_found_with_their_connection() {
        let line = |whose, time: &str| -> Found {
            let line =
                format!("UDP {time}  UDP         10.1.0.5:1         10.0.0.100:53      192.168.10.3:53");
            Item::Line { whose, line }.into()
        };
        let mut found = vec![
            (0, vec![ours(piece(9, 0, true))]),
            (1, vec![line(Whose::Kernel, "03:57"), line(Whose::Ours, "04:29")]),
            (2, vec![line(Whose::Kernel, "04:29"), line(Whose::Ours, "03:57")]),
        ];
        mark(&[record(vec![]), record(vec![]), record(vec![])], &mut found);
        let marks: Vec<_> = found
            .iter()
            .map(|(_, items)| items.iter().all(|one| one.mark == Some(Mark::Unfinished)))
            .collect();
        assert_eq!(marks, [true, true, false]);
        assert_eq!(
            Piece::of(&Frame::new("10.1.0.5:1".parse().unwrap(), "10.0.0.1:1".parse().unwrap()).udp()),
            None
        );
    }
}
