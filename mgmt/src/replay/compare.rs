//! One record's outcome against ours: items that differ.

use std::net::IpAddr;

use super::late::Late;
use super::mask;
use super::text::{self, Remaining, Side};
use super::trace::{Action, Emitted, LINKS, Record};

/// Whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// The recorded kernel's.
    Kernel,
    /// The director's under test.
    Ours,
}

/// Something that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A frame: another one on either side, or none.
    Frame {
        /// Index in [`LINKS`].
        link: usize,
        /// What the kernel emitted.
        kernel: Option<Vec<u8>>,
        /// What we did.
        ours: Option<Vec<u8>>,
    },
    /// A line that only one of the texts has.
    Line {
        /// Which.
        whose: Whose,
        /// The line.
        line: String,
    },
    /// The exit statuses.
    Status {
        /// The kernel's.
        kernel: i32,
        /// Ours.
        ours: i32,
    },
    /// Shares of rr or wrr differ by more than the number of workers explains.
    Shares {
        /// Which, and by how much.
        what: String,
    },
    /// The replay does not play (all of) the command.
    Unplayed {
        /// What exactly.
        what: String,
    },
}

/// Why an item may differ, as far as it takes more than the item itself to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// It is about entries whose time has passed and that the kernel's timers have not come to yet.
    Late,
    /// About connections while `drop_entry` takes some of them away at random.
    Random,
    /// A connection that a reset of the director's own stack closed.
    Reset,
    /// To a server that was made a direct one and had been masqueraded, which the kernel's cached route still leads elsewhere.
    Remade,
    /// It belongs to a service that the director refused.
    Refused,
    /// A connection that rr or wrr gave to another server, because every worker has a cursor of its own.
    Cursor,
    /// An FTP server's answer to PASV that came before, which the kernel changes only once.
    Again,
    /// An SCTP packet whose checksum came wrong, which the kernel makes right.
    Corrupt,
}

/// An item that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What.
    pub item: Item,
    /// What is known of it.
    pub mark: Option<Mark>,
    /// The rule that explains it.
    pub rule: Option<String>,
}

impl From<Item> for Found {
    fn from(item: Item) -> Self {
        Self { item, mark: None, rule: None }
    }
}

/// What one of our commands said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Exit status, 128 + signal for a killed shell.
    pub rc: i32,
    /// What it printed, a character a byte.
    pub text: String,
}

/// What comparing needs to know besides.
pub struct Context<'a> {
    /// Possible remaining times of our connections.
    pub remaining: &'a Remaining,
    /// Our entries that have expired just now.
    pub late: &'a Late,
    /// Connections are taken away at random.
    pub random: bool,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("remaining", self.remaining).finish_non_exhaustive()
    }
}

/// The frames alone: whether anything differs, and what.
#[must_use]
pub fn frames(record: &Record, ours: &[Emitted], own: &dyn Fn(IpAddr) -> bool) -> Vec<Item> {
    let received = match &record.action {
        Action::Packet(packet) => Some(&packet.frame[..]),
        _ => None,
    };
    let mut items = Vec::new();
    for link in 0..LINKS.len() {
        let of = |all: &[Emitted]| {
            let on_link = all.iter().filter(|one| one.link == link);
            on_link.map(|one| one.frame.clone()).collect::<Vec<_>>()
        };
        let (mut kernel, mut own_frames) = (of(&record.out), of(ours));
        let equal = |kernel: &Vec<u8>, ours: &Vec<u8>| mask::equal(kernel, ours, received, own);
        let begin = kernel.iter().zip(&own_frames).take_while(|(one, other)| equal(one, other)).count();
        kernel.drain(..begin);
        own_frames.drain(..begin);
        while let (Some(one), Some(other)) = (kernel.last(), own_frames.last())
            && equal(one, other)
        {
            kernel.pop();
            own_frames.pop();
        }
        let count = kernel.len().max(own_frames.len());
        let (mut kernel, mut own_frames) = (kernel.into_iter(), own_frames.into_iter());
        items.extend((0..count).map(|_| Item::Frame {
            link,
            kernel: kernel.next(),
            ours: own_frames.next(),
        }));
    }
    items
}

/// Exit status and text of a command.
#[must_use]
pub fn said(record: &Record, ours: &Said, context: &Context<'_>) -> Vec<Found> {
    let Action::Command { command, rc, text } = &record.action else { return Vec::new() };
    let mut items = Vec::new();
    if *rc != ours.rc {
        items.push(Item::Status { kernel: *rc, ours: ours.rc }.into());
    }
    items.extend(texts(command, text, &ours.text, context));
    items
}

fn texts(command: &str, kernel: &str, ours: &str, context: &Context<'_>) -> Vec<Found> {
    let (kernel, ours) = text::comparable(command, kernel, ours, context.remaining);
    if kernel == ours {
        return Vec::new();
    }
    let sides = text::difference(&kernel, &ours);
    let own: Vec<&str> = sides
        .iter()
        .filter_map(|side| if let Side::Ours(line) = side { Some(*line) } else { None })
        .collect();
    let theirs: Vec<&str> = sides
        .iter()
        .filter_map(|side| if let Side::Kernel(line) = side { Some(*line) } else { None })
        .collect();
    let item = |whose, line: &str, late: bool| Found {
        item: Item::Line { whose, line: line.to_owned() },
        mark: match late {
            true => Some(Mark::Late),
            false if context.random && (line.starts_with("  -> ") || text::connection(line).is_some()) => {
                Some(Mark::Random)
            }
            false => None,
        },
        rule: None,
    };
    sides
        .iter()
        .filter_map(|side| match side {
            Side::Both(_) => None,
            Side::Kernel(line) => Some(item(Whose::Kernel, line, context.late.explains(line, &own))),
            Side::Ours(line) => {
                let counted = theirs.iter().any(|kernel| context.late.differ(kernel, line));
                Some(item(Whose::Ours, line, counted))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Context, Found, Item, Said, Whose, frames, said};
    use crate::replay::late::Late;
    use crate::replay::text::Remaining;
    use crate::replay::trace::{Action, Emitted, Record};
    use dataplane::bench::Frame;
    use std::net::IpAddr;

    fn own(_: IpAddr) -> bool {
        false
    }

    fn emitted(link: usize, port: u16) -> Emitted {
        let ends = ("10.1.0.5:1".parse().unwrap(), format!("10.0.0.1:{port}").parse().unwrap());
        Emitted { link, frame: Frame::new(ends.0, ends.1).udp() }
    }

    fn recorded(action: Action, out: Vec<Emitted>) -> Record {
        Record { number: 0, at_ms: 0, line: String::new(), action, out }
    }

    #[test]
    fn frames_are_compared_in_order_on_each_link() {
        let kernel = recorded(Action::Sleep, vec![emitted(0, 1), emitted(1, 2), emitted(0, 3)]);
        assert!(frames(&kernel, &[emitted(1, 2), emitted(0, 1), emitted(0, 3)], &own).is_empty());
        let swapped = frames(&kernel, &[emitted(1, 2), emitted(0, 3), emitted(0, 1)], &own);
        assert_eq!(swapped.len(), 2);
        let missing = frames(&kernel, &[emitted(1, 2), emitted(0, 3)], &own);
        let frame = emitted(0, 1).frame;
        assert_eq!(missing, [Item::Frame { link: 0, kernel: Some(frame.clone()), ours: None }]);
        let more = frames(&recorded(Action::Sleep, Vec::new()), &[emitted(0, 1)], &own);
        assert_eq!(more, [Item::Frame { link: 0, kernel: None, ours: Some(frame) }]);
    }

    #[test]
    fn status_and_text_are_compared() {
        let action = Action::Command { command: "ipvsadm".to_owned(), rc: 0, text: "one\ntwo\n".to_owned() };
        let ours = Said { rc: 2, text: "one\nthree\n".to_owned() };
        let context = Context { remaining: &Remaining::default(), late: &Late::default(), random: false };
        let line = |whose, line: &str| Item::Line { whose, line: line.to_owned() };
        let expected =
            [Item::Status { kernel: 0, ours: 2 }, line(Whose::Kernel, "two"), line(Whose::Ours, "three")];
        assert_eq!(said(&recorded(action, Vec::new()), &ours, &context), expected.map(Found::from));
    }
}
