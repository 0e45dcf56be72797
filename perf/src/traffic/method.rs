//! How the director forwards, and which way packets go.

use super::Protocol;
use crate::results::Parameters;
use anyhow::{Result, bail};
use clap::ValueEnum;
use dataplane::snapshot::{Method, Tunnel, TunnelChecksum};
use serde_json::json;

/// Outer UDP port of GUE, as examples of ipvsadm have it.
const GUE_PORT: u16 = 6080;

/// How packets reach the real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// VS/DR: new MAC addresses, the packet as it is.
    Dr,
    /// VS/TUN: the packet inside another one.
    Tun,
    /// VS/NAT: the server's address and port in place of the virtual ones, and back.
    Nat,
}

/// What carries the packets of VS/TUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TunnelKind {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
}

/// Which packets there are. Servers' answers pass the director in VS/NAT only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// From clients.
    In,
    /// From servers.
    Out,
    /// As many of either.
    Both,
}

impl Mode {
    /// As results write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Tun => "tun",
            Self::Nat => "nat",
        }
    }
}

impl TunnelKind {
    /// As configurations and results write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gre => "gre",
        }
    }
}

impl Direction {
    /// As results write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Both => "both",
        }
    }

    /// Whether clients' packets come, once connections are open.
    pub(crate) const fn has_requests(self) -> bool {
        !matches!(self, Self::Out)
    }

    /// Whether servers' packets come.
    pub(crate) const fn has_replies(self) -> bool {
        !matches!(self, Self::In)
    }
}

/// A forwarding method with all that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forwarding {
    /// The method.
    pub(crate) mode: Mode,
    /// What carries VS/TUN.
    pub(crate) tunnel: TunnelKind,
    /// Which packets there are.
    pub(crate) direction: Direction,
}

impl Forwarding {
    /// From what the user gave: only VS/TUN has a tunnel, and only in VS/NAT answers pass the director.
    pub(crate) fn new(mode: Mode, tunnel: Option<TunnelKind>, direction: Option<Direction>) -> Result<Self> {
        if tunnel.is_some() && mode != Mode::Tun {
            bail!("--tunnel is for --mode tun");
        }
        let direction = direction.unwrap_or(if mode == Mode::Nat { Direction::Both } else { Direction::In });
        if direction.has_replies() && mode != Mode::Nat {
            bail!(
                "with --mode {} servers answer past the director: --direction {} is for --mode nat",
                mode.name(),
                direction.name()
            );
        }
        Ok(Self { mode, tunnel: tunnel.unwrap_or(TunnelKind::Ipip), direction })
    }

    /// For the engine.
    pub(crate) const fn method(self) -> Method {
        match self.mode {
            Mode::Dr => Method::Direct,
            Mode::Nat => Method::Masquerade,
            Mode::Tun => {
                let kind = match self.tunnel {
                    TunnelKind::Ipip => dataplane::snapshot::TunnelKind::Ipip,
                    TunnelKind::Gue => dataplane::snapshot::TunnelKind::Gue,
                    TunnelKind::Gre => dataplane::snapshot::TunnelKind::Gre,
                };
                Method::Tunnel(Tunnel { kind, checksum: TunnelChecksum::None, port: self.port() })
            }
        }
    }

    /// For a configuration file.
    pub(crate) fn configured(self) -> String {
        match self.mode {
            Mode::Dr => "\"direct\"".to_owned(),
            Mode::Nat => "\"masquerade\"".to_owned(),
            Mode::Tun if self.port() != 0 => {
                format!("{{ tunnel = {{ kind = \"{}\", port = {} }} }}", self.tunnel.name(), self.port())
            }
            Mode::Tun => format!("{{ tunnel = {{ kind = \"{}\" }} }}", self.tunnel.name()),
        }
    }

    const fn port(self) -> u16 {
        if matches!(self.tunnel, TunnelKind::Gue) { GUE_PORT } else { 0 }
    }

    /// Bytes that are put before a packet.
    pub(crate) const fn overhead(self, ipv6: bool) -> usize {
        let ip = if ipv6 { 40 } else { 20 };
        match (self.mode, self.tunnel) {
            (Mode::Tun, TunnelKind::Ipip) => ip,
            (Mode::Tun, TunnelKind::Gue) => ip + 12,
            (Mode::Tun, TunnelKind::Gre) => ip + 4,
            _ => 0,
        }
    }

    /// What results say of it: of a tunnel its kind, of VS/NAT the direction.
    pub(crate) fn parameters(self) -> Parameters {
        let mut parameters = Parameters::from([("mode".to_owned(), json!(self.mode.name()))]);
        match self.mode {
            Mode::Dr => None,
            Mode::Tun => parameters.insert("tunnel".to_owned(), json!(self.tunnel.name())),
            Mode::Nat => parameters.insert("direction".to_owned(), json!(self.direction.name())),
        };
        parameters
    }

    /// In words, for tables.
    pub(crate) fn title(self, protocol: Protocol) -> String {
        let protocol = protocol.name().to_uppercase();
        match self.mode {
            Mode::Dr => format!("VS/DR {protocol}"),
            Mode::Tun => format!("VS/TUN {} {protocol}", self.tunnel.name()),
            Mode::Nat => format!("VS/NAT {protocol}, direction {}", self.direction.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_go_together_is_refused() {
        let refused = |mode, tunnel, direction| Forwarding::new(mode, tunnel, direction).is_err();
        assert!(refused(Mode::Dr, Some(TunnelKind::Gue), None));
        assert!(refused(Mode::Tun, None, Some(Direction::Both)));
        assert!(refused(Mode::Dr, None, Some(Direction::Out)));
        assert_eq!(Forwarding::new(Mode::Nat, None, None).unwrap().direction, Direction::Both);
        assert_eq!(Forwarding::new(Mode::Dr, None, None).unwrap().direction, Direction::In);
    }

    #[test]
    fn a_method_is_the_same_for_engine_and_configuration() {
        let tun = |kind| Forwarding::new(Mode::Tun, Some(kind), None).unwrap();
        assert_eq!(tun(TunnelKind::Gue).configured(), "{ tunnel = { kind = \"gue\", port = 6080 } }");
        assert_eq!(tun(TunnelKind::Gre).configured(), "{ tunnel = { kind = \"gre\" } }");
        let Method::Tunnel(gue) = tun(TunnelKind::Gue).method() else { panic!("no tunnel") };
        assert_eq!(gue.port, 6080);
        assert_eq!(
            [TunnelKind::Ipip, TunnelKind::Gue, TunnelKind::Gre].map(|kind| tun(kind).overhead(false)),
            [20, 32, 24]
        );
        assert_eq!(tun(TunnelKind::Ipip).overhead(true), 40);
    }
}
