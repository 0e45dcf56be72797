//! What belongs to a service that the kernel made and the director refused: its destinations, and its lines in listings.

use std::net::SocketAddr;

use super::compare::{Found, Item, Mark, Whose};
use super::trace::{Action, Record};

/// A service by the words that name it in listings.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Refused {
    /// In `ipvsadm -L` and `/proc/net/ip_vs`.
    protocol: &'static str,
    /// As commands write it, and `ipvsadm -S`.
    option: String,
    address: String,
    /// In `/proc/net/ip_vs`.
    raw: String,
}

impl Refused {
    /// The service that a command names.
    fn of(command: &str) -> Option<Self> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (option, address) = words.windows(2).find_map(|pair| match pair {
            [option @ ("-t" | "-u" | "-f" | "--sctp-service"), address] => Some((*option, *address)),
            _ => None,
        })?;
        let protocol = match option {
            "-t" => "TCP",
            "-u" => "UDP",
            "-f" => "FWM",
            _ => "SCTP",
        };
        let raw = match address.parse::<SocketAddr>() {
            Ok(SocketAddr::V4(end)) => format!("{:08X}:{:04X}", end.ip().to_bits(), end.port()),
            _ => address.to_owned(),
        };
        Some(Self { protocol, option: option.to_owned(), address: address.to_owned(), raw })
    }

    fn heads(&self, line: &str) -> bool {
        let mut words = line.split_whitespace();
        words.next() == Some(self.protocol)
            && words.next().is_some_and(|address| address == self.address || address == self.raw)
    }

    /// Whether a command, or a line of `ipvsadm -S`, is about it.
    fn named(&self, command: &str) -> bool {
        let words: Vec<&str> = command.split_whitespace().collect();
        words.windows(2).any(|pair| pair[0] == self.option && pair[1] == self.address)
    }
}

/// Marks what follows from services that were refused, but not the refusals themselves.
pub fn mark(records: &[Record], found: &mut [(usize, Vec<Found>)]) {
    let mut refused: Vec<Refused> = Vec::new();
    for (place, items) in found {
        let Action::Command { command, .. } = &records[*place].action else { continue };
        let failed =
            items.iter().any(|one| matches!(one.item, Item::Status { kernel: 0, ours } if ours != 0));
        let about = refused.iter().any(|service| service.named(command));
        let mut below = false;
        for one in items.iter_mut() {
            let marked = match &one.item {
                Item::Status { .. } => about,
                Item::Line { whose: Whose::Kernel, line } => {
                    let its = refused.iter().any(|service| service.heads(line) || service.named(line));
                    below = its || below && line.starts_with("  -> ");
                    below || about
                }
                Item::Line { whose: Whose::Ours, .. } => about,
                _ => false,
            };
            if marked {
                one.mark = Some(Mark::Refused);
            }
        }
        if failed && !about && command.contains("ipvsadm -A") {
            refused.extend(Refused::of(command));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::mark;
    use crate::replay::compare::{Found, Item, Mark, Whose};
    use crate::replay::trace::{Action, Record};

    fn record(command: &str) -> Record {
        let action = Action::Command { command: command.to_owned(), rc: 0, text: String::new() };
        Record { number: 0, at_ms: 0, line: String::new(), action, out: Vec::new() }
    }

    fn kernel(line: &str) -> Found {
        Item::Line { whose: Whose::Kernel, line: line.to_owned() }.into()
    }

    #[test]
    fn lines_and_commands_of_a_refused_service() {
        let records = [
            record("ipvsadm -A --sctp-service 10.0.0.100:132 -s rr"),
            record("ipvsadm -a --sctp-service 10.0.0.100:132 -r 192.168.10.2 -g"),
            record("ipvsadm -Ln"),
            record("cat /proc/net/ip_vs"),
        ];
        let failed = || Found::from(Item::Status { kernel: 0, ours: 255 });
        let mut found = vec![
            (0, vec![failed()]),
            (1, vec![failed()]),
            (
                2,
                vec![
                    kernel("SCTP 10.0.0.100:132 rr"),
                    kernel("  -> 192.168.10.2:132             Route   1      0          0         "),
                    kernel("-A --sctp-service 10.0.0.100:132 -s rr"),
                    kernel("TCP  10.0.0.100:132 rr"),
                    kernel("  -> 192.168.10.2:132             Route   1      0          0         "),
                ],
            ),
            (3, vec![kernel("SCTP  0A000064:0084 rr  ")]),
        ];
        mark(&records, &mut found);
        let marks: Vec<_> = found.iter().flat_map(|(_, items)| items.iter().map(|one| one.mark)).collect();
        let yes = Some(Mark::Refused);
        assert_eq!(marks, [None, yes, yes, yes, yes, None, None, yes]);
    }
}
