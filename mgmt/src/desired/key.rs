//! What names a virtual service: an address with its protocol and port, or a firewall mark.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::address::{Endpoint, Protocol};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// RFC 791.
    #[default]
    Ipv4,
    /// RFC 8200.
    Ipv6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// Bits of an address.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }

    fn is_ipv4(&self) -> bool {
        *self == Self::Ipv4
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// What names a virtual service. Written as `{"protocol": "tcp", "address": "192.0.2.1:80"}` or as
/// `{"mark": 3, "family": "ipv6"}` (IPv4 where no family is named). Addresses come before marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum ServiceKey {
    /// Packets to an address.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// Virtual address and port; port 0 takes every port that no other service has.
        address: Endpoint,
    },
    /// Packets of any protocol that a mark rule gave a mark.
    Mark {
        /// The mark.
        mark: NonZeroU32,
        /// Of which family.
        #[serde(skip_serializing_if = "Family::is_ipv4")]
        family: Family,
    },
}

impl ServiceKey {
    /// The family of its packets.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(address.ip),
            Self::Mark { family, .. } => family,
        }
    }

    /// The virtual port; 0 for every port, and for marks.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Address { address, .. } => address.port,
            Self::Mark { .. } => 0,
        }
    }

    /// Whether it is a mark's.
    #[must_use]
    pub fn is_mark(self) -> bool {
        matches!(self, Self::Mark { .. })
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address } => write!(f, "{protocol} {address}"),
            Self::Mark { mark, family: Family::Ipv4 } => write!(f, "mark {mark}"),
            Self::Mark { mark, family } => write!(f, "mark {mark} {family}"),
        }
    }
}

/// The fields of a key where it is written among others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    protocol: Option<Protocol>,
    address: Option<Endpoint>,
    mark: Option<NonZeroU32>,
    family: Option<Family>,
}

/// A key from the fields that name one; the error says which are missing or contradict each other.
pub(super) fn key_of_fields(
    protocol: Option<Protocol>,
    address: Option<Endpoint>,
    mark: Option<NonZeroU32>,
    family: Option<Family>,
) -> Result<ServiceKey, &'static str> {
    match (protocol, address, mark, family) {
        (Some(protocol), Some(address), None, None) => Ok(ServiceKey::Address { protocol, address }),
        (None, None, Some(mark), family) => Ok(ServiceKey::Mark { mark, family: family.unwrap_or_default() }),
        (_, _, Some(_), _) => Err("a service has either `protocol` and `address`, or a `mark`"),
        (Some(_), Some(_), None, Some(_)) => Err("`family` belongs to a `mark`; an address says its own"),
        (None, Some(_), None, _) => Err("missing field `protocol`"),
        (Some(_), None, None, _) => Err("missing field `address`"),
        (None, None, None, _) => Err("a service needs `protocol` and `address`, or a `mark`"),
    }
}

impl<'de> Deserialize<'de> for ServiceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;
        impl<'de> Visitor<'de> for Key {
            type Value = ServiceKey;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a service's `protocol` and `address`, or its `mark`")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ServiceKey, A::Error> {
                let Fields { protocol, address, mark, family } =
                    Fields::deserialize(MapAccessDeserializer::new(map))?;
                key_of_fields(protocol, address, mark, family).map_err(de::Error::custom)
            }
        }
        // As a struct, so that a flattened key takes its own fields and leaves the others.
        deserializer.deserialize_struct("ServiceKey", &["protocol", "address", "mark", "family"], Key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ServiceKey, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_read_back_as_written_and_sort_addresses_first() {
        let mut keys = Vec::new();
        for (text, shown) in [
            (r#"{"mark":3,"family":"ipv6"}"#, "mark 3 ipv6"),
            (r#"{"mark":3}"#, "mark 3"),
            (r#"{"protocol":"udp","address":"[fd00::1]:53"}"#, "udp [fd00::1]:53"),
            (r#"{"protocol":"tcp","address":"192.0.2.1:80"}"#, "tcp 192.0.2.1:80"),
        ] {
            let key = read(text).unwrap();
            assert_eq!(key.to_string(), shown);
            assert_eq!(serde_json::to_string(&key).unwrap(), text);
            keys.push(key);
        }
        keys.sort();
        let sorted: Vec<_> = keys.iter().map(ToString::to_string).collect();
        assert_eq!(sorted, ["tcp 192.0.2.1:80", "udp [fd00::1]:53", "mark 3", "mark 3 ipv6"]);
        assert_eq!(read(r#"{"mark":3,"family":"ipv4"}"#).unwrap(), keys[2]);
    }

    #[test]
    fn what_names_no_service_is_refused_with_the_mend() {
        for (text, part) in [
            ("{}", "needs `protocol` and `address`, or a `mark`"),
            (r#"{"protocol":"tcp"}"#, "missing field `address`"),
            (r#"{"address":"192.0.2.1:80"}"#, "missing field `protocol`"),
            (r#"{"mark":0}"#, "nonzero"),
            (r#"{"mark":-1}"#, "-1"),
            (r#"{"mark":4294967296}"#, "4294967296"),
            (r#"{"mark":1,"protocol":"tcp"}"#, "either"),
            (r#"{"mark":1,"family":"ipx"}"#, "unknown variant `ipx`"),
            (r#"{"protocol":"tcp","address":"192.0.2.1:80","family":"ipv4"}"#, "belongs to a `mark`"),
            (r#"{"protocol":"tcp","address":"192.0.2.1:80","extra":1}"#, "unknown field `extra`"),
            ("[]", "invalid type"),
            ("3", "invalid type"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
