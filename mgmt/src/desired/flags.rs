//! The three flags that a scheduler may look at.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of the kernel's scheduler flags 1 to 3, written as a list such as `["flag-1", "flag-2"]`. For `sh` and `mh` flag 1 is
/// the fallback and flag 2 the client's port, and may be written by ipvsadm's names for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SchedulerFlags(u8);

/// The name that is written, and ipvsadm's others for it.
const NAMES: [(&str, &[&str]); 3] =
    [("flag-1", &["sh-fallback", "mh-fallback"]), ("flag-2", &["sh-port", "mh-port"]), ("flag-3", &[])];

impl SchedulerFlags {
    /// A set from its bits: bit 0 is flag 1. Higher bits are left out.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & 7)
    }

    /// Bit 0 is flag 1.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// No flag.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        let set = move |(bit, _): &(u8, _)| self.0 >> bit & 1 == 1;
        (0_u8..).zip(NAMES).filter(set).map(|(_, (name, _))| name)
    }

    fn with(self, text: &str) -> Result<Self, UnknownFlag> {
        let known = |(name, others): &(&str, &[&str])| *name == text || others.contains(&text);
        let place = NAMES.iter().position(known).ok_or_else(|| UnknownFlag(text.to_owned()))?;
        Ok(Self(self.0 | 1 << place))
    }
}

/// Not a scheduler's flag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scheduler's flag; write flag-1 (sh-fallback), flag-2 (sh-port) or flag-3")]
pub struct UnknownFlag(String);

impl fmt::Display for SchedulerFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

/// Flags with commas between, as ipvsadm's `-b` takes them.
impl FromStr for SchedulerFlags {
    type Err = UnknownFlag;

    fn from_str(text: &str) -> Result<Self, UnknownFlag> {
        text.split(',').filter(|name| !name.is_empty()).try_fold(Self::default(), Self::with)
    }
}

impl Serialize for SchedulerFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for SchedulerFlags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = SchedulerFlags;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of flags such as [\"flag-1\", \"flag-2\"]")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<SchedulerFlags, A::Error> {
                let mut flags = SchedulerFlags::default();
                while let Some(name) = list.next_element::<String>()? {
                    flags = flags.with(&name).map_err(de::Error::custom)?;
                }
                Ok(flags)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_the_kernels_bits_and_ipvsadms_names() {
        for (text, bits, shown) in [
            ("", 0, ""),
            ("sh-port", 2, "flag-2"),
            ("mh-fallback,mh-port", 3, "flag-1,flag-2"),
            ("flag-3,flag-1", 5, "flag-1,flag-3"),
        ] {
            let flags: SchedulerFlags = text.parse().unwrap();
            assert_eq!((flags.bits(), flags.to_string().as_str()), (bits, shown));
            let json = serde_json::to_string(&flags).unwrap();
            assert_eq!(serde_json::from_str::<SchedulerFlags>(&json).unwrap(), flags);
            assert_eq!(SchedulerFlags::from_bits(bits), flags);
        }
        for bad in ["flag-0", "flag-4", "sh", "flag-1 "] {
            assert!(bad.parse::<SchedulerFlags>().unwrap_err().to_string().contains("write flag-1"));
        }
        for bad in [r#"["flag-9"]"#, r#""flag-1""#, "1", "[1]"] {
            assert!(serde_json::from_str::<SchedulerFlags>(bad).is_err(), "{bad}");
        }
    }
}
