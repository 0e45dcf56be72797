//! Capture files for the pcap vdev.

use crate::traffic::Frames;
use anyhow::{Context, Result};
use dataplane::bench::Capture;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Longest frame.
const LONGEST: usize = 1514;

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Writer<W: Write> {
    capture: Capture<W>,
    frame: Vec<u8>,
}

impl Writer<BufWriter<File>> {
    /// Begins a file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let begin = || Self::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
        begin().with_context(|| format!("cannot write {}", path.display()))
    }
}

impl<W: Write> Writer<W> {
    fn new(out: W) -> std::io::Result<Self> {
        Ok(Self { capture: Capture::new(out)?, frame: vec![0; LONGEST] })
    }

    /// Adds a flow's frame.
    pub(crate) fn add(&mut self, frames: &Frames, flow: u64, server: u16) -> Result<()> {
        let length = frames.write(flow, server, &mut self.frame);
        self.capture.frame(0, &self.frame[..length]).context("cannot write a capture file")
    }

    /// Adds a frame of other making.
    pub(crate) fn add_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.capture.frame(0, frame).context("cannot write a capture file")
    }

    /// Ends the file.
    pub(crate) fn end(mut self) -> Result<()> {
        self.capture.flush().context("cannot write a capture file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{Client, DIRECTOR_MAC, FrameLength, Protocol, Segment, Sender, Shape};
    use etherparse::{LinkSlice, NetSlice, SlicedPacket, TransportSlice};

    #[test]
    fn a_file_holds_a_whole_frame_of_every_flow() {
        let frame = FrameLength::Fixed(64);
        let shape =
            Shape { protocol: Protocol::Udp, ipv6: false, services: 2, destinations: 1, frame, flows: 5 };
        let frames = Frames::new(&shape, Sender::Clients, Segment::Ack, 0);
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        (0..5).filter(|flow| flow % 2 == 0).for_each(|flow| writer.add(&frames, flow, 0).unwrap());
        writer.end().unwrap();
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
