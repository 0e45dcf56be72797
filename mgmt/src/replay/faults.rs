//! Where the recorded kernel does harm that the director does not do: marks of the frames in which that shows.

use super::compare::{Found, Item, Mark};
use super::trace::{Action, Record};
use dataplane::packet::sctp;

/// Length of an Ethernet header.
const ETHERNET: usize = 14;
/// Where the checksum stands in an SCTP header.
const SCTP_CHECKSUM: std::ops::Range<usize> = 8..12;

/// Marks frames about an FTP server's answer that came before, and those of an SCTP packet whose checksum was wrong.
pub fn mark(records: &[Record], found: &mut [(usize, Vec<Found>)]) {
    for (place, items) in found {
        let Action::Packet(packet) = &records[*place].action else { continue };
        let before = || records[..*place].iter();
        let again = answer(&packet.frame).is_some_and(|one| {
            before().any(|record| match &record.action {
                Action::Packet(earlier) => answer(&earlier.frame) == Some(one),
                _ => false,
            })
        });
        for one in items.iter_mut() {
            let Item::Frame { kernel: Some(kernel), ours: Some(ours), .. } = &one.item else { continue };
            if again {
                one.mark = Some(Mark::Again);
            } else if made_right(&packet.frame, kernel, ours) {
                one.mark = Some(Mark::Corrupt);
            }
        }
    }
}

/// The TCP segment in an IPv4 frame from port 21 whose text begins with `227`, from its addresses on: the same for each time it is
/// sent.
fn answer(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let ip = frame.get(ETHERNET..)?;
    let header = usize::from(ip.first()? & 15) * 4;
    let tcp = ip.get(header..)?;
    let text = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?;
    let its = ip[0] >> 4 == 4 && ip.get(9) == Some(&6) && tcp.starts_with(&[0, 21]);
    (its && text.starts_with(b"227 ")).then_some((ip.get(12..20)?, tcp))
}

/// Whether the kernel made the wrong checksum of an SCTP packet a right one, where ours is wrong by as much as it came.
fn made_right(received: &[u8], kernel: &[u8], ours: &[u8]) -> bool {
    let wrong_by = |frame: &[u8]| {
        let packet = whole_sctp(frame)?;
        let field = packet.get(SCTP_CHECKSUM)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
        Some(field ^ sctp::checksum(packet))
    };
    let same_but_checksum = || {
        let other = |frame: &[u8]| {
            let mut frame = frame.to_vec();
            let at = frame.len() - whole_sctp(&frame).map_or(0, <[u8]>::len);
            if let Some(field) = frame.get_mut(at + SCTP_CHECKSUM.start..at + SCTP_CHECKSUM.end) {
                field.fill(0);
            }
            frame
        };
        other(kernel) == other(ours)
    };
    let error = wrong_by(received);
    error.is_some_and(|error| error != 0)
        && wrong_by(kernel) == Some(0)
        && wrong_by(ours) == error
        && same_but_checksum()
}

/// The SCTP packet in a frame that ends with it; `None` in fragments.
fn whole_sctp(frame: &[u8]) -> Option<&[u8]> {
    const FRAGMENT: u16 = 0x3fff;
    const SCTP: u8 = 132;
    let ip = frame.get(ETHERNET..)?;
    let word = |at: usize| Some(u16::from_be_bytes([*ip.get(at)?, *ip.get(at + 1)?]));
    match ip.first()? >> 4 {
        4 if ip.get(9) == Some(&SCTP) && word(6)? & FRAGMENT == 0 && usize::from(word(2)?) == ip.len() => {
            ip.get(usize::from(ip[0] & 15) * 4..)
        }
        6 if ip.get(6) == Some(&SCTP) => ip.get(40..),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::mark;
    use crate::replay::compare::{Found, Item, Mark};
    use crate::replay::trace::{Action, Emitted, Record};
    use dataplane::bench::Frame;

    fn record(frame: Vec<u8>) -> Record {
        let action = Action::Packet(Emitted { link: 1, frame });
        Record { number: 0, at_ms: 0, line: String::new(), action, out: Vec::new() }
    }

    fn marks(records: &[Record], kernel: &[u8], ours: &[u8]) -> Option<Mark> {
        let item = Item::Frame { link: 0, kernel: Some(kernel.to_vec()), ours: Some(ours.to_vec()) };
        let mut found = vec![(records.len() - 1, vec![Found::from(item)])];
        mark(records, &mut found);
        found[0].1[0].mark
    }

    fn frame(text: &[u8]) -> Frame {
        let ends = ["192.168.10.3:21", "10.1.0.5:1024"].map(|end| end.parse().unwrap());
        Frame { payload: text.to_vec(), ..Frame::new(ends[0], ends[1]) }
    }

    #[test]
    fn an_answer_that_comes_again() {
        let answer = |text: &[u8]| record(frame(text).tcp(0x18));
        let first = b"227 Entering Passive Mode (192,168,10,3,156,64)\r\n";
        assert_eq!(marks(&[answer(first)], &[1], &[2]), None);
        assert_eq!(marks(&[answer(first), answer(first)], &[1], &[2]), Some(Mark::Again));
        let other = b"227 Entering Passive Mode (192,168,10,3,156,65)\r\n";
        assert_eq!(marks(&[answer(first), answer(other)], &[1], &[2]), None);
        assert_eq!(marks(&[answer(b"200 ok\r\n"), answer(b"200 ok\r\n")], &[1], &[2]), None);
    }

    #[test]
    fn a_wrong_checksum_of_sctp_that_the_kernel_makes_right() {
        let sent = frame(&[0, 3, 0, 4]).sctp();
        let flipped = |frame: &[u8], at: usize| {
            let mut frame = frame.to_vec();
            frame[at] ^= 0x55;
            frame
        };
        let (wrong, otherwise_wrong) = (flipped(&sent, 42), flipped(&sent, 43));
        assert_eq!(marks(&[record(wrong.clone())], &sent, &wrong), Some(Mark::Corrupt));
        assert_eq!(marks(&[record(wrong.clone())], &sent, &otherwise_wrong), None);
        assert_eq!(marks(&[record(sent.clone())], &sent, &wrong), None);
        assert_eq!(marks(&[record(wrong.clone())], &wrong, &sent), None);
        assert_eq!(marks(&[record(wrong.clone())], &flipped(&sent, 22), &wrong), None, "another TTL");
    }
}
