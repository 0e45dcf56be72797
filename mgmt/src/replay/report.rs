//! What a replay found, for programs and for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::compare::{Item, Whose};
use super::decode;
use super::play::{Differing, Played, place};
use super::trace::{LINKS, to_hex};

/// A field of two frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Such as `ip.ttl`.
    pub field: String,
    /// The kernel's value.
    pub kernel: Option<String>,
    /// Ours.
    pub ours: Option<String>,
}

/// Something that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ItemReport {
    /// Frames on a link.
    Frame {
        /// `c` or `s`.
        link: String,
        /// The kernel's, in hexadecimal.
        kernel: Option<String>,
        /// Ours.
        ours: Option<String>,
        /// Both decoded.
        fields: Vec<Row>,
    },
    /// A line of text that only one side has.
    Line {
        /// Which side.
        whose: Whose,
        /// The line.
        line: String,
    },
    /// Exit statuses.
    Status {
        /// The kernel's.
        kernel: i32,
        /// Ours.
        ours: i32,
    },
    /// Shares of rr or wrr beyond the bounds.
    Shares {
        /// Which, and by how much.
        what: String,
    },
    /// What is not played.
    Unplayed {
        /// What.
        what: String,
    },
}

/// A record that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReport {
    /// Its running number in the trace.
    pub number: u64,
    /// Milliseconds since the start.
    pub at_ms: u32,
    /// Number, time and scenario line, for people.
    pub place: String,
    /// Whether rules explain all of it.
    pub explained: bool,
    /// Names of the rules.
    pub rules: Vec<String>,
    /// What differs.
    pub items: Vec<ItemReport>,
}

/// A trace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TraceReport {
    /// Its name.
    pub trace: String,
    /// Records but notes.
    pub events: usize,
    /// Records with differences that no rule explains.
    pub differ: usize,
    /// Records with differences that rules explain.
    pub explained: usize,
    /// How many records each rule explained something of.
    pub rules: BTreeMap<String, usize>,
    /// Records that differ, in order.
    pub differences: Vec<EventReport>,
    /// Why it could not be played (to its end).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long playing took.
    pub milliseconds: u64,
}

/// All traces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Workers of the director.
    pub workers: u8,
    /// Records but notes.
    pub events: usize,
    /// See [`TraceReport::differ`].
    pub differ: usize,
    /// See [`TraceReport::explained`].
    pub explained: usize,
    /// By trace.
    pub traces: Vec<TraceReport>,
}

impl Report {
    /// Sums up.
    #[must_use]
    pub fn new(workers: u8, traces: Vec<TraceReport>) -> Self {
        let sum = |of: fn(&TraceReport) -> usize| traces.iter().map(of).sum();
        Self {
            workers,
            events: sum(|trace| trace.events),
            differ: sum(|trace| trace.differ),
            explained: sum(|trace| trace.explained),
            traces,
        }
    }
}

fn item(item: &Item) -> ItemReport {
    match item {
        Item::Frame { link, kernel, ours } => {
            let fields = decode::side_by_side(
                kernel.as_deref().unwrap_or_default(),
                ours.as_deref().unwrap_or_default(),
            );
            let row = |(field, kernel, ours)| Row { field, kernel, ours };
            ItemReport::Frame {
                link: LINKS.get(*link).copied().unwrap_or("?").to_owned(),
                kernel: kernel.as_deref().map(to_hex),
                ours: ours.as_deref().map(to_hex),
                fields: fields.into_iter().map(row).collect(),
            }
        }
        Item::Line { whose, line } => ItemReport::Line { whose: *whose, line: line.clone() },
        Item::Status { kernel, ours } => ItemReport::Status { kernel: *kernel, ours: *ours },
        Item::Shares { what } => ItemReport::Shares { what: what.clone() },
        Item::Unplayed { what } => ItemReport::Unplayed { what: what.clone() },
    }
}

fn event(differing: &Differing) -> EventReport {
    let mut rules: Vec<String> = differing.items.iter().filter_map(|found| found.rule.clone()).collect();
    rules.sort();
    rules.dedup();
    EventReport {
        number: differing.record.number,
        at_ms: differing.record.at_ms,
        place: place(&differing.record),
        explained: differing.explained(),
        rules,
        items: differing.items.iter().map(|found| item(&found.item)).collect(),
    }
}

impl TraceReport {
    /// Of a trace that was played to its end.
    #[must_use]
    pub fn new(trace: &str, played: &Played, milliseconds: u64) -> Self {
        let differences: Vec<EventReport> = played.differing.iter().map(event).collect();
        let mut rules = BTreeMap::new();
        for rule in differences.iter().flat_map(|event| &event.rules) {
            *rules.entry(rule.clone()).or_insert(0) += 1;
        }
        Self {
            trace: trace.to_owned(),
            events: played.events,
            differ: differences.iter().filter(|event| !event.explained).count(),
            explained: differences.iter().filter(|event| event.explained).count(),
            rules,
            differences,
            error: None,
            milliseconds,
        }
    }

    /// Of one that could not be.
    #[must_use]
    pub fn failed(trace: &str, error: String) -> Self {
        Self { trace: trace.to_owned(), error: Some(error), ..Self::default() }
    }

    /// The line about it, and below it the first difference that no rule explains, or all of them.
    #[must_use]
    pub fn text(&self, all: bool) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = match &self.error {
            Some(error) => writeln!(text, "{}: not played: {error}", self.trace),
            None => writeln!(
                text,
                "{}: {} events, {} differ, {} explained",
                self.trace, self.events, self.differ, self.explained
            ),
        };
        let unexplained = self.differences.iter().filter(|event| !event.explained || all);
        for event in unexplained.take(if all { usize::MAX } else { 1 }) {
            event.write(&mut text);
        }
        text
    }
}

impl EventReport {
    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "  {}", self.place);
        if !self.rules.is_empty() {
            let _ = writeln!(text, "    explained by: {}", self.rules.join(", "));
        }
        for item in &self.items {
            item.write(text);
        }
    }
}

impl ItemReport {
    fn write(&self, text: &mut String) {
        let _ = match self {
            Self::Frame { link, kernel, ours, fields } => {
                return frames(text, link, kernel.is_some(), ours.is_some(), fields);
            }
            Self::Line { whose: Whose::Kernel, line } => writeln!(text, "    kernel | {line}"),
            Self::Line { whose: Whose::Ours, line } => writeln!(text, "    ours   | {line}"),
            Self::Status { kernel, ours } => {
                writeln!(text, "    exit status: the kernel's {kernel}, ours {ours}")
            }
            Self::Shares { what } => writeln!(text, "    {what}"),
            Self::Unplayed { what } => writeln!(text, "    not played: {what}"),
        };
    }
}

fn frames(text: &mut String, link: &str, kernel: bool, ours: bool, fields: &[Row]) {
    let what = match (kernel, ours) {
        (true, true) => "kernel and ours differ in fields marked *",
        (true, false) => "only the kernel emitted",
        _ => "only ours emitted",
    };
    let _ = writeln!(text, "    on {link}: {what}");
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let width = |of: fn(&Row) -> Option<&String>| {
        fields.iter().filter_map(of).map(String::len).max().unwrap_or(1).max(6)
    };
    let (names, values) = (width(|row| Some(&row.field)), width(|row| row.kernel.as_ref()));
    for row in fields {
        let _ = match (kernel, ours) {
            (true, true) => {
                let mark = if row.kernel == row.ours { ' ' } else { '*' };
                let (theirs, own) = (shown(&row.kernel), shown(&row.ours));
                writeln!(text, "    {mark} {:names$}  {theirs:values$}  {own}", row.field)
            }
            (true, false) => writeln!(text, "      {:names$}  {}", row.field, shown(&row.kernel)),
            _ => writeln!(text, "      {:names$}  {}", row.field, shown(&row.ours)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, TraceReport};
    use crate::replay::compare::{Found, Item, Whose};
    use crate::replay::play::{Differing, Played};
    use crate::replay::trace::{Action, Record};
    use dataplane::bench::Frame;

    fn differing(number: u64, items: Vec<(Item, Option<&str>)>) -> Differing {
        let record =
            Record { number, at_ms: 1500, line: "c S".to_owned(), action: Action::Sleep, out: Vec::new() };
        let found =
            |(item, rule): (Item, Option<&str>)| Found { item, mark: None, rule: rule.map(str::to_owned) };
        let items = items.into_iter().map(found).collect();
        Differing { record, items }
    }

    #[test]
    fn the_first_unexplained_difference_is_shown_with_its_fields() {
        let frame = |ttl| {
            let mut frame = Frame::new("10.1.0.5:1".parse().unwrap(), "10.0.0.100:80".parse().unwrap());
            frame.ttl = ttl;
            frame.tcp(2)
        };
        let frames = Item::Frame { link: 1, kernel: Some(frame(63)), ours: Some(frame(64)) };
        let line = Item::Line { whose: Whose::Kernel, line: "x".to_owned() };
        let status = Item::Status { kernel: 0, ours: 2 };
        let played = Played {
            events: 9,
            differing: vec![
                differing(3, vec![(line, Some("late timers"))]),
                differing(4, vec![(frames, None)]),
                differing(5, vec![(status, None)]),
            ],
        };
        let report = TraceReport::new("rr", &played, 5);
        assert_eq!((report.differ, report.explained, report.rules["late timers"]), (2, 1, 1));
        let text = report.text(false);
        assert!(
            text.starts_with("rr: 9 events, 2 differ, 1 explained\n  event 4 at 1.500 s: c S\n"),
            "{text}"
        );
        assert!(
            text.lines().any(|line| line.starts_with("    * ip.ttl ") && line.ends_with("  64")),
            "{text}"
        );
        assert!(!text.contains("exit status"));
        let all = report.text(true);
        assert!(all.contains("explained by: late timers") && all.contains("the kernel's 0, ours 2"), "{all}");
        let whole = Report::new(1, vec![report]);
        let json = serde_json::to_string(&whole).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), whole);
        assert!(TraceReport::failed("x", "no".to_owned()).text(false).contains("x: not played: no"));
    }
}
