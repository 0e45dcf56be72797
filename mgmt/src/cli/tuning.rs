//! Commands about the director as a whole: mark rules, settings, timeouts, counters.

use clap::{Args, Subcommand};

use super::Failure;
use super::service::ServiceChoice;
use crate::address::{Prefix, Protocol};
use crate::desired::{Change, MarkRule, PortRange, SettingsEdit, TimeoutsSet};

/// A mark rule. What it does not name matches everything.
#[derive(Debug, Args)]
pub(super) struct Rule {
    /// The mark; 0 takes a mark away that an earlier rule gave
    #[arg(long, short = 'f', value_name = "MARK")]
    mark: u32,
    /// tcp or udp
    #[arg(long, value_parser = protocol)]
    protocol: Option<Protocol>,
    /// Where packets come from, such as 10.0.0.0/8
    #[arg(long, value_name = "PREFIX")]
    source: Option<Prefix>,
    /// Where packets go to, such as 192.168.132.254/32
    #[arg(long, value_name = "PREFIX")]
    destination: Option<Prefix>,
    /// Ports of clients, such as 1024-65535
    #[arg(long, value_name = "PORTS", requires = "protocol")]
    source_ports: Option<PortRange>,
    /// Virtual ports, such as 80 or 8000-8999
    #[arg(long, value_name = "PORTS", requires = "protocol")]
    destination_ports: Option<PortRange>,
    /// Name of the port that packets come in by
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// Return only when every worker uses the change
    #[arg(long)]
    wait: bool,
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err("write tcp, udp or sctp".to_owned()),
    }
}

impl Rule {
    fn rule(&self) -> MarkRule {
        MarkRule {
            mark: self.mark,
            protocol: self.protocol,
            source: self.source,
            destination: self.destination,
            source_ports: self.source_ports,
            destination_ports: self.destination_ports,
            port: self.port.clone(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum MarkCommand {
    /// Add a rule after those there are; of the rules that match a packet the last one decides
    Add(Rule),
    /// Delete a rule, named as it was added
    Delete(Rule),
    /// List the rules in order
    List,
}

impl MarkCommand {
    /// The change to make, and whether to wait for it; `None`: a listing.
    pub(super) fn change(&self) -> Option<(Change, bool)> {
        match self {
            Self::Add(rule) => Some((Change::MarkRuleAdd(rule.rule()), rule.wait)),
            Self::Delete(rule) => Some((Change::MarkRuleDelete(rule.rule()), rule.wait)),
            Self::List => None,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum SettingsCommand {
    /// Show all of them
    Show,
    /// Change some; the others stay as they are
    Set {
        /// Such as expire_nodest_conn=1
        #[arg(required = true, value_name = "NAME=VALUE")]
        settings: Vec<String>,
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
}

impl SettingsCommand {
    /// The change to make, and whether to wait for it; `None`: a listing.
    pub(super) fn change(&self) -> Result<Option<(Change, bool)>, Failure> {
        let Self::Set { settings, wait } = self else { return Ok(None) };
        let mut edit = SettingsEdit::default();
        for setting in settings {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| Failure::Usage(format!("`{setting}` has no value; write NAME=VALUE")))?;
            edit = edit.with(name.trim(), value).map_err(|refusal| Failure::Usage(refusal.to_string()))?;
        }
        Ok(Some((Change::SettingsSet(edit), *wait)))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum TimeoutsCommand {
    /// Show all of them
    Show,
    /// Change some, from each connection's next packet on; 0 leaves one as it is
    Set {
        /// Seconds of an established TCP connection
        #[arg(long, value_name = "SECS")]
        tcp: Option<u32>,
        /// Seconds of a TCP connection that is being closed (FIN_WAIT)
        #[arg(long, value_name = "SECS")]
        tcp_fin: Option<u32>,
        /// Seconds of a UDP connection
        #[arg(long, value_name = "SECS")]
        udp: Option<u32>,
        /// Return only when every worker uses the change
        #[arg(long)]
        wait: bool,
    },
}

impl TimeoutsCommand {
    /// The change to make, and whether to wait for it; `None`: a listing.
    pub(super) fn change(&self) -> Result<Option<(Change, bool)>, Failure> {
        let Self::Set { tcp, tcp_fin, udp, wait } = self else { return Ok(None) };
        let set = TimeoutsSet { tcp: *tcp, tcp_fin: *tcp_fin, udp: *udp };
        if set == TimeoutsSet::default() {
            return Err(Failure::Usage("nothing to change: name --tcp, --tcp-fin or --udp".into()));
        }
        Ok(Some((Change::TimeoutsSet(set), *wait)))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum CountersCommand {
    /// Count from 0 from now on: one service with its destinations, or everything
    Zero {
        #[command(flatten)]
        service: ServiceChoice,
    },
}
