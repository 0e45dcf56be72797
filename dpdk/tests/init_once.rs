//! The EAL starts once per process, and shuts down only when nothing uses it.

mod common;

#[cfg(test)]
mod tests {
    use dpdk::{Eal, EalConfig, EalError, Hugepages, LcoreId, MemoryMode};

    use super::common;

    #[test]
    fn a_second_start_is_refused() {
        let bad = EalConfig { file_prefix: "a/b".into(), ..EalConfig::default() };
        assert!(matches!(Eal::init(&bad), Err(EalError::Invalid(_))), "and does not count as the one start");
        let impossible =
            EalConfig { hugepages: Hugepages::Required, memory_mib: u32::MAX, ..EalConfig::default() };
        let text = Eal::init(&impossible).unwrap_err().to_string();
        assert!(text.contains("hugepages are required: 4294967295 MiB asked"), "{text}");

        assert_eq!(LcoreId::current(), None, "before the start no thread is an lcore");
        let eal = common::eal();
        println!("{} on {}: {:?}", eal.version(), eal.memory(), eal.arguments());
        assert!(matches!(eal.memory(), MemoryMode::Ordinary { .. }));
        assert_eq!(LcoreId::current().map(LcoreId::get), Some(0));
        assert!(dpdk::tsc_hz() > 1_000_000);
        let text = Eal::init(&EalConfig::default()).unwrap_err().to_string();
        assert_eq!(text, "the EAL was already initialised in this process; DPDK allows it once");

        let pool = common::pool(&eal, "packets");
        let text = eal.shutdown().unwrap_err().to_string();
        assert!(text.contains("still in use: 1 handles"), "{text}");
        let directory = format!("/var/run/dpdk/uvs-test-{}", std::process::id());
        assert!(!std::path::Path::new(&directory).exists(), "nothing is left behind, even after a kill");
        drop(pool);
        assert!(matches!(Eal::init(&EalConfig::default()), Err(EalError::AlreadyInitialised)));
    }
}
