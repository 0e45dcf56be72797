//! Which part of a client's address decides its persistence.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Family;
use crate::address::AddressError;

/// The bits of a client's address that persistence looks at: any mask for IPv4, as in the kernel, and leading bits for IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientMask {
    /// Bits that count, written as `255.255.255.0`.
    Ipv4(Ipv4Addr),
    /// Leading bits that count, written as a number; for IPv4 a way to write a mask.
    Prefix(u8),
}

impl ClientMask {
    /// The whole address.
    #[must_use]
    pub fn whole(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4(Ipv4Addr::BROADCAST),
            Family::Ipv6 => Self::Prefix(family.bits()),
        }
    }

    /// The mask as it is held for a family: dotted for IPv4, a prefix for IPv6. `None`: it does not fit.
    #[must_use]
    pub fn held(self, family: Family) -> Option<Self> {
        match (self, family) {
            (Self::Ipv4(_), Family::Ipv4) => Some(self),
            (Self::Prefix(prefix @ 0..=32), Family::Ipv4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Some(Self::Ipv4(mask.into()))
            }
            (Self::Prefix(1..=128), Family::Ipv6) => Some(self),
            _ => None,
        }
    }

    /// The number of leading bits, if nothing but leading bits count.
    #[must_use]
    pub fn prefix(self) -> Option<u8> {
        match self {
            Self::Prefix(prefix) => Some(prefix),
            Self::Ipv4(mask) => {
                let mask = u32::from(mask);
                let leading = mask.leading_ones();
                (mask.checked_shl(leading).unwrap_or(0) == 0).then(|| u8::try_from(leading).ok()).flatten()
            }
        }
    }
}

impl FromStr for ClientMask {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError::BadMask(text.to_owned());
        match text.parse::<u8>() {
            Ok(prefix @ 1..=128) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Self::Prefix(prefix))
            }
            _ => text.parse().map(Self::Ipv4).map_err(|_| bad()),
        }
    }
}

impl fmt::Display for ClientMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(mask) => mask.fmt(f),
            Self::Prefix(prefix) => write!(f, "/{prefix}"),
        }
    }
}

impl Serialize for ClientMask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Ipv4(mask) => serializer.collect_str(mask),
            Self::Prefix(prefix) => serializer.serialize_u8(*prefix),
        }
    }
}

impl<'de> Deserialize<'de> for ClientMask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MaskOrLength;
        impl de::Visitor<'_> for MaskOrLength {
            type Value = ClientMask;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a network mask such as \"255.255.255.0\", or a prefix length such as 24")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ClientMask, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, length: u64) -> Result<ClientMask, E> {
                length.to_string().parse().map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, length: i64) -> Result<ClientMask, E> {
                length.to_string().parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(MaskOrLength)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_a_mask_for_ipv4_and_any_mask_is_one() {
        for (text, mask, prefix) in [
            ("24", "255.255.255.0", Some(24)),
            ("255.255.255.255", "255.255.255.255", Some(32)),
            ("128.0.0.0", "128.0.0.0", Some(1)),
            ("0.0.0.0", "0.0.0.0", Some(0)),
            ("0.0.0.24", "0.0.0.24", None),
        ] {
            let held = text.parse::<ClientMask>().unwrap().held(Family::Ipv4).unwrap();
            assert_eq!((held.to_string().as_str(), held.prefix()), (mask, prefix));
            let json = serde_json::to_string(&held).unwrap();
            assert_eq!(serde_json::from_str::<ClientMask>(&json).unwrap(), held);
        }
        let v6: ClientMask = serde_json::from_str("64").unwrap();
        assert_eq!(v6.held(Family::Ipv6), Some(ClientMask::Prefix(64)));
        assert_eq!(v6.held(Family::Ipv4), None);
        assert_eq!(ClientMask::Ipv4(Ipv4Addr::BROADCAST).held(Family::Ipv6), None);
        assert_eq!(ClientMask::whole(Family::Ipv6), ClientMask::Prefix(128));
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        for bad in ["0", "129", "+24", "-1", "255.255.255", "x", ""] {
            assert!(bad.parse::<ClientMask>().unwrap_err().to_string().contains("prefix length"), "{bad}");
        }
        for bad in ["129", "-1", "0", "1.5", "[]", "null"] {
            assert!(serde_json::from_str::<ClientMask>(bad).is_err(), "{bad}");
        }
    }
}
