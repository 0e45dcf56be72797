//! The EAL on hugepages, where enough are free; skips where not.

mod common;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dpdk::eal::HugepageState;
    use dpdk::{Burst, Eal, EalConfig, MemoryMode, PortConfig};

    use super::common;

    #[test]
    fn hugepages_are_taken_when_free() {
        let free = HugepageState::read().free_mib();
        if free < 64 {
            eprintln!("SKIPPED: {free} MiB of hugepages are free, 64 MiB wanted");
            return;
        }
        let prefix = format!("uvs-huge-{}", std::process::id());
        let config = EalConfig { file_prefix: prefix.clone(), memory_mib: 64, ..EalConfig::default() };
        let eal = Eal::init(&config).unwrap();
        println!("{}: {:?}", eal.memory(), eal.arguments());
        assert!(matches!(eal.memory(), MemoryMode::Hugepages { .. }));
        let pool = common::pool(&eal, "packets");
        let mut port = eal.attach("net_null0").unwrap().start(&PortConfig::default(), &pool).unwrap();
        let (mut rx, mut tx) = (port.rx_queue(0).unwrap(), port.tx_queue(0).unwrap());
        let mut burst: Burst = Burst::new();
        assert_eq!(rx.receive(&mut burst), 32);
        common::transmit_all(&mut tx, &mut burst);
        drop((rx, tx, port));
        assert_eq!(pool.in_use(), 0);
        drop(pool);
        eal.shutdown().unwrap();
        assert!(!Path::new("/var/run/dpdk").join(prefix).exists(), "nothing is left behind");
    }
}
