//! Addresses as operators write them: `192.168.132.254:80`, `[fd00::1]:80`, `192.168.132.30/24`, `02:00:00:00:84:1e`.
//!
//! Every type here reads from and writes to the same text, in the configuration file, on the control socket and on
//! the command line, and its error says what to write instead.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use dataplane::address::Address as _;
use serde::{Deserialize, Serialize};

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No IPv4 or IPv6 address in it.
    #[error("`{0}` is not an IPv4 or IPv6 address (examples: 192.168.132.254, fd00::1)")]
    NotAnAddress(String),
    /// An address whose port is missing.
    #[error("`{0}` has no port; write {1}")]
    NoPort(String, String),
    /// The part after the colon is not 0 to 65535.
    #[error("`{0}` is not a port: a number from 0 to 65535")]
    BadPort(String),
    /// An IPv6 address with a port needs brackets to be unambiguous.
    #[error("`{0}` is ambiguous; write an IPv6 address and its port as [fd00::1]:80")]
    Brackets(String),
    /// The part after the slash is longer than the address.
    #[error("`{0}` is not a prefix length for {1}: a number from 0 to {2}")]
    BadLength(String, IpAddr, u8),
    /// No `/LENGTH`.
    #[error("`{0}` has no prefix length; write {0}/24 (IPv4) or {0}/64 (IPv6)")]
    NoLength(String),
    /// Not six hexadecimal bytes.
    #[error("`{0}` is not a MAC address: six hexadecimal bytes such as 02:00:00:00:84:1e")]
    BadMac(String),
    /// Neither a dotted mask nor a prefix length.
    #[error(
        "`{0}` is not a network mask: bits such as 255.255.255.0 (IPv4), or a prefix length 1 to 32 (IPv4), 1 to 128 (IPv6)"
    )]
    BadMask(String),
    /// Not a range of ports.
    #[error("`{0}` is not a port or a range of ports from 0 to 65535, such as 80 or 8000-8999")]
    BadPorts(String),
}

/// Transport protocol of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// The number in the IP header (IANA protocol numbers).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Reads and writes a type through its `FromStr` and `Display`.
macro_rules! text_serde {
    ($type:ty, $expecting:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

pub(crate) use text_serde;

fn parse_ip(text: &str) -> Result<IpAddr, AddressError> {
    text.parse().map_err(|_| AddressError::NotAnAddress(text.to_owned()))
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::BadPort(text.to_owned()));
    }
    text.parse().map_err(|_| AddressError::BadPort(text.to_owned()))
}

/// Address and port of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The virtual address.
    pub ip: IpAddr,
    /// The port in host byte order; 0 means every port.
    pub port: u16,
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let server: Server = text.parse()?;
        match server.port {
            Some(port) => Ok(Self { ip: server.ip, port }),
            None => Err(AddressError::NoPort(text.to_owned(), SocketAddr::new(server.ip, 80).to_string())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

text_serde!(Endpoint, "an address and port such as \"192.168.132.254:80\" or \"[fd00::1]:80\"");

/// Address of a real server, with a port where the forwarding method uses one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// The real server's address.
    pub ip: IpAddr,
    /// Its port in host byte order; `None` means the service's port.
    pub port: Option<u16>,
}

impl FromStr for Server {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix('[') {
            let (ip, after) =
                rest.split_once(']').ok_or_else(|| AddressError::NotAnAddress(text.to_owned()))?;
            let ip = parse_ip(ip)?;
            return match after.strip_prefix(':') {
                Some(port) => Ok(Self { ip, port: Some(parse_port(port)?) }),
                None if after.is_empty() => Ok(Self { ip, port: None }),
                None => Err(AddressError::Brackets(text.to_owned())),
            };
        }
        match text.matches(':').count() {
            0 => Ok(Self { ip: parse_ip(text)?, port: None }),
            1 => {
                let (ip, port) = text.split_once(':').unwrap_or((text, ""));
                Ok(Self { ip: parse_ip(ip)?, port: Some(parse_port(port)?) })
            }
            _ => match text.parse() {
                Ok(ip) => Ok(Self { ip, port: None }),
                Err(_) => Err(AddressError::Brackets(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

text_serde!(Server, "a real server's address such as \"192.168.132.64\" or \"192.168.132.64:80\"");

/// An interface address or route target: address and prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address, host bits included.
    pub ip: IpAddr,
    /// Leading bits that name the network: 0 to 32 (IPv4) or 128 (IPv6).
    pub length: u8,
}

impl Prefix {
    /// Whether `ip` is in the network.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => net.masked(self.length) == ip.masked(self.length),
            (IpAddr::V6(net), IpAddr::V6(ip)) => net.masked(self.length) == ip.masked(self.length),
            _ => false,
        }
    }
}

/// Bits of an address of this family.
#[must_use]
pub fn family_bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Prefix {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some((ip, length)) = text.split_once('/') else {
            parse_ip(text)?;
            return Err(AddressError::NoLength(text.to_owned()));
        };
        let ip = parse_ip(ip)?;
        let bits = family_bits(ip);
        match length.parse::<u8>() {
            Ok(length) if length <= bits => Ok(Self { ip, length }),
            _ => Err(AddressError::BadLength(length.to_owned(), ip, bits)),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.length)
    }
}

text_serde!(Prefix, "an address with its prefix length such as \"192.168.132.30/24\"");

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = || AddressError::BadMac(text.to_owned());
        let mut bytes = [0_u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(bad)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

text_serde!(Mac, "a MAC address such as \"02:00:00:00:84:1e\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        for text in ["192.168.132.254:80", "[fd00::1]:65535", "0.0.0.0:0"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.1", "fd00::64", "10.0.0.1:8080", "[fd00::64]:80"] {
            assert_eq!(text.parse::<Server>().unwrap().to_string(), text);
        }
        for text in ["192.168.132.30/24", "::/0", "fd00::1/128"] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
        assert_eq!("02:00:00:00:84:1e".parse::<Mac>().unwrap().to_string(), "02:00:00:00:84:1e");
    }

    #[test]
    fn every_refusal_says_what_to_write() {
        let cases = [
            ("192.168.132.254".parse::<Endpoint>().unwrap_err(), "write 192.168.132.254:80"),
            ("fd00::1".parse::<Endpoint>().unwrap_err(), "write [fd00::1]:80"),
            ("fd00::1:x".parse::<Endpoint>().unwrap_err(), "[fd00::1]:80"),
            ("1.2.3.4:65536".parse::<Endpoint>().unwrap_err(), "0 to 65535"),
            ("1.2.3.4:+80".parse::<Endpoint>().unwrap_err(), "0 to 65535"),
            ("1.2.3:80".parse::<Endpoint>().unwrap_err(), "not an IPv4 or IPv6 address"),
            ("[fd00::1".parse::<Endpoint>().unwrap_err(), "not an IPv4 or IPv6 address"),
            ("10.0.0.1".parse::<Prefix>().unwrap_err(), "10.0.0.1/24"),
            ("10.0.0.1/33".parse::<Prefix>().unwrap_err(), "0 to 32"),
            ("02:00:00:00:84".parse::<Mac>().unwrap_err(), "six hexadecimal bytes"),
            ("02:00:00:00:84:1e:0".parse::<Mac>().unwrap_err(), "six hexadecimal bytes"),
        ];
        for (error, mend) in cases {
            assert!(error.to_string().contains(mend), "{error}");
        }
    }
}
