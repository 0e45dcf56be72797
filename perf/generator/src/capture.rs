//! Frames of a capture file: libpcap's classic format in this machine's byte order, as `uvs-perf` writes it.

use anyhow::{Context, Result, bail};
use generator::STAMP;
use std::path::Path;

/// Microseconds, or nanoseconds.
const MAGIC: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d];
const HEADER: usize = 24;
const RECORD: usize = 16;

/// Frames, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Frames {
    /// How many there are: at least one.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The frame of that number; nothing beyond the last.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(index).copied().unwrap_or(start);
        self.bytes.get(start..end).unwrap_or_default()
    }
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<Frames> {
    let file = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&file).with_context(|| path.display().to_string())
}

fn parse(file: &[u8]) -> Result<Frames> {
    let word = |at: usize| {
        let bytes = file.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
        bytes.map(|bytes| u32::from_ne_bytes(*bytes))
    };
    if !word(0).is_some_and(|magic| MAGIC.contains(&magic)) {
        bail!("no capture file of this machine's byte order");
    }
    let (mut at, mut frames) = (HEADER, Frames { bytes: Vec::new(), ends: Vec::new() });
    while at < file.len() {
        let length = word(at + 8).map(|length| length as usize).context("a record is cut off")?;
        let start = at + RECORD;
        let frame = file.get(start..start.saturating_add(length)).context("a frame is cut off")?;
        if frame.len() < 14 + STAMP {
            bail!("a frame of {length} bytes has no room for a time");
        }
        frames.bytes.extend_from_slice(frame);
        frames.ends.push(frames.bytes.len());
        at = start + length;
    }
    if frames.ends.is_empty() {
        bail!("no frame is in it");
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = MAGIC[0].to_ne_bytes().to_vec();
        file.resize(HEADER, 0);
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap();
            file.extend([0, 0, length, length].map(u32::to_ne_bytes).concat());
            file.extend(frame);
        }
        file
    }

    #[test]
    fn frames_come_as_they_were_written() {
        let frames = [vec![1; 64], vec![2; 1514], vec![3; 60]];
        let read = parse(&file(&frames)).unwrap();
        assert_eq!(read.len(), 3);
        frames.iter().enumerate().for_each(|(index, frame)| assert_eq!(read.get(index), frame));
        assert!(read.get(3).is_empty());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |file: &[u8]| parse(file).unwrap_err().to_string();
        assert!(error(b"nonsense").contains("no capture file"));
        assert!(error(&file(&[])).contains("no frame"));
        assert!(error(&file(&[vec![0; 20]])).contains("no room for a time"));
        let whole = file(&[vec![1; 64]]);
        assert!(error(&whole[..60]).contains("cut off"));
        assert!(error(&whole[..30]).contains("cut off"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(magic) = bytes.first_chunk_mut::<4>() {
                *magic = MAGIC[0].to_ne_bytes();
            }
            let _ = parse(&bytes);
        }
    }
}
