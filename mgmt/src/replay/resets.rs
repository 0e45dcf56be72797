//! Resets that the recorded director's own stack sent.
//!
//! They leave from a virtual address and its port, so that IPVS takes them for a server's and moves a connection that it has not
//! forgotten yet to CLOSE. In a running uvs they leave by the port's twin, beside the engine.

use super::compare::{Found, Item, Mark, Whose};
use super::decode;
use super::text;
use super::trace::Record;

/// How long a connection stays in CLOSE, and the rounding of the kernel's timers.
const CLOSE_MS: u32 = 10_256;

/// Marks the kernel's lines about connections that such a reset closed.
pub fn mark(records: &[Record], found: &mut [(usize, Vec<Found>)]) {
    for (place, items) in found {
        let now = records[*place].at_ms;
        let before = || records[..*place].iter().filter(|record| now - record.at_ms <= CLOSE_MS);
        for one in items.iter_mut() {
            let Item::Line { whose: Whose::Kernel, line } = &one.item else { continue };
            let Some(closed) = text::connection(line).filter(|parsed| parsed.rest.contains(" CLOSE ")) else {
                continue;
            };
            if before().flat_map(|record| &record.out).any(|out| resets(&out.frame, &closed.name)) {
                one.mark = Some(Mark::Reset);
            }
        }
    }
}

/// Whether a frame is a reset from the virtual end of a connection, made here.
fn resets(frame: &[u8], connection: &str) -> bool {
    let fields = decode::frame(frame);
    let value = |name: &str| {
        fields.iter().find(|field| field.name == name).map_or("", |field| field.value.as_str()).to_owned()
    };
    let end = |side: &str| {
        let (ip, port) = (value(&format!("ip.{side}")), value(&format!("tcp.{side}")));
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    let made_here = value("ip.id") == "0" || value("ip.id").is_empty();
    value("tcp.flags").contains("RST")
        && made_here
        && format!("TCP {} {}", end("dst"), end("src")) == connection
}

#[cfg(test)]
mod tests {
    use super::mark;
    use crate::replay::compare::{Found, Item, Mark, Whose};
    use crate::replay::trace::{Action, Emitted, Record};
    use dataplane::bench::Frame;

    #[test]
    fn a_connection_in_close_after_a_reset_of_ours() {
        let mut reset = Frame::new("10.0.0.100:80".parse().unwrap(), "10.1.0.5:1025".parse().unwrap());
        reset.id = 0;
        let record =
            |at_ms, out| Record { number: 0, at_ms, line: String::new(), action: Action::Sleep, out };
        let sent = Emitted { link: 0, frame: reset.tcp(4) };
        let records = [record(0, vec![sent]), record(1000, vec![]), record(20_000, vec![])];
        let line = |state: &str, port: u16| -> Found {
            let line =
                format!("TCP 00:09  {state}       10.1.0.5:{port}      10.0.0.100:80      192.168.10.2:80");
            Item::Line { whose: Whose::Kernel, line }.into()
        };
        let mut found = vec![
            (1, vec![line("CLOSE", 1025), line("CLOSE", 1026), line("SYN_RECV", 1025)]),
            (2, vec![line("CLOSE", 1025)]),
        ];
        mark(&records, &mut found);
        let marks: Vec<_> = found.iter().flat_map(|(_, items)| items.iter().map(|one| one.mark)).collect();
        assert_eq!(marks, [Some(Mark::Reset), None, None, None]);
    }
}
