//! Capture files, as DPDK's pcap device replays them and as tcpdump and tshark read them: libpcap's classic format, microseconds,
//! Ethernet.

use std::io::{self, Write};

const MAGIC: u32 = 0xa1b2_c3d4;
const VERSION: [u16; 2] = [2, 4];
const SNAPSHOT_LENGTH: u32 = 65_535;
const LINKTYPE_ETHERNET: u32 = 1;

/// A capture file that is being written.
#[derive(Debug)]
pub struct Capture<W> {
    out: W,
}

impl<W: Write> Capture<W> {
    /// An empty one.
    ///
    /// # Errors
    /// The writer's.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC.to_le_bytes())?;
        for number in VERSION {
            out.write_all(&number.to_le_bytes())?;
        }
        for number in [0, 0, SNAPSHOT_LENGTH, LINKTYPE_ETHERNET] {
            out.write_all(&number.to_le_bytes())?;
        }
        Ok(Self { out })
    }

    /// Adds a whole frame, so many milliseconds after the first possible one.
    ///
    /// # Errors
    /// The writer's, or a frame longer than the format knows.
    pub fn frame(&mut self, at_ms: u32, frame: &[u8]) -> io::Result<()> {
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        for number in [at_ms / 1000, at_ms % 1000 * 1000, length, length] {
            self.out.write_all(&number.to_le_bytes())?;
        }
        self.out.write_all(frame)
    }

    /// Hands everything to the file.
    ///
    /// # Errors
    /// The writer's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_header_and_records_in_order() {
        let mut file = Vec::new();
        let mut capture = Capture::new(&mut file).unwrap();
        capture.frame(61_007, &[1, 2, 3]).unwrap();
        capture.frame(61_008, &[]).unwrap();
        capture.flush().unwrap();
        let record = |seconds: u32, microseconds: u32, length: u32| {
            [seconds, microseconds, length, length].map(u32::to_le_bytes).concat()
        };
        let header =
            [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0];
        assert_eq!(file, [&header[..], &record(61, 7_000, 3), &[1, 2, 3], &record(61, 8_000, 0)].concat());
    }
}
