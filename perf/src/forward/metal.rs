//! Ports, CPUs and the program that sends, on a machine with NICs.

use super::devices::Devices;
use crate::profile::{self, Kind, Profile, is_pci};
use crate::traffic::Direction;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// What a profile says of a run that starts both ends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metal {
    /// All of it.
    pub(crate) profile: Profile,
    /// The director's ports.
    ports: Vec<String>,
    /// Their MAC addresses; the second is the first one's where there is one.
    pub(super) macs: [[u8; 6]; 2],
    /// The generator's CPUs.
    pub(super) far_cpus: [usize; 2],
}

impl Metal {
    /// From a profile that has a director's end.
    pub(crate) fn new(profile: Profile) -> Result<Self> {
        let director = profile.director.as_ref().context(
            "the profile has no [director]: give it the ports and CPUs of the director that is to be started",
        )?;
        let first = profile::mac("traffic.destination_mac", &profile.traffic.destination_mac)?;
        let second = match &director.servers_mac {
            Some(text) => profile::mac("director.servers_mac", text)?,
            None => first,
        };
        let far_cpus = [profile.cores.main, profile.cores.worker].map(usize::from);
        Ok(Self { ports: director.ports.clone(), macs: [first, second], far_cpus, profile })
    }

    /// CPUs for so many workers.
    pub(crate) fn cpus(&self, workers: usize) -> Result<Vec<usize>> {
        let all = self.profile.director.as_ref().map_or(&[][..], |director| &director.cpus);
        let cpus = all.get(..workers);
        cpus.map(<[usize]>::to_vec)
            .with_context(|| format!("director.cpus: {} CPUs are too few for {workers} workers", all.len()))
    }

    /// Refuses what cannot run.
    pub(super) fn check(&self, direction: Direction, cpus: &[usize]) -> Result<()> {
        let wanted = if direction.has_replies() { 2 } else { 1 };
        if self.ports.len() < wanted || self.far().len() < wanted {
            bail!(
                "servers' packets come by ports of their own: give director.ports two, name both ports.send and \
                 ports.receive, and director.servers_mac; or --direction in"
            );
        }
        if direction.has_replies() && self.macs[0] == self.macs[1] {
            bail!(
                "director.servers_mac: servers' packets go to the second port, whose address is another one"
            );
        }
        if direction.has_replies() && self.profile.generator.kind() == Kind::Pktgen {
            bail!(
                "pktgen sends by one port: give --direction in, or generator.program = \"dpdk-testpmd\" in the profile"
            );
        }
        if let Some(cpu) = cpus.iter().find(|cpu| self.far_cpus.contains(cpu)) {
            bail!("CPU {cpu} is both a worker's and the generator's (director.cpus, cores)");
        }
        Ok(())
    }

    fn far(&self) -> Vec<&String> {
        [&self.profile.ports.send, &self.profile.ports.receive].into_iter().flatten().collect()
    }

    /// The devices; a file for each port that packets come by.
    pub(super) fn devices(&self, files: &[Vec<PathBuf>]) -> Devices {
        let ports = self.ports.iter().take(files.len()).cloned().collect();
        let far: Vec<String> = self.far().into_iter().take(files.len()).cloned().collect();
        Devices::between(ports, far, files)
    }
}

/// Whether an EAL has to look for PCI devices.
pub(super) fn has_pci(devices: &[String]) -> bool {
    devices.iter().any(|device| is_pci(device))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::profile::tests::EXAMPLE;

    pub(crate) fn metal(change: impl Fn(String) -> String) -> Result<Metal> {
        Metal::new(Profile::parse(&change(EXAMPLE.to_owned()))?)
    }

    fn both(text: &str) -> String {
        text.replace("ports = [\"0000:af:00.0\"]", "ports = [\"0000:af:00.0\", \"0000:af:00.1\"]")
            .replace("# servers_mac", "servers_mac")
    }

    #[test]
    fn a_profile_gives_ports_cpus_and_addresses() {
        let metal = metal(|text| text).unwrap();
        assert_eq!((metal.cpus(2).unwrap(), metal.far_cpus), (vec![4, 5], [1, 2]));
        assert!(metal.cpus(3).unwrap_err().to_string().contains("too few for 3 workers"));
        assert_eq!(metal.macs, [[2, 0, 0, 0, 0x84, 0x1e]; 2]);
        metal.check(Direction::In, &[4]).unwrap();
        let devices = metal.devices(&[vec!["/x/requests-0.pcap".into()]]);
        assert_eq!(devices.ports, ["0000:af:00.0"]);
        assert_eq!(devices.generator[1], "0000:3b:00.0");
        assert!(devices.generator[0].contains("/x/requests-0.pcap"));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let refusal =
            |metal: &Metal, direction, cpus: &[usize]| metal.check(direction, cpus).unwrap_err().to_string();
        let one = metal(|text| text).unwrap();
        assert!(refusal(&one, Direction::Both, &[4]).contains("ports of their own"));
        assert!(refusal(&one, Direction::In, &[2]).contains("CPU 2 is both"));
        let two = metal(|text| both(&text)).unwrap();
        assert!(refusal(&two, Direction::Both, &[4]).contains("pktgen sends by one port"));
        let testpmd = metal(|text| both(&text).replace("\"pktgen\"", "\"dpdk-testpmd\"")).unwrap();
        testpmd.check(Direction::Both, &[4]).unwrap();
        let error = metal(|text| text.split("[director]").next().unwrap().to_owned()).unwrap_err();
        assert!(error.to_string().contains("has no [director]"), "{error}");
    }
}
