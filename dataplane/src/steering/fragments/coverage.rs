//! Which bytes of a datagram have been seen.

use super::MOST_HELD;

/// Most gaps, plus one, in what has been seen of one datagram: the first piece finds room whatever is held.
const MOST_SPANS: usize = MOST_HELD as usize + 1;

/// Bytes of a datagram that have been seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u16,
    pub(super) end: u16,
}

/// What a piece is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// Bytes none of them had.
    New,
    /// Nothing but bytes they had.
    Duplicate,
    /// Some of both, or a contradiction about the datagram's length.
    Overlap,
    /// More gaps than are remembered.
    NoRoom,
}

/// What has been seen of a datagram: disjoint spans in order, none touching the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Coverage {
    spans: [Span; MOST_SPANS],
    count: u8,
    /// Length of the datagram, once its last piece has been seen.
    total: Option<u16>,
}

impl Coverage {
    fn spans(&self) -> &[Span] {
        &self.spans[..usize::from(self.count)]
    }

    /// Takes a piece in, if it fits.
    pub(super) fn insert(&mut self, piece: Span, last: bool) -> Fit {
        let reach = self.spans().last().map_or(0, |span| span.end);
        let beyond = self.total.is_some_and(|total| piece.end > total || (last && piece.end != total));
        if beyond || (last && piece.end < reach) {
            return Fit::Overlap;
        }
        if last {
            self.total = Some(piece.end);
        }
        // The first span that does not end before the piece starts.
        let at = self.spans().partition_point(|span| span.end < piece.start);
        let mut merged = piece;
        let mut until = at;
        for span in &self.spans[at..usize::from(self.count)] {
            if piece.start >= span.start && piece.end <= span.end {
                return Fit::Duplicate;
            }
            if span.start > piece.end {
                break;
            }
            if span.end > piece.start && span.start < piece.end {
                return Fit::Overlap;
            }
            merged = Span { start: merged.start.min(span.start), end: merged.end.max(span.end) };
            until += 1;
        }
        let count = usize::from(self.count);
        if until == at {
            if count == MOST_SPANS {
                return Fit::NoRoom;
            }
            self.spans.copy_within(at..count, at + 1);
            self.count += 1;
        } else {
            self.spans.copy_within(until..count, at + 1);
            self.count -= u8::try_from(until - at - 1).unwrap_or(0);
        }
        self.spans[at] = merged;
        Fit::New
    }

    pub(super) fn complete(&self) -> bool {
        let whole = |total| self.spans() == [Span { start: 0, end: total }];
        self.total.is_some_and(whole)
    }
}
