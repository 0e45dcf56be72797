//! `net_null`: several queues, RSS as advertised, modes and counters.

mod common;

#[cfg(test)]
mod tests {
    use dpdk::{Burst, PortConfig, RssConfig, RssFields};

    use super::common;

    #[test]
    fn queues_and_rss() {
        let eal = common::eal();
        let pool = common::pool(&eal, "packets");
        let device = eal.attach("net_null0,size=128").unwrap();
        println!("{:?} {:?}", device.capabilities(), device.mac());
        assert_eq!(device.mtu().unwrap(), 1500);
        let rss = RssConfig {
            key: [0x6d, 0x5a].repeat(26),
            fields: RssFields::IP_AND_PORTS | RssFields::SOURCE_ONLY,
            table: RssConfig::round_robin(2),
        };
        let config = PortConfig {
            rx_queues: 2,
            tx_queues: 2,
            promiscuous: true,
            all_multicast: true,
            rss: Some(rss),
            ..PortConfig::default()
        };
        let mut port = device.start(&config, &pool).unwrap();
        println!("{:#?}", port.report());
        let report = port.report().rss.clone().unwrap();
        assert!(!report.exact, "net_null cannot restrict the hash to the source");
        assert_eq!(report.key.as_deref(), Some(&[0x6d, 0x5a].repeat(20)[..]));
        assert_eq!(report.table.as_deref(), Some(&RssConfig::round_robin(2)[..]));
        println!("promiscuous {} notes {:?}", port.is_promiscuous(), port.report().notes);

        for queue in 0..2 {
            let (mut rx, mut tx) = (port.rx_queue(queue).unwrap(), port.tx_queue(queue).unwrap());
            let mut burst: Burst<8> = Burst::new();
            assert_eq!(rx.receive(&mut burst), 8);
            assert_eq!(rx.receive(&mut burst), 0, "no room, no packets");
            assert!(burst.iter().all(|packet| packet.len() == 128 && packet.rss_hash().is_none()));
            drop(burst.pop());
            assert_eq!(rx.receive(&mut burst), 1, "room for one");
            assert_eq!(tx.transmit(&mut burst), 8);
            assert_eq!(tx.transmit(&mut burst), 0);
            assert_eq!((rx.port(), tx.port(), rx.queue(), tx.queue()), (port.id(), port.id(), queue, queue));
        }
        assert_eq!(pool.in_use(), 0);
        let stats = port.stats().unwrap();
        assert_eq!((stats.rx_packets, stats.tx_packets), (18, 16));
        assert_eq!(port.xstats().unwrap()["tx_good_packets"], 16);
        port.reset_stats().unwrap();
        assert_eq!(port.stats().unwrap().tx_packets, 0);

        port.set_mac([2, 0, 0, 0, 0, 9]).unwrap();
        assert_eq!(port.mac().unwrap(), [2, 0, 0, 0, 0, 9]);
        assert!(port.set_mtu(9000).unwrap_err().to_string().contains("do not fit the 2048 bytes"));
        port.set_mtu(1400).unwrap();
        assert_eq!(port.mtu().unwrap(), 1400);
        println!("{:?} socket {:?}", port.link(), port.socket());
        port.close().unwrap();
        drop(pool);
        eal.shutdown().unwrap();
    }
}
