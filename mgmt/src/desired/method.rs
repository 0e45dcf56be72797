//! How a packet travels from the director to the destination.

use std::fmt;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Refusal;

/// A forwarding method. Written as `"direct"`, `"masquerade"`, `"tunnel"` (IP in IP) or
/// `{"tunnel": {"kind": "gue", "port": 5555, "checksum": "remote"}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// VS/DR: the frame's MAC addresses change, the packet does not (but for its TTL).
    #[default]
    Direct,
    /// VS/NAT: the destination's address and port replace the virtual ones, on the way back the other way round.
    Masquerade,
    /// VS/TUN: the packet travels inside another one.
    Tunnel(Tunnel),
}

/// What carries the packet to a tunnel's destination, as the kernel's `IPVS_DEST_ATTR_TUN_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tunnel {
    /// The outer headers.
    pub kind: TunnelKind,
    /// UDP port of GUE in host byte order; 0 for the others.
    #[serde(skip_serializing_if = "is_zero")]
    pub port: u16,
    /// Checksum of GUE and GRE.
    #[serde(skip_serializing_if = "TunnelChecksum::is_none")]
    pub checksum: TunnelChecksum,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// The outer headers of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelKind {
    /// RFC 2003 and RFC 2473: IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation (draft-ietf-intarea-gue).
    Gue,
    /// RFC 2784.
    Gre,
}

/// Which checksum a tunnel's outer header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    /// None.
    #[default]
    None,
    /// Over the whole payload.
    Plain,
    /// GUE's remote checksum offload.
    Remote,
}

impl TunnelChecksum {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

impl fmt::Display for TunnelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gre => "gre",
        })
    }
}

impl fmt::Display for TunnelChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Plain => "plain",
            Self::Remote => "remote",
        })
    }
}

impl Tunnel {
    /// # Errors
    ///
    /// GUE without a port (the kernel refuses it too), remote checksum offload without GUE.
    pub(crate) fn check(self) -> Result<(), Refusal> {
        match (self.kind, self.port, self.checksum) {
            (TunnelKind::Gue, 0, _) => Err(Refusal::TunnelPort),
            (TunnelKind::Gue, ..) | (_, _, TunnelChecksum::None | TunnelChecksum::Plain) => Ok(()),
            (kind, _, TunnelChecksum::Remote) => Err(Refusal::TunnelChecksum(kind)),
        }
    }
}

impl FromStr for Method {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text {
            "direct" => Ok(Self::Direct),
            "masquerade" => Ok(Self::Masquerade),
            "tunnel" => Ok(Self::Tunnel(Tunnel::default())),
            _ => Err(Refusal::UnknownMethod(text.to_owned())),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.pad("direct"),
            Self::Masquerade => f.pad("masquerade"),
            Self::Tunnel(tunnel) if *tunnel == Tunnel::default() => f.pad("tunnel"),
            Self::Tunnel(Tunnel { kind, port, checksum }) => {
                write!(f, "tunnel {kind}")?;
                if *port != 0 {
                    write!(f, " port {port}")?;
                }
                if checksum.is_none() { Ok(()) } else { write!(f, " checksum {checksum}") }
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WithTunnel {
    tunnel: Tunnel,
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Tunnel(tunnel) if *tunnel != Tunnel::default() => {
                WithTunnel { tunnel: *tunnel }.serialize(serializer)
            }
            plain => serializer.collect_str(plain),
        }
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTunnel;
        impl<'de> Visitor<'de> for TextOrTunnel {
            type Value = Method;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "\"direct\", \"masquerade\", \"tunnel\", or { tunnel = { kind = \"gue\", port = 5555 } }",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Method, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Method, A::Error> {
                WithTunnel::deserialize(MapAccessDeserializer::new(map))
                    .map(|WithTunnel { tunnel }| Method::Tunnel(tunnel))
            }
        }
        deserializer.deserialize_any(TextOrTunnel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_read_back_as_written() {
        for (text, shown) in [
            (r#""direct""#, "direct"),
            (r#""masquerade""#, "masquerade"),
            (r#""tunnel""#, "tunnel"),
            (
                r#"{"tunnel":{"kind":"gue","port":5555,"checksum":"remote"}}"#,
                "tunnel gue port 5555 checksum remote",
            ),
            (r#"{"tunnel":{"kind":"gre","checksum":"plain"}}"#, "tunnel gre checksum plain"),
        ] {
            let method: Method = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&method).unwrap(), text);
            assert_eq!(method.to_string(), shown);
        }
        assert_eq!(
            serde_json::from_str::<Method>(r#"{"tunnel":{}}"#).unwrap(),
            Method::Tunnel(Tunnel::default())
        );
    }

    #[test]
    fn what_is_no_method_is_refused() {
        for (text, part) in [
            (r#""bypass""#, "no forwarding method `bypass`"),
            (r#"{"tunnel":{"kind":"vxlan"}}"#, "unknown variant `vxlan`"),
            (r#"{"tunnel":{"port":65536}}"#, "65536"),
            (r#"{"tunel":{}}"#, "unknown field `tunel`"),
            (r#"{"tunnel":{"mtu":1}}"#, "unknown field `mtu`"),
            ("3", "invalid type"),
        ] {
            let error = serde_json::from_str::<Method>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let gue = Tunnel { kind: TunnelKind::Gue, ..Tunnel::default() };
        assert!(gue.check().is_err() && Tunnel { port: 6080, ..gue }.check().is_ok());
        let gre = Tunnel { kind: TunnelKind::Gre, port: 0, checksum: TunnelChecksum::Remote };
        assert!(gre.check().is_err());
        assert!(Tunnel::default().check().is_ok());
    }
}
