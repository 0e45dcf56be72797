//! Capture files as the pcap vdev replays them (the classic format of libpcap, microseconds, Ethernet).

use crate::traffic::Frames;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

const MAGIC: u32 = 0xa1b2_c3d4;
const VERSION: [u16; 2] = [2, 4];
const SNAPSHOT_LENGTH: u32 = 65_535;
const LINKTYPE_ETHERNET: u32 = 1;

/// Writes one frame of each of these flows.
pub(crate) fn write(path: &Path, frames: &Frames, flows: impl Iterator<Item = u64>) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write_to(&mut out, frames, flows)
        .and_then(|()| out.flush())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn write_to(out: &mut impl Write, frames: &Frames, flows: impl Iterator<Item = u64>) -> std::io::Result<()> {
    out.write_all(&MAGIC.to_le_bytes())?;
    for number in VERSION {
        out.write_all(&number.to_le_bytes())?;
    }
    for number in [0, 0, SNAPSHOT_LENGTH, LINKTYPE_ETHERNET] {
        out.write_all(&number.to_le_bytes())?;
    }
    let mut frame = vec![0; frames.length()];
    let length = u32::try_from(frame.len()).map_err(std::io::Error::other)?.to_le_bytes();
    for flow in flows {
        frames.write(flow, &mut frame);
        out.write_all(&[0; 8])?;
        out.write_all(&length)?;
        out.write_all(&length)?;
        out.write_all(&frame)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Client, DIRECTOR_MAC, Protocol, Segment, Shape};
    use etherparse::{LinkSlice, NetSlice, SlicedPacket, TransportSlice};

    #[test]
    fn a_file_holds_a_whole_frame_of_every_flow() {
        let shape = Shape { protocol: Protocol::Udp, ipv6: false, services: 2, frame: 64, flows: 5 };
        let frames = Frames::new(&shape, Segment::Ack);
        let mut file = Vec::new();
        write_to(&mut file, &frames, (0..5).filter(|flow| flow % 2 == 0)).unwrap();
        assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(file.len(), 24 + 3 * (16 + 64));
        for (index, record) in file[24..].chunks(80).enumerate() {
            assert_eq!(record[8..16], [64, 0, 0, 0, 64, 0, 0, 0]);
            let packet = SlicedPacket::from_ethernet(&record[16..]).unwrap();
            let Some(LinkSlice::Ethernet2(link)) = &packet.link else { panic!("no Ethernet") };
            assert_eq!(link.destination(), DIRECTOR_MAC);
            let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4") };
            let Some(TransportSlice::Udp(udp)) = &packet.transport else { panic!("no UDP") };
            let client = Client::of(2 * index as u64);
            assert_eq!(std::net::IpAddr::from(ip.header().source_addr()), client.end(false).ip());
            assert_eq!((udp.source_port(), udp.destination_port()), (client.port, 1024));
        }
    }
}
