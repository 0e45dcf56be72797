//! The devices of a link: what the program under test is given, and what drives it.

use crate::cli::Link;
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The MAC address of the second pcap vdev of a program; the first one's is [`crate::traffic::DIRECTOR_MAC`].
pub(crate) const SECOND_MAC: [u8; 6] = [0x02, 0x70, 0x63, 0x61, 0x70, 0x01];
/// Where both ends of a link meet.
const SOCKET: &str = "link.sock";
/// Descriptors of a virtio ring.
const RING: u16 = 1024;
/// Binary logarithm of a memif ring's descriptors.
const MEMIF_RING: u8 = 11;

/// Devices of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Devices {
    /// Ports of the program under test: vdevs with their arguments.
    pub(crate) ports: Vec<String>,
    /// What else its EAL is to be told.
    pub(crate) eal: &'static [&'static str],
    /// Most descriptors of a queue, where the device has a limit of its own.
    pub(crate) descriptors: Option<u16>,
    /// Ports of the program that sends, where the link has two ends; the first replays the file.
    pub(crate) generator: Vec<String>,
    /// What else the sender's EAL is to be told.
    pub(crate) generator_eal: &'static [&'static str],
    /// Whether the sender has to be there first.
    pub(crate) generator_first: bool,
}

impl Devices {
    /// The devices of `link`. Every list in `files` is a port's: a file for each worker.
    pub(crate) fn new(link: Link, files: &[Vec<PathBuf>], directory: &Path) -> Self {
        let socket = directory.join(SOCKET);
        let (socket, queues) = (socket.display(), files.first().map_or(1, Vec::len));
        let replayed =
            || files.iter().enumerate().map(|(number, files)| replay(number, files)).collect::<Vec<_>>();
        match link {
            // Where a NIC is, the profile says so: see `between`.
            Link::Pcap | Link::Pci => Self {
                ports: replayed(),
                eal: &[],
                descriptors: None,
                generator: Vec::new(),
                generator_eal: &[],
                generator_first: false,
            },
            Link::Vhost => Self {
                ports: vec![format!(
                    "net_virtio_user0,path={socket},queues={queues},queue_size={RING},in_order=1,mrg_rxbuf=0,\
                     mac=02:70:63:61:70:00"
                )],
                eal: &["--single-file-segments"],
                descriptors: Some(RING),
                generator: replayed()
                    .into_iter()
                    .chain([format!("net_vhost0,iface={socket},queues={queues}")])
                    .collect(),
                generator_eal: &[],
                generator_first: true,
            },
            Link::Memif => Self {
                ports: vec![memif("server", &socket.to_string(), ",mac=02:70:63:61:70:00")],
                eal: &["--single-file-segments"],
                descriptors: None,
                generator: replayed().into_iter().chain([memif("client", &socket.to_string(), "")]).collect(),
                generator_eal: &["--single-file-segments"],
                generator_first: false,
            },
        }
    }
}

impl Devices {
    /// Removes the socket at which both ends met, where one is left.
    pub(crate) fn remove_socket(directory: &Path) -> Result<()> {
        let socket = directory.join(SOCKET);
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", socket.display()))
            }
            _ => Ok(()),
        }
    }

    /// Ports of the program under test wired to as many of the sender's; a file comes by each.
    pub(crate) fn between(ports: Vec<String>, far: Vec<String>, files: &[Vec<PathBuf>]) -> Self {
        let replayed = files.iter().enumerate().map(|(number, files)| replay(number, files));
        Self {
            ports,
            eal: &[],
            descriptors: None,
            generator: replayed.zip(far).flat_map(|(file, port)| [file, port]).collect(),
            generator_eal: &[],
            generator_first: false,
        }
    }
}

fn memif(role: &str, socket: &str, more: &str) -> String {
    format!("net_memif0,role={role},id=0,socket={socket},socket-abstract=no,rsize={MEMIF_RING}{more}")
}

/// A pcap vdev: one receive queue for each file, and transmit queues that drop.
fn replay(number: usize, files: &[PathBuf]) -> String {
    let mut text = format!("net_pcap{number}");
    for file in files {
        // Writing to a string cannot fail.
        let _ = write!(text, ",rx_pcap={}", file.display());
    }
    text.push_str(",infinite_rx=1");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(ports: usize, workers: usize) -> Vec<Vec<PathBuf>> {
        let file = |port, worker| PathBuf::from(format!("/x/{port}-{worker}"));
        (0..ports).map(|port| (0..workers).map(|worker| file(port, worker)).collect()).collect()
    }

    #[test]
    fn pcap_ports_are_the_files() {
        let devices = Devices::new(Link::Pcap, &files(2, 2), Path::new("/x"));
        assert_eq!(
            devices.ports,
            [
                "net_pcap0,rx_pcap=/x/0-0,rx_pcap=/x/0-1,infinite_rx=1",
                "net_pcap1,rx_pcap=/x/1-0,rx_pcap=/x/1-1,infinite_rx=1"
            ]
        );
        assert!(devices.generator.is_empty());
    }

    #[test]
    fn both_ends_of_a_link_meet_at_one_socket() {
        for link in [Link::Vhost, Link::Memif] {
            let devices = Devices::new(link, &files(1, 1), Path::new("/x"));
            assert_eq!((devices.ports.len(), devices.generator.len()), (1, 2));
            assert!(devices.ports[0].contains("=/x/link.sock,"), "{devices:?}");
            assert!(devices.generator[1].contains("=/x/link.sock,"), "{devices:?}");
            assert_eq!(devices.generator_first, link == Link::Vhost);
            assert!(devices.ports[0].ends_with("mac=02:70:63:61:70:00"));
        }
    }
}
