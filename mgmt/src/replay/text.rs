//! What a command printed, brought into the form in which two directors' texts are equal or not.
//!
//! | masked | why |
//! | --- | --- |
//! | order of connections | hash order with a random seed |
//! | order of services in `--nosort` and `/proc/net/ip_vs` | hash order; each with its destinations, in order |
//! | a connection's remaining time | the recorded command ran between its record's time and the next one's, and the kernel counts in jiffies |
//! | lines that strace wrote | only what ipvsadm itself printed is compared |
//! | `sync_qlen_max` | follows from the recorded machine's memory |

use std::collections::BTreeMap;

/// Protocols that begin a line of a connection or of a service.
const PROTOCOLS: [&str; 6] = ["TCP", "UDP", "SCTP", "IP", "FWM", "ICMP"];

/// A line about a connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionLine {
    /// Protocol, client and virtual address as they are written there.
    pub name: String,
    /// The whole line but the remaining time.
    pub rest: String,
    /// Remaining seconds.
    pub seconds: u64,
}

/// Reads a line of `ipvsadm -Lnc`, `/proc/net/ip_vs_conn` or `ip_vs_conn_sync`.
#[must_use]
pub fn connection(line: &str) -> Option<ConnectionLine> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if !PROTOCOLS.contains(words.first()?) {
        return None;
    }
    if let Some((minutes, seconds)) = words.get(1).and_then(|word| word.split_once(':'))
        && let (Ok(minutes), Ok(seconds)) = (minutes.parse::<u64>(), seconds.parse::<u64>())
        && words.len() >= 6
    {
        let name = format!("{} {} {}", words[0], words[3], words[4]);
        let rest = format!("{} {}", words[0], words[2..].join(" "));
        return Some(ConnectionLine { name, rest, seconds: minutes * 60 + seconds });
    }
    let [.., last] = words[..] else { return None };
    if !matches!(words.len(), 9 | 10) || !words[2].bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let seconds = last.parse().ok()?;
    let name = words[..5].join(" ");
    Some(ConnectionLine { name, rest: words[..words.len() - 1].join(" "), seconds })
}

/// A line that strace wrote: process, system call.
fn is_strace(line: &str) -> bool {
    let Some((process, rest)) = line.split_once(' ') else { return false };
    let call = rest.trim_start();
    let named = call.find('(').is_some_and(|end| {
        call[..end].bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    });
    !process.is_empty()
        && process.bytes().all(|byte| byte.is_ascii_digit())
        && (named || ["<...", "+++", "---"].iter().any(|mark| call.starts_with(mark)))
}

fn masked(command: &str, line: &str) -> Option<String> {
    if command.contains("strace") && is_strace(line) {
        return None;
    }
    let line = if line.starts_with("sync_qlen_max=") { "sync_qlen_max=*" } else { line };
    Some(line.to_owned())
}

fn begins_service(line: &str) -> bool {
    line.split(' ').next().is_some_and(|word| PROTOCOLS.contains(&word)) && connection(line).is_none()
}

/// Moments between which a connection's remaining seconds may have been read, by [`ConnectionLine::name`].
#[derive(Debug, Default)]
pub struct Remaining {
    /// Milliseconds that remain at the earliest and at the latest moment.
    pub spans: BTreeMap<String, (u64, u64)>,
}

impl Remaining {
    /// Whether a text may show `seconds` for a connection of which ours, read at the earliest moment, shows `own`.
    fn allows(&self, name: &str, seconds: u64, own: u64) -> bool {
        let span = self.spans.get(name);
        seconds == own || span.is_some_and(|(most, least)| (least / 1000..=most / 1000).contains(&seconds))
    }
}

/// Lines of a text as they are compared.
#[must_use]
pub fn lines(command: &str, text: &str) -> Vec<String> {
    let unsorted = command.contains("--nosort") || command.contains("/proc/net/ip_vs");
    let mut result = Vec::new();
    let mut connections: Vec<(ConnectionLine, String)> = Vec::new();
    let mut services: Vec<Vec<String>> = Vec::new();
    let flush = |connections: &mut Vec<_>, services: &mut Vec<Vec<String>>, result: &mut Vec<String>| {
        connections.sort();
        result.extend(connections.drain(..).map(|(_, line)| line));
        services.sort();
        result.extend(services.drain(..).flatten());
    };
    for line in text.lines().filter_map(|line| masked(command, line)) {
        if let Some(parsed) = connection(&line) {
            connections.push((parsed, line));
        } else if unsorted && begins_service(&line) {
            services.push(vec![line]);
        } else if let Some(service) = services.last_mut().filter(|_| line.starts_with("  -> ")) {
            service.push(line);
        } else {
            flush(&mut connections, &mut services, &mut result);
            result.push(line);
        }
    }
    flush(&mut connections, &mut services, &mut result);
    result
}

/// Both texts' lines, ours with the kernel's remaining times wherever those are possible.
#[must_use]
pub fn comparable(
    command: &str,
    kernel: &str,
    ours: &str,
    remaining: &Remaining,
) -> (Vec<String>, Vec<String>) {
    let kernel = lines(command, kernel);
    let mut of_kernel: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for line in kernel.iter().rev() {
        if let Some(parsed) = connection(line) {
            of_kernel.entry(parsed.rest).or_default().push((parsed.seconds, line.clone()));
        }
    }
    let own: String = lines(command, ours)
        .into_iter()
        .map(|line| {
            let theirs = connection(&line).and_then(|parsed| {
                let (seconds, theirs) = of_kernel.get_mut(&parsed.rest)?.pop()?;
                remaining.allows(&parsed.name, seconds, parsed.seconds).then_some(theirs)
            });
            theirs.unwrap_or(line) + "\n"
        })
        .collect();
    (kernel, lines(command, &own))
}

/// A line of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side<'a> {
    /// In both.
    Both(&'a str),
    /// In the kernel's text alone.
    Kernel(&'a str),
    /// In ours alone.
    Ours(&'a str),
}

/// The shortest way from one text to the other; of very long ones, beyond their common begin, without looking for it.
#[must_use]
pub fn difference<'a>(kernel: &'a [String], ours: &'a [String]) -> Vec<Side<'a>> {
    const CELLS: usize = 1 << 22;
    let begin = kernel.iter().zip(ours).take_while(|(one, other)| one == other).count();
    let mut result: Vec<Side<'_>> = kernel[..begin].iter().map(|line| Side::Both(line)).collect();
    let (kernel, ours) = (&kernel[begin..], &ours[begin..]);
    let (rows, columns) = (kernel.len() + 1, ours.len() + 1);
    if rows.saturating_mul(columns) > CELLS {
        result.extend(kernel.iter().map(|line| Side::Kernel(line)));
        result.extend(ours.iter().map(|line| Side::Ours(line)));
        return result;
    }
    // common[i * columns + j]: lines that the rests from i and j have in common.
    let mut common = vec![0_u32; rows * columns];
    for i in (0..kernel.len()).rev() {
        for j in (0..ours.len()).rev() {
            common[i * columns + j] = if kernel[i] == ours[j] {
                common[(i + 1) * columns + j + 1] + 1
            } else {
                common[(i + 1) * columns + j].max(common[i * columns + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < kernel.len() || j < ours.len() {
        if i < kernel.len() && j < ours.len() && kernel[i] == ours[j] {
            result.push(Side::Both(&kernel[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == ours.len()
            || i < kernel.len() && common[(i + 1) * columns + j] >= common[i * columns + j + 1]
        {
            result.push(Side::Kernel(&kernel[i]));
            i += 1;
        } else {
            result.push(Side::Ours(&ours[j]));
            j += 1;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::{Remaining, Side, comparable, connection, difference, lines};
    use proptest::prelude::*;

    const LISTED: &str = "TCP 14:56  ESTABLISHED 10.1.0.6:1024      10.0.0.100:80      192.168.10.3:8080";

    fn equal(command: &str, kernel: &str, ours: &str, remaining: &Remaining) -> bool {
        let (kernel, ours) = comparable(command, kernel, ours, remaining);
        kernel == ours
    }

    #[test]
    fn lines_about_connections() {
        let listed = connection(LISTED).unwrap();
        assert_eq!((listed.name.as_str(), listed.seconds), ("TCP 10.1.0.6:1024 10.0.0.100:80", 896));
        let raw = connection("TCP 0A010005 0000 0A000064 0050 AC100504 0050 ASSURED         296").unwrap();
        assert_eq!((raw.name.as_str(), raw.seconds), ("TCP 0A010005 0000 0A000064 0050", 296));
        let synced = "UDP 0A010006 0400 0A000064 0050 C0A80A03 1F90 UDP LOCAL      9";
        assert_eq!(connection(synced).unwrap().seconds, 9);
        for other in [
            "TCP  10.0.0.100:80 wlc persistent 300",
            "  -> 192.168.10.2:80              Route   3      1          0         ",
            "pro expire state       source             virtual            destination",
            "TCP  10.0.0.100:80                       3        6        0      240        0",
            "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData",
            "TCP  0A000064:01BB rr  ",
            "",
        ] {
            assert_eq!(connection(other), None, "{other}");
        }
    }

    #[test]
    fn connections_are_a_set_with_possible_times() {
        let other = "UDP 04:59  UDP         10.1.0.5:4002      10.0.0.100:53      192.168.10.2:53";
        let head = "IPVS connection entries\npro expire state";
        let kernel = format!("{head}\n{LISTED}\n{other}\n");
        let later = LISTED.replace("14:56", "14:57");
        let ours = format!("{head}\n{other}\n{later}\n");
        let mut remaining = Remaining::default();
        assert!(equal("ipvsadm -Lnc", &kernel, &format!("{head}\n{other}\n{LISTED}\n"), &remaining));
        assert!(!equal("ipvsadm -Lnc", &kernel, &ours, &remaining));
        remaining.spans.insert("TCP 10.1.0.6:1024 10.0.0.100:80".to_owned(), (897_005, 896_990));
        assert!(equal("ipvsadm -Lnc", &kernel, &ours, &remaining));
        remaining.spans.insert("TCP 10.1.0.6:1024 10.0.0.100:80".to_owned(), (897_505, 897_490));
        assert!(!equal("ipvsadm -Lnc", &kernel, &ours, &remaining));
        assert!(!equal("ipvsadm -Lnc", &kernel, &format!("{head}\n{LISTED}\n"), &remaining));
    }

    #[test]
    fn services_are_a_set_only_where_the_kernel_orders_them() {
        let one = "TCP  10.0.0.101:80 rr\n  -> 192.168.10.2:80\n  -> 192.168.10.1:80\n";
        let other = "FWM  3 rr\n";
        let (forth, back) = (format!("Prot\n{one}{other}"), format!("Prot\n{other}{one}"));
        let none = Remaining::default();
        assert!(equal("ipvsadm -Ln --nosort", &forth, &back, &none));
        assert!(equal("cat /proc/net/ip_vs", &forth, &back, &none));
        assert!(!equal("ipvsadm -Ln", &forth, &back, &none));
        let swapped = one.replace("10.2", "10.9").replace("10.1:", "10.2:").replace("10.9", "10.1");
        assert!(!equal("ipvsadm -Ln --nosort", one, &swapped, &none));
    }

    #[test]
    fn what_strace_wrote_is_left_out() {
        let text = "rc=0\n510   openat(AT_FDCWD, \"x\") = 5\n510   <... recvmsg resumed>) = 1\n510 +++ exited with 0 +++\nTimeout (tcp tcpfin udp): 1 2 3\n";
        assert_eq!(lines("strace ipvsadm -L", text), ["rc=0", "Timeout (tcp tcpfin udp): 1 2 3"]);
        assert_eq!(lines("ipvsadm -L", text).len(), 5);
    }

    #[test]
    fn differences_are_short() {
        let text = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (kernel, ours) = (text("a b c d"), text("a x c d e"));
        assert_eq!(
            difference(&kernel, &ours),
            [
                Side::Both("a"),
                Side::Kernel("b"),
                Side::Ours("x"),
                Side::Both("c"),
                Side::Both("d"),
                Side::Ours("e")
            ]
        );
    }

    proptest! {
        #[test]
        fn a_text_equals_itself_and_its_difference_has_all_lines(
            kernel in prop::collection::vec("(TCP|FWM|  ->|510)[ a-c(:0-9]{0,12}", 0..12),
            ours in prop::collection::vec("(TCP|FWM|  ->|510)[ a-c(:0-9]{0,12}", 0..12),
            command in "(ipvsadm --nosort|strace|ipvsadm)",
        ) {
            let text = kernel.join("\n");
            prop_assert!(equal(&command, &text, &text, &Remaining::default()));
            let sides = difference(&kernel, &ours);
            let of = |which: fn(&Side<'_>) -> bool| sides.iter().filter(|side| which(side)).count();
            let both = of(|side| matches!(side, Side::Both(_)));
            prop_assert_eq!(both + of(|side| matches!(side, Side::Kernel(_))), kernel.len());
            prop_assert_eq!(both + of(|side| matches!(side, Side::Ours(_))), ours.len());
        }
    }
}
