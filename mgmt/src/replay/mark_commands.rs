//! `iptables` lines of traces: mark rules (see [`super::network_commands`] for the table of all such lines).

use crate::address::{Prefix, Protocol, family_bits};
use crate::desired::{Change, MarkRule, PortRange};

use super::network_commands::Words;

/// What a line does with rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Delete,
}

/// The changes that an `iptables` line stands for.
///
/// # Errors
/// What the replay does not know, or what is wrong.
pub fn changes(arguments: &[String]) -> Result<Vec<Change>, String> {
    let mut words = Words::new(arguments);
    let (mut table, mut verb, mut mark) = (None, None, None);
    let mut rule = MarkRule::all(0);
    let mut ports = Vec::new();
    while let Some(word) = words.next_word() {
        match word {
            "-t" | "--table" => table = Some(words.value(word)?),
            "-A" | "--append" => verb = Some((Verb::Add, words.value(word)?)),
            "-D" | "--delete" => verb = Some((Verb::Delete, words.value(word)?)),
            "-p" | "--protocol" => rule.protocol = Some(protocol(words.value(word)?)?),
            "-s" | "--source" => rule.source = Some(prefix(words.value(word)?)?),
            "-d" | "--destination" => rule.destination = Some(prefix(words.value(word)?)?),
            "-i" | "--in-interface" => rule.port = Some(words.value(word)?.to_owned()),
            "--sport" | "--source-port" => rule.source_ports = Some(range(words.value(word)?)?),
            "--dport" | "--destination-port" => ports.push(range(words.value(word)?)?),
            "--dports" | "--destination-ports" => {
                for text in words.value(word)?.split(',') {
                    ports.push(range(text)?);
                }
            }
            "-m" | "--match" => match words.value(word)? {
                "tcp" | "udp" | "sctp" | "multiport" => {}
                other => return Err(format!("`-m {other}` is not played")),
            },
            "-j" | "--jump" => match words.value(word)? {
                "MARK" => {}
                other => return Err(format!("`-j {other}` is not played, only MARK")),
            },
            "--set-mark" | "--set-xmark" => mark = Some(whole_mark(words.value(word)?)?),
            other => return Err(format!("`{other}` is not played")),
        }
    }
    let (Some("mangle"), Some((verb, "PREROUTING")), Some(mark)) = (table, verb, mark) else {
        return Err("only `-t mangle -A|-D PREROUTING … -j MARK --set-mark N` is played".to_owned());
    };
    rule.mark = mark;
    let ports = if ports.is_empty() { vec![None] } else { ports.into_iter().map(Some).collect() };
    let change = |destination_ports| {
        let rule = MarkRule { destination_ports, ..rule.clone() };
        match verb {
            Verb::Add => Change::MarkRuleAdd(rule),
            Verb::Delete => Change::MarkRuleDelete(rule),
        }
    };
    Ok(ports.into_iter().map(change).collect())
}

fn protocol(name: &str) -> Result<Protocol, String> {
    serde_json::from_value(name.into()).map_err(|_| format!("`-p {name}` is not played"))
}

fn prefix(text: &str) -> Result<Prefix, String> {
    if let Ok(ip) = text.parse() {
        return Ok(Prefix { ip, length: family_bits(ip) });
    }
    text.parse().map_err(|_| format!("`{text}` is no address and no prefix"))
}

/// Ports as iptables writes them, `80` or `8000:8999`.
fn range(text: &str) -> Result<PortRange, String> {
    text.replace(':', "-").parse().map_err(|_| format!("`{text}` is no port"))
}

/// A mark; one that leaves bits of another alone is not played.
fn whole_mark(text: &str) -> Result<u32, String> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match (number(value), number(mask)) {
        (Some(value), Some(u32::MAX)) => Ok(value),
        _ => Err(format!("`{text}` is no whole mark")),
    }
}

#[cfg(test)]
mod tests {
    use super::changes;
    use crate::desired::Change;
    use proptest::prelude::*;

    fn read(line: &str) -> Result<Vec<Change>, String> {
        changes(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn lines_of_the_recorded_traces() {
        let one =
            read("-t mangle -A PREROUTING -d 10.0.0.100 -p tcp --dport 80 -j MARK --set-mark 1").unwrap();
        let Change::MarkRuleAdd(rule) = &one[0] else { panic!("{one:?}") };
        assert_eq!((rule.mark, rule.destination.unwrap().length), (1, 32));
        assert_eq!(rule.destination_ports.unwrap().to_string(), "80");
        let network = read("-t mangle -A PREROUTING -d 10.200.0.0/16 -p tcp -j MARK --set-mark 0x7").unwrap();
        assert!(
            matches!(&network[0], Change::MarkRuleAdd(rule) if rule.mark == 7 && rule.destination_ports.is_none())
        );
        let gone = read(
            "-t mangle -D PREROUTING -i c0 -p udp -m multiport --dports 53,1000:1999 -j MARK --set-mark 3",
        )
        .unwrap();
        assert!(gone.len() == 2 && gone.iter().all(|change| matches!(change, Change::MarkRuleDelete(_))));
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (line, what) in [
            ("-A INPUT -j ACCEPT", "`-j ACCEPT`"),
            ("-t mangle -A PREROUTING -m set -j MARK --set-mark 1", "`-m set`"),
            ("-t mangle -A PREROUTING -d 10.0.0.300 -j MARK --set-mark 1", "`10.0.0.300`"),
            ("-t mangle -A PREROUTING -j MARK --set-mark 1/1", "`1/1`"),
            ("-t mangle -A PREROUTING -j MARK", "only"),
            ("-F", "`-F`"),
        ] {
            let why = read(line).unwrap_err();
            assert!(why.contains(what), "{line}: {why}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_taken_or_refused(words in prop::collection::vec("(-t|mangle|-A|PREROUTING|-d|-p|tcp|--dport|-j|MARK|--set-mark|[a-z0-9./:,-]{0,12})", 0..12)) {
            let _ = changes(&words);
        }
    }
}
