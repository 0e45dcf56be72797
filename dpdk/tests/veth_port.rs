//! `net_af_packet` on a veth pair: frames cross the kernel, VLAN tags stay, the MTU is the kernel's.
//! Needs root, and skips without it.

mod common;

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::thread;
    use std::time::{Duration, Instant};

    use dpdk::{Burst, Mbuf, MempoolConfig, Port, PortConfig, RxQueue};

    use super::common;

    struct Veth(String, String);

    impl Veth {
        /// `None` without the privilege to make one.
        fn new() -> Option<Self> {
            let id = std::process::id();
            let (a, b) = (format!("uvt{id}a"), format!("uvt{id}b"));
            if !ip(&["link", "add", &a, "type", "veth", "peer", "name", &b]) {
                return None;
            }
            for name in [&a, &b] {
                assert!(ip(&["link", "set", name, "addrgenmode", "none", "up"]));
            }
            Some(Self(a, b))
        }
    }

    impl Drop for Veth {
        fn drop(&mut self) {
            ip(&["link", "del", &self.0]);
        }
    }

    fn ip(arguments: &[&str]) -> bool {
        Command::new("ip").args(arguments).status().is_ok_and(|status| status.success())
    }

    fn device(number: usize, interface: &str) -> String {
        format!("net_af_packet{number},iface={interface},blocksz=12288,framesz=12288,framecnt=64,qpairs=1")
    }

    fn receive_matching(rx: &mut RxQueue, count: usize) -> Vec<Mbuf> {
        let until = Instant::now() + Duration::from_secs(5);
        let mut found: Vec<Mbuf> = Vec::new();
        while found.len() < count && Instant::now() < until {
            let mut burst: Burst = Burst::new();
            rx.receive(&mut burst);
            found.extend(burst.drain().filter(|packet| packet.data().starts_with(&[2, 0, 0, 0, 0, 1])));
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(found.len(), count);
        found
    }

    #[test]
    fn frames_cross_the_kernel() {
        let Some(veth) = Veth::new() else {
            eprintln!("SKIPPED: making a veth pair needs root");
            return;
        };
        let eal = common::eal();
        let config = MempoolConfig {
            name: "jumbo".into(),
            buffers: 1023,
            cache: 32,
            data_room: 12288, // the driver wants framesz less 32, and a framesz that divides blocksz
            ..MempoolConfig::default()
        };
        let pool = dpdk::Mempool::new(&eal, &config).unwrap();
        let start = |number: usize, interface: &str| -> Port {
            let device = eal.attach(&device(number, interface)).unwrap();
            println!("{:?}", device.capabilities());
            assert_eq!(device.mtu().unwrap(), 9000, "the kernel's");
            let config = PortConfig { mtu: Some(9000), promiscuous: true, ..PortConfig::default() };
            device.start(&config, &pool).unwrap()
        };
        let config = PortConfig { mtu: Some(9000), ..PortConfig::default() };
        let text = eal.attach(&device(0, &veth.0)).unwrap().start(&config, &pool).unwrap_err().to_string();
        println!("{text}");
        assert!(
            text.contains("MTU 9000 asked, net_af_packet takes 46 to 1500; set more on the kernel"),
            "{text}"
        );
        for name in [&veth.0, &veth.1] {
            assert!(ip(&["link", "set", name, "mtu", "9000"]));
        }
        let (mut a, mut b) = (start(0, &veth.0), start(1, &veth.1));
        assert_eq!((a.mtu().unwrap(), a.report().scatter), (9000, false));
        assert_ne!(a.mac().unwrap(), b.mac().unwrap());
        assert!(b.link().unwrap().up);

        let (mut tx, mut rx) = (a.tx_queue(0).unwrap(), b.rx_queue(0).unwrap());
        let mut burst: Burst = Burst::new();
        let mut tagged = common::frame(100, 7);
        tagged.splice(12..12, [0x81, 0x00, 0x60, 0x2a]);
        let frames = [common::frame(60, 1), common::frame(1514, 2), common::frame(9014, 3), tagged];
        for frame in &frames {
            let mut packet = pool.alloc().unwrap();
            assert!(packet.set_data(frame));
            burst.push(packet).unwrap();
        }
        common::transmit_all(&mut tx, &mut burst);
        let received = receive_matching(&mut rx, frames.len());
        assert!(received.iter().all(|packet| packet.segments() == 1), "the pool's buffers hold the MTU");
        for (packet, frame) in received.iter().zip(&frames) {
            assert_eq!(packet.stripped_vlan(), None, "the tag is where it was on the wire");
            assert_eq!(packet.data(), frame);
            assert!(packet.is_exclusive());
        }
        drop((received, rx, tx));
        a.close().unwrap();
        b.close().unwrap();
        let config = PortConfig { mtu: Some(1400), ..PortConfig::default() };
        let port = eal.attach(&device(0, &veth.0)).unwrap().start(&config, &pool).unwrap();
        assert_eq!(port.mtu().unwrap(), 1400);
        let kernel = std::fs::read_to_string(format!("/sys/class/net/{}/mtu", veth.0)).unwrap();
        assert_eq!(kernel.trim(), "1400", "set in the kernel");
        port.close().unwrap();
        assert_eq!(pool.in_use(), 0);
        drop(pool);
        eal.shutdown().unwrap();
    }
}
