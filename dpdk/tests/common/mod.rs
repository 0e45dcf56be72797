//! What the tests share. Each test file has one test, because the EAL starts once per process.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test")]

use dpdk::{Burst, Eal, EalConfig, Hugepages, Mempool, MempoolConfig, RxQueue, TxQueue};

/// Starts the EAL on ordinary memory, one worker, under a prefix of its own.
pub(crate) fn eal() -> Eal {
    let config = EalConfig {
        file_prefix: format!("uvs-test-{}", std::process::id()),
        memory_mib: 256,
        hugepages: Hugepages::Never,
        worker_cpus: vec![0],
        ..EalConfig::default()
    };
    Eal::init(&config).unwrap()
}

/// A mempool of 1,023 buffers.
pub(crate) fn pool(eal: &Eal, name: &str) -> Mempool {
    let config =
        MempoolConfig { name: name.to_owned(), buffers: 1023, cache: 32, ..MempoolConfig::default() };
    Mempool::new(eal, &config).unwrap()
}

/// A frame with the given total length: addresses, an experimental EtherType, a counting pattern.
pub(crate) fn frame(length: usize, seed: u8) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..=250).cycle().take(length).map(|value: u8| value ^ seed).collect();
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// Writes a classic pcap file (link type Ethernet).
pub(crate) fn write_pcap(path: &std::path::Path, frames: &[Vec<u8>]) {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1] {
        bytes.extend(word.to_ne_bytes());
    }
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        for word in [0, 0, length, length] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(frame);
    }
    std::fs::write(path, bytes).unwrap();
}

/// The frames of a classic pcap file.
pub(crate) fn read_pcap(path: &std::path::Path) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).unwrap();
    let mut rest = &bytes[24..];
    let mut frames = Vec::new();
    while rest.len() >= 16 {
        let length = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
        frames.push(rest[16..16 + length].to_vec());
        rest = &rest[16 + length..];
    }
    frames
}

/// A directory for this test process, removed when dropped.
pub(crate) struct Scratch(pub(crate) std::path::PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("uvs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Receives until `count` packets are there, or fails.
pub(crate) fn receive_all(rx: &mut RxQueue, count: usize) -> Vec<dpdk::Mbuf> {
    let mut packets = Vec::new();
    for _ in 0..1_000_000 {
        let mut burst: Burst = Burst::new();
        rx.receive(&mut burst);
        packets.extend(burst.drain());
        if packets.len() >= count {
            return packets;
        }
    }
    panic!("{} of {count} packets arrived", packets.len());
}

/// Sends everything in `burst`, or fails.
pub(crate) fn transmit_all<const N: usize>(tx: &mut TxQueue, burst: &mut Burst<N>) {
    for _ in 0..1_000_000 {
        tx.transmit(burst);
        if burst.is_empty() {
            return;
        }
    }
    panic!("{} packets were refused", burst.len());
}
