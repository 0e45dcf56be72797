//! Lengths of frames.

use super::within;

/// IMIX: of twelve frames seven are short, four of middle length, one is long.
const MIX: [usize; 12] = [0, 1, 0, 0, 1, 0, 2, 0, 1, 0, 0, 1];
const SHORT: usize = 64;
const MIDDLE: usize = 590;
/// Longest Ethernet frame without its check sequence, for an MTU of 1,500 bytes.
const LONG: usize = 1514;
/// Most classes of lengths.
pub(crate) const CLASSES: usize = 3;

/// Length of frames in bytes, without the frame check sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameLength {
    /// All of one length.
    Fixed(usize),
    /// Seven of 64 bytes, four of 590, one as long as an MTU of 1,500 bytes allows.
    Imix,
}

impl FrameLength {
    /// From a command line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::Imix);
        }
        within(text, 60, 1500).map(Self::Fixed).map_err(|error| format!("{error}, or imix"))
    }

    /// The lengths there are, when frames have room for `headers` and `overhead` bytes may be put before them on the way.
    pub(crate) fn classes(self, headers: usize, overhead: usize) -> Vec<usize> {
        match self {
            Self::Fixed(length) => vec![length],
            Self::Imix => vec![SHORT.max(headers), MIDDLE, LONG - overhead],
        }
    }

    /// Which of them a flow's frames have.
    #[inline(always)]
    pub(crate) fn class_of(self, flow: u64) -> usize {
        match self {
            Self::Fixed(_) => 0,
            Self::Imix => MIX[(flow % 12) as usize % MIX.len()],
        }
    }

    /// The longest.
    pub(crate) fn longest(self, overhead: usize) -> usize {
        match self {
            Self::Fixed(length) => length,
            Self::Imix => LONG - overhead,
        }
    }
}

impl std::fmt::Display for FrameLength {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::Imix => f.write_str("imix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mix_has_its_shares() {
        let mut seen = [0; CLASSES];
        (0..1200).for_each(|flow| seen[FrameLength::Imix.class_of(flow)] += 1);
        assert_eq!(seen, [700, 400, 100]);
        assert_eq!(FrameLength::Imix.classes(74, 20), [74, 590, 1494]);
        assert_eq!(FrameLength::Fixed(60).classes(42, 20), [60]);
    }

    #[test]
    fn lengths_are_read() {
        assert_eq!(FrameLength::parse("IMIX"), Ok(FrameLength::Imix));
        assert_eq!(FrameLength::parse("1500"), Ok(FrameLength::Fixed(1500)));
        for wrong in ["59", "1501", "mix", ""] {
            assert!(FrameLength::parse(wrong).unwrap_err().contains("or imix"), "{wrong}");
        }
    }
}
