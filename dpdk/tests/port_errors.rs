//! What is said when a port cannot be had: its name, what was asked, what the device can, and why.

mod common;

#[cfg(test)]
mod tests {
    use dpdk::{Eal, Mempool, MempoolConfig, PortConfig, RssConfig, RssFields};

    use super::common;

    fn attach_error(eal: &Eal, device: &str) -> String {
        let text = eal.attach(device).unwrap_err().to_string();
        println!("{text}");
        text
    }

    fn start_error(eal: &Eal, device: &str, config: &PortConfig, pool: &Mempool) -> String {
        let text = eal.attach(device).unwrap().start(config, pool).unwrap_err().to_string();
        println!("{text}");
        text
    }

    #[track_caller]
    fn names(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
    }

    #[test]
    fn errors_name_the_port_the_wish_and_the_limit() {
        let eal = common::eal();
        let pool = common::pool(&eal, "packets");
        let base = PortConfig::default();

        names(&attach_error(&eal, "net_bogus0"), &["\"net_bogus0\" cannot be attached: no driver has"]);
        names(&attach_error(&eal, ""), &["no name"]);
        names(&attach_error(&eal, "net_null0\0"), &["NUL"]);
        names(&attach_error(&eal, "0000:ff:1f.7"), &["0000:ff:1f.7", "no such PCI device", "vfio-pci"]);
        names(
            &attach_error(&eal, "net_af_packet0,iface=nosuchiface0"),
            &["net_af_packet0,iface=nosuchiface0", "ioctl failed"],
        );
        names(&attach_error(&eal, "net_af_packet0"), &["net_af_packet0"]);
        names(&attach_error(&eal, "net_pcap0,rx_pcap=/nosuchdir/in.pcap"), &["nosuchdir"]);
        names(&attach_error(&eal, "net_null0,bogus=1"), &["net_null0,bogus=1", "check its arguments"]);

        let many = PortConfig { rx_queues: 17, ..base.clone() };
        names(
            &start_error(&eal, "net_ring0", &many, &pool),
            &["port net_ring0: 17 receive queues asked, net_ring has 1 to 16"],
        );
        let none = PortConfig { tx_queues: 0, ..base.clone() };
        names(&start_error(&eal, "net_ring0", &none, &pool), &["0 transmit queues asked, net_ring has 1 to"]);
        let empty = PortConfig { rx_descriptors: 0, ..base.clone() };
        names(&start_error(&eal, "net_ring0", &empty, &pool), &["0 receive descriptors asked", "1 to 65535"]);
        let small = PortConfig { mtu: Some(10), ..base.clone() };
        names(&start_error(&eal, "net_ring0", &small, &pool), &["MTU 10 asked", "takes"]);
        let long = PortConfig { mtu: Some(9000), ..base.clone() };
        names(
            &start_error(&eal, "net_null0", &long, &pool),
            &["port net_null0: frames of MTU 9000 do not fit the 2048 bytes", "mempool packets", "scatter"],
        );

        let first = eal.attach("net_null0").unwrap();
        names(&attach_error(&eal, "net_null0,size=64"), &["port net_null0: already attached"]);
        drop(first);
        eal.attach("net_null0").unwrap().start(&base, &pool).unwrap().close().unwrap();

        // A device without RSS is reported, not refused.
        let rss = RssConfig {
            key: vec![0x6d; 52],
            fields: RssFields::IP_AND_PORTS,
            table: RssConfig::round_robin(2),
        };
        let config = PortConfig { rx_queues: 2, tx_queues: 2, rss: Some(rss), ..base };
        let port = eal.attach("net_ring1").unwrap().start(&config, &pool).unwrap();
        let report = port.report().rss.clone().unwrap();
        println!("{report:?}");
        assert!(!report.exact && report.fields.is_empty() && !report.hash_delivered);
        names(&report.shortfalls.join("; "), &["net_ring has no RSS over IP"]);
        port.close().unwrap();

        let huge = MempoolConfig { name: "huge".into(), buffers: 10_000_000, ..MempoolConfig::default() };
        let text = Mempool::new(&eal, &huge).unwrap_err().to_string();
        println!("{text}");
        names(&text, &["mempool huge: 10000000 buffers of 2048 bytes (some 22583 MiB; the EAL has 256 MiB"]);
        let text = Mempool::new(&eal, pool.config()).unwrap_err().to_string();
        println!("{text}");
        names(&text, &["mempool packets", "File exists"]);
        assert_eq!(pool.in_use(), 0);
        drop(pool);
        eal.shutdown().unwrap();
    }
}
