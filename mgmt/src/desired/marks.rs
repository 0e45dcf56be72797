//! Rules that give packets a firewall mark, as `iptables -t mangle -A PREROUTING … -j MARK --set-mark N` does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Family, Refusal};
use crate::address::{AddressError, Prefix, Protocol, text_serde};

/// How many rules there may be: each packet without a connection is held against all of them.
pub const MARK_RULES_MAX: usize = 256;

/// A range of ports, written as `80` or `8000-8999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first port, in host byte order.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError::BadPorts(text.to_owned());
        let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse::<u16>().map_err(|_| bad()),
            false => Err(bad()),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first <= range.last { Ok(range) } else { Err(bad()) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { first, last } if first == last => first.fmt(f),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

text_serde!(PortRange, "ports such as \"80\" or \"8000-8999\"");

/// A rule. What it does not name matches everything. Of the rules that match a packet the last one decides, as the last of
/// several MARK rules in a chain does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRule {
    /// The mark; 0 takes a mark away that an earlier rule gave.
    pub mark: u32,
    /// Transport protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Where packets come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Prefix>,
    /// Where packets go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Prefix>,
    /// The client's port; needs a protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<PortRange>,
    /// The virtual port; needs a protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_ports: Option<PortRange>,
    /// Name of the port that packets come in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

impl MarkRule {
    /// A rule that gives every packet a mark.
    #[must_use]
    pub fn all(mark: u32) -> Self {
        Self {
            mark,
            protocol: None,
            source: None,
            destination: None,
            source_ports: None,
            destination_ports: None,
            port: None,
        }
    }

    /// # Errors
    ///
    /// Families that differ, ports without a protocol.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let family = |prefix: Option<Prefix>| prefix.map(|prefix| Family::of(prefix.ip));
        match (family(self.source), family(self.destination)) {
            (Some(source), Some(destination)) if source != destination => Err(Refusal::MarkRuleFamilies),
            _ if self.protocol.is_none()
                && (self.source_ports.is_some() || self.destination_ports.is_some()) =>
            {
                Err(Refusal::MarkRulePorts)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for MarkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(protocol) = self.protocol {
            write!(f, "{protocol} ")?;
        }
        for (name, prefix, ports) in
            [("from", self.source, self.source_ports), ("to", self.destination, self.destination_ports)]
        {
            match (prefix, ports) {
                (None, None) => {}
                (Some(prefix), None) => write!(f, "{name} {prefix} ")?,
                (None, Some(ports)) => write!(f, "{name} port {ports} ")?,
                (Some(prefix), Some(ports)) => write!(f, "{name} {prefix} port {ports} ")?,
            }
        }
        if let Some(port) = &self.port {
            write!(f, "in by {port} ")?;
        }
        write!(f, "mark {}", self.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_back_as_written() {
        let text = r#"{"mark":1,"protocol":"tcp","source":"10.0.0.0/8","destination":"192.0.2.1/32","source_ports":"1024-65535","destination_ports":"80","port":"eth0"}"#;
        let rule: MarkRule = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&rule).unwrap(), text);
        assert_eq!(
            rule.to_string(),
            "tcp from 10.0.0.0/8 port 1024-65535 to 192.0.2.1/32 port 80 in by eth0 mark 1"
        );
        assert!(rule.check().is_ok());
        assert_eq!(MarkRule::all(7).to_string(), "mark 7");
        assert_eq!(serde_json::from_str::<MarkRule>(r#"{"mark":7}"#).unwrap(), MarkRule::all(7));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for (text, part) in [
            ("{}", "missing field `mark`"),
            (r#"{"mark":-1}"#, "-1"),
            (r#"{"mark":1,"protocol":"icmp"}"#, "unknown variant `icmp`"),
            (r#"{"mark":1,"source":"10.0.0.0"}"#, "write 10.0.0.0/24"),
            (r#"{"mark":1,"destination_ports":"90-80"}"#, "8000-8999"),
            (r#"{"mark":1,"destination_ports":"80-"}"#, "8000-8999"),
            (r#"{"mark":1,"destination_ports":"+80"}"#, "8000-8999"),
            (r#"{"mark":1,"destination_ports":"65536"}"#, "8000-8999"),
            (r#"{"mark":1,"destination_ports":80}"#, "ports such as"),
            (r#"{"mark":1,"dest":"10.0.0.0/8"}"#, "unknown field `dest`"),
        ] {
            let error = serde_json::from_str::<MarkRule>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, refusal) in [
            (r#"{"mark":1,"destination_ports":"80"}"#, Refusal::MarkRulePorts),
            (r#"{"mark":1,"source":"10.0.0.0/8","destination":"fd00::/64"}"#, Refusal::MarkRuleFamilies),
        ] {
            assert_eq!(serde_json::from_str::<MarkRule>(text).unwrap().check(), Err(refusal));
        }
    }
}
