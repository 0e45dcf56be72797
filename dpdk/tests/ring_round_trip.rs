//! Packets through a `net_ring` port: the same buffers come back, in order, and none is lost.

mod common;

use dpdk::{Burst, EalError, PortConfig};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_received() {
        let eal = common::eal();
        let pool = common::pool(&eal, "packets");
        assert_eq!(pool.available(), pool.capacity());

        let device = eal.attach("net_ring0").unwrap();
        println!("{:#?}", device.capabilities());
        let config = PortConfig { rx_queues: 1, tx_queues: 1, ..PortConfig::default() };
        let mut port = device.start(&config, &pool).unwrap();
        println!("{port:?} {:?} {:?}", port.link(), port.mac());
        let mut rx = port.rx_queue(0).unwrap();
        let mut tx = port.tx_queue(0).unwrap();
        assert!(port.rx_queue(0).is_none(), "a queue is handed out once");
        assert!(port.tx_queue(1).is_none(), "there is no second queue");

        let mut sent: Burst = Burst::new();
        assert!(pool.alloc_bulk(&mut sent, 32));
        for (index, packet) in sent.iter_mut().enumerate() {
            assert!(packet.set_data(&common::frame(60 + index, u8::try_from(index).unwrap())));
        }
        assert_eq!(pool.in_use(), 32);
        common::transmit_all(&mut tx, &mut sent);
        let received = common::receive_all(&mut rx, 32);
        for (index, packet) in received.iter().enumerate() {
            assert_eq!(packet.data(), common::frame(60 + index, u8::try_from(index).unwrap()));
            assert!(packet.is_exclusive());
        }
        assert_eq!(rx.receive(&mut Burst::<32>::new()), 0);
        drop(received);
        assert_eq!(pool.in_use(), 0);
        assert_eq!(port.stats().unwrap().rx_packets, 32);
        assert_eq!(port.stats().unwrap().tx_packets, 32);
        println!("{:?}", port.xstats());

        drop(rx);
        let mut rx = port.rx_queue(0).expect("a dropped queue is free again");
        assert_eq!(rx.receive(&mut Burst::<32>::new()), 0);
        assert!(port.close().unwrap_err().to_string().contains("2 queues are still in use"));
        drop((rx, tx));

        let again = eal.attach("net_ring0").unwrap();
        drop(again);
        assert!(matches!(eal.shutdown(), Err(EalError::InUse(1))), "the pool is alive");
        drop(pool);
    }
}
