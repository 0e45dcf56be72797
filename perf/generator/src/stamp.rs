//! Times inside frames.

use crate::STAMP;

/// Writes a time to the end of a frame, which has room for it behind its headers.
#[inline(always)]
pub fn write(frame: &mut [u8], time: u64) {
    if let Some(end) = frame.last_chunk_mut::<STAMP>() {
        let both = u128::from(time) << 64 | u128::from(!time);
        *end = both.to_be_bytes();
    }
}

/// The time at the end of a frame; `None` where there is none.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the two halves")]
pub fn read(frame: &[u8]) -> Option<u64> {
    let both = u128::from_be_bytes(*frame.last_chunk::<STAMP>()?);
    let (time, complement) = ((both >> 64) as u64, both as u64);
    (time == !complement).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The internet checksum (RFC 1071) of an even number of bytes.
    fn checksum(bytes: &[u8]) -> u16 {
        let mut sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn other_peoples_frames_have_no_time() {
        assert_eq!(read(&[0; 64]), None);
        assert_eq!(read(&[0; 8]), None);
    }

    proptest! {
        #[test]
        fn a_time_comes_back_and_leaves_the_checksum_alone(time: u64, odd in 0_usize..2) {
            let mut frame = vec![7; 49 + odd];
            frame[33 + odd..].fill(0);
            frame.resize(50 + odd, 0);
            let before = frame.clone();
            write(&mut frame, time);
            prop_assert_eq!(read(&frame), Some(time));
            let even = |frame: &[u8]| checksum(&[frame, &vec![0; frame.len() % 2]].concat());
            prop_assert_eq!(even(&frame), even(&before));
        }
    }
}
