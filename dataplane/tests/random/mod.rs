//! Frames that go wrong, the same ones in every run.

#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    reason = "shared by test programs; test figures are small"
)]

/// Marsaglia's xorshift: the same frames in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Bends a frame: bytes flipped, cut, stretched, IPv4 checksum mended so that it gets deeper.
pub fn bend(mut frame: Vec<u8>, random: &mut Random) -> Vec<u8> {
    for _ in 0..random.below(4) {
        let at = 12 + random.below(frame.len().saturating_sub(12).min(60));
        if let Some(byte) = frame.get_mut(at) {
            *byte = random.next() as u8;
        }
    }
    if random.below(3) == 0 && frame.len() >= 34 && frame[12..14] == [8, 0] && frame[14] == 0x45 {
        if random.below(2) == 0 {
            frame[20..22].copy_from_slice(&(random.next() as u16).to_be_bytes());
        }
        dataplane::packet::checksum::fill_header(&mut frame[14..34]);
    }
    if random.below(4) == 0 {
        frame.truncate(random.below(frame.len()));
    }
    frame
}
