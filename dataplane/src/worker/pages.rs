//! What memory really lies on: page sizes and NUMA nodes, as the kernel tells of its own tables.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;

const KIB: u64 = 1024;

/// What memory lies on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backing {
    /// Bytes that are there.
    pub resident: u64,
    /// Bytes of them on transparent huge pages.
    pub huge: u64,
    /// Bytes by node; empty where the kernel knows none.
    pub nodes: BTreeMap<u32, u64>,
}

impl Backing {
    /// Of all mappings of this process that these addresses are in. Neighbours in one mapping are counted with them.
    #[must_use]
    pub fn of(addresses: &[Range<usize>]) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        Self::parse(&read("smaps"), &read("numa_maps"), addresses)
    }

    fn parse(smaps: &str, numa_maps: &str, addresses: &[Range<usize>]) -> Self {
        let mut backing = Self::default();
        let mut starts = Vec::new();
        let mut inside = false;
        for line in smaps.lines() {
            if let Some(mapping) = mapping(line) {
                inside = addresses.iter().any(|one| one.start < mapping.end && mapping.start < one.end);
                if inside {
                    starts.push(mapping.start);
                }
            } else if inside {
                let kib = |name: &str| -> Option<u64> {
                    line.strip_prefix(name)?.split_whitespace().next()?.parse().ok()
                };
                backing.resident += kib("Rss:").unwrap_or(0) * KIB;
                backing.huge += kib("AnonHugePages:").unwrap_or(0) * KIB;
            }
        }
        for line in numa_maps.lines() {
            let start = line.split(' ').next().and_then(|start| usize::from_str_radix(start, 16).ok());
            if start.is_some_and(|start| starts.contains(&start)) {
                backing.count_nodes(line);
            }
        }
        backing
    }

    fn count_nodes(&mut self, line: &str) {
        let number = |text: &str| text.parse::<u64>().ok();
        let page =
            line.split(' ').find_map(|word| number(word.strip_prefix("kernelpagesize_kB=")?)).unwrap_or(4);
        for word in line.split(' ') {
            let Some((node, pages)) = word.strip_prefix('N').and_then(|word| word.split_once('=')) else {
                continue;
            };
            if let (Ok(node), Some(pages)) = (node.parse(), number(pages)) {
                *self.nodes.entry(node).or_default() += pages * page * KIB;
            }
        }
    }
}

impl std::fmt::Display for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        write!(f, "{} MiB, {} of them on huge pages", mib(self.resident), mib(self.huge))?;
        for (node, bytes) in &self.nodes {
            write!(f, ", {} on node {node}", mib(*bytes))?;
        }
        Ok(())
    }
}

/// The addresses of a mapping, when the line begins one: `55d0c0000000-55d0c0200000 rw-p …`.
fn mapping(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Region;

    const SMAPS: &str = "7f0000000000-7f0000400000 rw-p 00000000 00:00 0 \nSize: 4096 kB\nRss:  4000 kB\nPss: 1 kB\n\
                         AnonHugePages:      2048 kB\nVmFlags: rd wr hg \n\
                         7f0000400000-7f0000800000 rw-p 00000000 00:00 0 [heap]\nRss: 100 kB\nAnonHugePages: 0 kB\n";
    const NUMA_MAPS: &str = "7f0000000000 default anon=1000 dirty=1000 N0=700 N1=300 kernelpagesize_kB=4\n\
                             7f0000400000 default heap anon=25 dirty=25 N1=25 kernelpagesize_kB=4\n";

    #[test]
    fn mappings_with_the_addresses_in_them_are_counted() {
        let parse = |addresses: Range<usize>| Backing::parse(SMAPS, NUMA_MAPS, &Vec::from_iter([addresses]));
        let backing = parse(0x7f00_0000_1000..0x7f00_0000_2000);
        assert_eq!((backing.resident, backing.huge), (4_096_000, 2 << 20));
        assert_eq!(backing.nodes, BTreeMap::from([(0, 2_867_200), (1, 1_228_800)]));
        assert_eq!(backing.to_string(), "3 MiB, 2 of them on huge pages, 2 on node 0, 1 on node 1");
        let both = parse(0x7f00_003f_f000..0x7f00_0040_0001);
        assert_eq!((both.resident, both.nodes[&1]), (4_096_000 + 102_400, 1_228_800 + 102_400));
        assert_eq!(parse(0..1), Backing::default());
    }

    #[test]
    fn a_touched_region_is_there_and_asks_for_huge_pages() {
        let mut region = Region::anonymous(64 << 20).unwrap();
        region.touch();
        let addresses = region.addresses();
        let backing = Backing::of(std::slice::from_ref(&addresses));
        assert!(backing.resident >= 64 << 20, "{backing}");
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines();
        lines
            .by_ref()
            .find(|line| mapping(line).is_some_and(|mapping| mapping.contains(&addresses.start)))
            .unwrap();
        let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.split(' ').any(|flag| flag == "hg"), "{flags}");
        println!("{backing}");
    }
}
