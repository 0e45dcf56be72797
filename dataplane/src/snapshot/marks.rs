//! Mark rules: what `iptables -t mangle … -j MARK` does in front of a kernel director.

use crate::address::Address;
use crate::flow::Tuple;
use crate::id::PortId;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// An address in it.
    pub address: IpAddr,
    /// Leading bits that count.
    pub length: u8,
}

impl Prefix {
    fn contains<A: Address>(&self, address: A) -> bool {
        A::from_ip(self.address)
            .is_some_and(|network| network.masked(self.length) == address.masked(self.length))
    }
}

/// Marks the packets that all of its conditions hold for. Rules do not look into ICMP errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkRule {
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Where packets come from.
    pub source: Option<Prefix>,
    /// Where they go to.
    pub destination: Option<Prefix>,
    /// Source ports, of protocols that have ports.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// Destination ports, of protocols that have ports.
    pub destination_ports: Option<RangeInclusive<u16>>,
    /// The port they come in by.
    pub port: Option<PortId>,
    /// The mark; 0 takes the mark of earlier rules away.
    pub mark: u32,
}

impl MarkRule {
    fn marks<A: Address>(&self, tuple: &Tuple<A>, port: PortId) -> bool {
        self.covers(tuple) && self.port.is_none_or(|named| named == port)
    }

    /// Without looking at where the packet came in, which a reply does not show.
    fn covers<A: Address>(&self, tuple: &Tuple<A>) -> bool {
        let within = |range: &Option<RangeInclusive<u16>>, number: u16| {
            range.as_ref().is_none_or(|range| range.contains(&number))
        };
        self.may_mark(tuple)
            && within(&self.source_ports, tuple.source_port)
            && within(&self.destination_ports, tuple.destination_port)
    }

    /// Without looking at ports either, which a fragment does not show.
    fn may_mark<A: Address>(&self, tuple: &Tuple<A>) -> bool {
        let within = |prefix: &Option<Prefix>, address: A| match prefix {
            Some(prefix) => prefix.contains(address),
            None => true,
        };
        self.protocol.is_none_or(|named| named == tuple.protocol)
            && within(&self.source, tuple.source)
            && within(&self.destination, tuple.destination)
    }
}

/// All mark rules. Asked only for packets without a connection; without rules one comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// In the operator's order: of several rules for a packet the last one wins, as with successive MARK targets.
    rules: Arc<[MarkRule]>,
    /// Rules that are gone while connections they led to may still be there: they decide on ownership alone.
    former: Arc<[MarkRule]>,
}

impl Marks {
    /// These rules, and `former` ones.
    #[must_use]
    pub fn new(rules: Arc<[MarkRule]>, former: Arc<[MarkRule]>) -> Self {
        Self { rules, former }
    }

    /// Whether there is neither a rule nor a former one.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.former.is_empty()
    }

    /// The rules in order.
    #[must_use]
    pub fn rules(&self) -> &[MarkRule] {
        &self.rules
    }

    /// The rules that are gone.
    #[must_use]
    pub fn former(&self) -> &[MarkRule] {
        &self.former
    }

    /// The mark of a packet that came in by `port`, 0: none.
    #[cold]
    #[must_use]
    pub fn of<A: Address>(&self, tuple: &Tuple<A>, port: PortId) -> u32 {
        self.rules.iter().rev().find(|rule| rule.marks(tuple, port)).map_or(0, |rule| rule.mark)
    }

    /// Whether a client's packet of this tuple is marked when it comes in by the right port, or was before a rule went.
    #[inline]
    #[must_use]
    pub fn cover<A: Address>(&self, tuple: &Tuple<A>) -> bool {
        !self.is_empty() && self.any(|rule| rule.covers(tuple))
    }

    /// Whether that may be, by addresses and protocol alone.
    #[inline]
    #[must_use]
    pub fn may_cover<A: Address>(&self, tuple: &Tuple<A>) -> bool {
        !self.is_empty() && self.any(|rule| rule.may_mark(tuple))
    }

    #[cold]
    fn any(&self, is_it: impl Fn(&MarkRule) -> bool) -> bool {
        self.rules.iter().chain(&*self.former).any(|rule| rule.mark != 0 && is_it(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const PORT: PortId = PortId(0);

    fn prefix(text: &str, length: u8) -> Option<Prefix> {
        Some(Prefix { address: text.parse().unwrap(), length })
    }

    fn rule(mark: u32) -> MarkRule {
        MarkRule {
            protocol: None,
            source: None,
            destination: None,
            source_ports: None,
            destination_ports: None,
            port: None,
            mark,
        }
    }

    fn tuple(destination: &str, destination_port: u16, protocol: u8) -> Tuple<Ipv4Addr> {
        Tuple {
            source: "10.1.0.5".parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port: 1024,
            destination_port,
            protocol,
        }
    }

    fn marks(rules: impl IntoIterator<Item = MarkRule>) -> Marks {
        Marks::new(rules.into_iter().collect(), Arc::default())
    }

    #[test]
    fn every_condition_counts() {
        let web = MarkRule {
            protocol: Some(6),
            source: prefix("10.1.0.0", 16),
            destination: prefix("10.0.0.100", 32),
            source_ports: Some(1024..=65535),
            destination_ports: Some(80..=443),
            port: Some(PORT),
            mark: 7,
        };
        let packet = tuple("10.0.0.100", 80, 6);
        let of = |packet: &Tuple<Ipv4Addr>, port| marks([web.clone()]).of(packet, port);
        assert_eq!(of(&packet, PORT), 7);
        assert_eq!(of(&packet, PortId(1)), 0);
        assert_eq!(of(&tuple("10.0.0.101", 80, 6), PORT), 0);
        assert_eq!(of(&tuple("10.0.0.100", 444, 6), PORT), 0);
        assert_eq!(of(&tuple("10.0.0.100", 80, 17), PORT), 0);
        assert_eq!(of(&Tuple { source: Ipv4Addr::new(10, 2, 0, 5), ..packet }, PORT), 0);
        assert_eq!(of(&Tuple { source_port: 1023, ..packet }, PORT), 0);
        let six = Tuple::<std::net::Ipv6Addr> {
            source: "fd00::1".parse().unwrap(),
            destination: "fd00::2".parse().unwrap(),
            source_port: 1024,
            destination_port: 80,
            protocol: 6,
        };
        assert_eq!(marks([web]).of(&six, PORT), 0);
        assert_eq!(marks([rule(3)]).of(&six, PORT), 3);
    }

    /// As successive MARK targets: each one that matches writes the mark anew.
    #[test]
    fn the_last_matching_rule_wins() {
        let to = |address: &str, mark| MarkRule { destination: prefix(address, 32), ..rule(mark) };
        let rules = marks([rule(1), to("10.0.0.100", 2), to("10.0.0.101", 0)]);
        assert_eq!(rules.of(&tuple("10.0.0.100", 80, 6), PORT), 2);
        assert_eq!(rules.of(&tuple("10.0.0.101", 80, 6), PORT), 0);
        assert_eq!(rules.of(&tuple("10.0.0.102", 80, 6), PORT), 1);
        assert!(Marks::default().is_empty() && !rules.is_empty());
    }

    #[test]
    fn ownership_sees_fragments_and_former_rules() {
        let web = MarkRule {
            destination: prefix("172.16.0.0", 12),
            destination_ports: Some(80..=80),
            port: Some(PORT),
            ..rule(1)
        };
        let rules = Marks::new(Arc::default(), [web].into());
        assert!(rules.cover(&tuple("172.31.255.255", 80, 6)) && !rules.cover(&tuple("172.32.0.0", 80, 6)));
        let piece = tuple("172.31.255.255", 0, 6);
        assert!(rules.may_cover(&piece) && !rules.cover(&piece) && !Marks::default().may_cover(&piece));
        assert_eq!(rules.of(&tuple("172.16.0.1", 80, 6), PORT), 0);
    }
}
