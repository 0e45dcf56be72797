//! Sequence numbers after a text whose length has changed: those behind it are shifted, and what the other end acknowledges of
//! them, selective acknowledgements (RFC 2018) included, is shifted back.

use crate::packet::checksum::update_32;

/// How far the numbers of one direction are shifted: by `before` up to a place, by `after` behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shift {
    /// The sequence number of the segment whose length changed last.
    position: u32,
    before: i32,
    after: i32,
}

/// Whether `a` comes after `b` in sequence space (RFC 9293, 3.4).
pub(crate) const fn is_after(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).cast_signed() < 0
}

impl Shift {
    /// The segment at `sequence` became longer by `growth`. Said again of the same segment it is not heard again.
    pub(crate) fn grow(&mut self, sequence: u32, growth: i32) {
        if growth != 0 && (self.before == self.after || is_after(sequence, self.position)) {
            *self = Self { position: sequence, before: self.after, after: self.after.wrapping_add(growth) };
        }
    }

    /// What a number of this direction becomes.
    pub(crate) const fn apply(&self, sequence: u32) -> u32 {
        let by = if is_after(sequence, self.position) { self.after } else { self.before };
        sequence.wrapping_add_signed(by)
    }

    /// What a number acknowledged by the other end was.
    pub(crate) const fn undo(&self, acknowledged: u32) -> u32 {
        let by = if is_after(acknowledged.wrapping_add_signed(self.before.wrapping_neg()), self.position) {
            self.after
        } else {
            self.before
        };
        acknowledged.wrapping_add_signed(by.wrapping_neg())
    }

    const fn is_nothing(&self) -> bool {
        self.before == 0 && self.after == 0
    }
}

/// Replaces the word at `at` of a TCP segment and keeps its checksum right; `at` may be odd.
fn replace(segment: &mut [u8], at: usize, new: u32) {
    let Some(place) = segment.get_mut(at..at.wrapping_add(4)).and_then(|place| place.first_chunk_mut())
    else {
        return;
    };
    let old = u32::from_be_bytes(std::mem::replace(place, new.to_be_bytes()));
    // At an odd place the bytes stand in the other halves of their words.
    let turn = if at.is_multiple_of(2) { 0 } else { 8 };
    let Some(field) = segment.get_mut(16..18).and_then(|field| field.first_chunk_mut::<2>()) else { return };
    *field =
        update_32(u16::from_be_bytes(*field), old.rotate_left(turn), new.rotate_left(turn)).to_be_bytes();
}

fn word(segment: &[u8], at: usize) -> Option<u32> {
    segment.get(at..at.wrapping_add(4))?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Shifts the sequence number of a server's segment (TCP header first).
pub(crate) fn shift_sequence(segment: &mut [u8], shift: &Shift) {
    if !shift.is_nothing()
        && let Some(sequence) = word(segment, 4)
    {
        replace(segment, 4, shift.apply(sequence));
    }
}

/// Shifts back what a client's segment acknowledges.
pub(crate) fn shift_acknowledgement(segment: &mut [u8], shift: &Shift) {
    const ACK: u8 = 0x10;
    if shift.is_nothing() || segment.get(13).is_none_or(|flags| flags & ACK == 0) {
        return;
    }
    if let Some(acknowledged) = word(segment, 8) {
        replace(segment, 8, shift.undo(acknowledged));
    }
    let header = segment.get(12).map_or(0, |length| usize::from(length >> 4) * 4);
    let mut at = 20;
    while at + 1 < header {
        let (Some(kind), Some(length)) = (segment.get(at), segment.get(at + 1)) else { return };
        let length = match *kind {
            0 => return,
            1 => 1,
            _ => usize::from(*length),
        };
        if length == 0 || (*kind != 1 && length < 2) || at + length > header {
            return;
        }
        if *kind == 5 {
            for edge in (at + 2..at + length).step_by(4).filter(|edge| edge + 4 <= at + length) {
                if let Some(number) = word(segment, edge) {
                    replace(segment, edge, shift.undo(number));
                }
            }
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum;
    use proptest::prelude::*;

    #[test]
    fn numbers_behind_the_change_are_shifted_and_back() {
        let mut shift = Shift::default();
        shift.grow(2011, -2);
        assert_eq!([2000, 2011, 2012, 2061].map(|number| shift.apply(number)), [2000, 2011, 2010, 2059]);
        assert_eq!([2000, 2011, 2059].map(|number| shift.undo(number)), [2000, 2011, 2061]);
        let once = shift;
        shift.grow(2011, -2);
        assert_eq!(shift, once, "a retransmission");
        shift.grow(2159, -3);
        assert_eq!([2159, 2160].map(|number| shift.apply(number)), [2157, 2155]);
        assert_eq!([2157, 2203].map(|number| shift.undo(number)), [2159, 2208]);
    }

    fn segment(sequence: u32, acknowledged: u32, options: &[u8]) -> Vec<u8> {
        let header = 20 + options.len();
        let mut segment = vec![0; 20];
        segment[4..8].copy_from_slice(&sequence.to_be_bytes());
        segment[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        segment[12] = u8::try_from(header / 4).unwrap() << 4;
        segment[13] = 0x10;
        segment.extend(options);
        let sum = !checksum::sum(&segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    #[test]
    fn selective_acknowledgements_are_shifted_at_odd_places_too() {
        let mut shift = Shift::default();
        shift.grow(1000, 5);
        let edges = |a: u32, b: u32| [a.to_be_bytes(), b.to_be_bytes()].concat();
        for front in [&[1, 1][..], &[1], &[]] {
            let options = |a, b| {
                let mut options = [front, &[5, 10], &edges(a, b)].concat();
                options.resize(12, 0);
                options
            };
            let mut given = segment(7, 1010, &options(1015, 2000));
            shift_acknowledgement(&mut given, &shift);
            assert_eq!(given, segment(7, 1005, &options(1010, 1995)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 1024 })
        })]

        #[test]
        fn checksums_stay_right_whatever_the_options(
            sequence: u32, acknowledged: u32, position: u32, growth in -20_i32..20,
            options in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut options = options;
            options.truncate(options.len() / 4 * 4);
            let mut shift = Shift::default();
            shift.grow(position, growth);
            let mut given = segment(sequence, acknowledged, &options);
            shift_sequence(&mut given, &shift);
            shift_acknowledgement(&mut given, &shift);
            prop_assert_eq!(checksum::sum(&given), 0xffff);
            prop_assert_eq!(word(&given, 4).unwrap(), shift.apply(sequence));
        }

        #[test]
        fn undoing_finds_what_was_sent(position: u32, growth in -20_i32..20, ahead in 0_u32..100_000) {
            let mut shift = Shift::default();
            shift.grow(position, growth);
            let behind = position.wrapping_add(21).wrapping_add(ahead);
            prop_assert_eq!(shift.undo(shift.apply(behind)), behind);
        }
    }
}
