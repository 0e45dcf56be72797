//! Frames from and to pcap files, long ones in several buffers, and endless replay.

mod common;

#[cfg(test)]
mod tests {
    use dpdk::{Burst, PortConfig};

    use super::common::{self, Scratch};

    #[test]
    fn files_are_received_and_written() {
        let eal = common::eal();
        let pool = common::pool(&eal, "packets");
        let scratch = Scratch::new("pcap");
        let (input, output, replay) =
            (scratch.file("in.pcap"), scratch.file("out.pcap"), scratch.file("replay.pcap"));
        let frames: Vec<Vec<u8>> =
            [60, 1514, 2048, 2049, 9000, 9014, 64].iter().map(|length| common::frame(*length, 3)).collect();
        common::write_pcap(&input, &frames);

        let device = format!("net_pcap0,rx_pcap={},tx_pcap={}", input.display(), output.display());
        let device = eal.attach(&device).unwrap();
        println!("{:?}", device.capabilities());
        let mut port = device.start(&PortConfig::default(), &pool).unwrap();
        let (mut rx, mut tx) = (port.rx_queue(0).unwrap(), port.tx_queue(0).unwrap());

        let packets = common::receive_all(&mut rx, frames.len());
        let segments: Vec<u16> = packets.iter().map(dpdk::Mbuf::segments).collect();
        assert_eq!(segments, [1, 1, 1, 2, 5, 5, 1], "a buffer holds 2,048 bytes");
        for (packet, frame) in packets.iter().zip(&frames) {
            let mut copy = vec![0; 10_000];
            assert_eq!(packet.copy_to(&mut copy), Some(frame.len()));
            assert_eq!(copy[..frame.len()], **frame);
            assert!(packet.is_exclusive());
            assert_eq!(packet.port(), port.id());
        }
        assert_eq!(pool.in_use(), 16);
        let mut burst: Burst = Burst::new();
        for packet in packets {
            burst.push(packet).unwrap();
        }
        assert!(port.capabilities().multi_segment_tx);
        common::transmit_all(&mut tx, &mut burst);
        assert_eq!(pool.in_use(), 0);
        drop((rx, tx));
        port.close().unwrap();
        assert_eq!(common::read_pcap(&output), frames);

        // A long MTU with short buffers is fine where the driver scatters.
        let config = PortConfig { mtu: Some(9000), ..PortConfig::default() };
        let device = format!("net_pcap0,rx_pcap={}", input.display());
        let port = eal.attach(&device).unwrap().start(&config, &pool).unwrap();
        assert_eq!((port.mtu().unwrap(), port.report().scatter), (9000, true));
        port.close().unwrap();

        common::write_pcap(&replay, &frames[..2]);
        let device = format!("net_pcap1,rx_pcap={},infinite_rx=1", replay.display());
        let mut port = eal.attach(&device).unwrap().start(&PortConfig::default(), &pool).unwrap();
        let mut rx = port.rx_queue(0).unwrap();
        let held = pool.in_use();
        let mut packets = common::receive_all(&mut rx, 96);
        for (index, packet) in packets.iter_mut().enumerate() {
            assert!(packet.is_exclusive(), "infinite_rx copies");
            assert_eq!(
                packet.data(),
                frames[index % 2],
                "and is not disturbed by writing to what came before"
            );
            packet.data_mut().fill(0xee);
        }
        assert_eq!(pool.in_use(), held + 96);
        drop(packets);
        assert_eq!(pool.in_use(), held);
        drop(rx);
        port.close().unwrap();
        assert_eq!(pool.in_use(), 0, "the replayed originals came back too");
        drop(pool);
        eal.shutdown().unwrap();
    }
}
