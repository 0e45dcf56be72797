//! Explained differences: rules of `docs/ipvs-differences.toml`.
//!
//! A rule explains an *item* of a record (a frame, a line, an exit status) by what it is, never by the trace it is in. A record
//! is explained when each of its items is.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::compare::{Found, Item, Mark, Whose};
use super::decode;
use super::trace::{Action, Record};

/// The rules this program was built with.
const BUILT_IN: &str = include_str!("../../../docs/ipvs-differences.toml");

/// When something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum During {
    Packet,
    Command,
    Sleep,
}

/// What a frame is to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Wanted {
    /// `"nothing"`: there is none. `"anything"`: there is one.
    Word(Presence),
    /// These fields have these values.
    Fields(BTreeMap<String, String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Presence {
    Nothing,
    Anything,
}

/// A difference that is right, or outside a director. What a rule does not name may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// In a word or two.
    pub name: String,
    /// Why ours is right, or no director's affair.
    pub reason: String,
    during: Option<During>,
    /// Part of a command.
    command: Option<String>,
    /// The kernel's frame.
    kernel: Option<Wanted>,
    /// Our frame.
    ours: Option<Wanted>,
    /// Whose text has the line.
    whose: Option<Whose>,
    /// Part of the line.
    line: Option<String>,
    /// What is known of the item.
    mark: Option<Mark>,
    /// The exit statuses, the kernel's and ours.
    status: Option<[i32; 2]>,
}

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    #[serde(default)]
    rule: Vec<Rule>,
}

impl Rules {
    /// The rules of `docs/ipvs-differences.toml` as it was when this program was built.
    ///
    /// # Errors
    /// The file is not one of rules.
    pub fn built_in() -> Result<Self, String> {
        Self::parse(BUILT_IN)
    }

    /// Rules of another file.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rules: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        match rules.rule.iter().find(|rule| !rule.says_something()) {
            Some(rule) => Err(format!("rule `{}` names neither a frame nor a line nor a status", rule.name)),
            None => Ok(rules),
        }
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.rule
    }

    /// The rule that explains an item.
    #[must_use]
    pub fn explaining(&self, record: &Record, found: &Found) -> Option<&Rule> {
        self.rule.iter().find(|rule| rule.explains(record, found))
    }
}

impl Rule {
    const fn says_something(&self) -> bool {
        self.kernel.is_some()
            || self.ours.is_some()
            || self.line.is_some()
            || self.mark.is_some()
            || self.status.is_some()
    }

    fn explains(&self, record: &Record, found: &Found) -> bool {
        let (during, command) = match &record.action {
            Action::Packet(_) => (During::Packet, ""),
            Action::Sleep | Action::Note => (During::Sleep, ""),
            Action::Command { command, .. } => (During::Command, command.as_str()),
        };
        if self.during.is_some_and(|wanted| wanted != during)
            || self.command.as_ref().is_some_and(|part| !command.contains(part))
            || self.mark.is_some_and(|wanted| found.mark != Some(wanted))
        {
            return false;
        }
        match &found.item {
            Item::Frame { kernel, ours, .. } => {
                (self.kernel.is_some() || self.ours.is_some() || self.mark.is_some())
                    && fits(self.kernel.as_ref(), kernel.as_deref())
                    && fits(self.ours.as_ref(), ours.as_deref())
            }
            Item::Line { whose, line } => {
                (self.line.is_some() || self.mark.is_some())
                    && self.whose.is_none_or(|wanted| wanted == *whose)
                    && self.line.as_ref().is_none_or(|part| line.contains(part))
            }
            Item::Status { kernel, ours } => {
                (self.status.is_some() || self.mark.is_some())
                    && self.status.is_none_or(|wanted| wanted == [*kernel, *ours])
            }
            Item::Shares { .. } | Item::Unplayed { .. } => false,
        }
    }
}

fn fits(wanted: Option<&Wanted>, frame: Option<&[u8]>) -> bool {
    match (wanted, frame) {
        (None, _)
        | (Some(Wanted::Word(Presence::Nothing)), None)
        | (Some(Wanted::Word(Presence::Anything)), Some(_)) => true,
        (Some(Wanted::Fields(fields)), Some(frame)) => {
            let decoded = decode::frame(frame);
            fields
                .iter()
                .all(|(name, value)| decoded.iter().any(|field| field.name == *name && field.value == *value))
        }
        (Some(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::Rules;
    use crate::replay::compare::{Found, Item, Mark, Whose};
    use crate::replay::trace::{Action, Record};
    use dataplane::bench::Frame;

    fn record(action: Action) -> Record {
        Record { number: 0, at_ms: 0, line: String::new(), action, out: Vec::new() }
    }

    fn frame(kind: u8) -> Vec<u8> {
        Frame::new("10.0.0.100:0".parse().unwrap(), "10.1.0.5:0".parse().unwrap())
            .ip(1, &[kind, 1, 0, 0, 0, 0, 0, 0])
    }

    #[test]
    fn the_rules_of_the_documentation_can_be_read_and_name_no_trace() {
        let rules = Rules::built_in().unwrap();
        let traces = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/traces")).unwrap();
        let names: Vec<String> = traces
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        for rule in rules.all() {
            assert!(!rule.reason.trim().is_empty(), "{rule:?}");
            let text = format!("{rule:?}");
            // Short names such as `dh` and `drop` are words of their own.
            assert!(!names.iter().any(|name| name.contains('_') && text.contains(name)), "{text}");
        }
    }

    #[test]
    fn a_rule_explains_what_it_names_and_nothing_else() {
        let rules = Rules::parse(
            r#"
            [[rule]]
            name = "reassembly"
            reason = "the host's"
            during = "sleep"
            kernel = { "icmp.type" = "11", "icmp.code" = "1" }
            ours = "nothing"
            [[rule]]
            name = "late"
            reason = "rounded"
            mark = "late"
            whose = "kernel"
            [[rule]]
            name = "status"
            reason = "x"
            command = "modprobe"
            status = [1, 0]
            "#,
        )
        .unwrap();
        let (sleep, packet) = (record(Action::Sleep), record(Action::Note));
        let item = |kernel, ours| Found::from(Item::Frame { link: 0, kernel, ours });
        let explained =
            |record: &Record, item: &Found| rules.explaining(record, item).map(|rule| rule.name.as_str());
        assert_eq!(explained(&sleep, &item(Some(frame(11)), None)), Some("reassembly"));
        assert_eq!(explained(&packet, &item(Some(frame(3)), None)), None);
        assert_eq!(explained(&sleep, &item(Some(frame(11)), Some(frame(11)))), None);
        assert_eq!(explained(&sleep, &item(None, Some(frame(11)))), None);
        let line = |whose, late: bool| Found {
            mark: late.then_some(Mark::Late),
            ..Found::from(Item::Line { whose, line: "x".to_owned() })
        };
        assert_eq!(explained(&sleep, &line(Whose::Kernel, true)), Some("late"));
        assert_eq!(explained(&sleep, &line(Whose::Kernel, false)), None);
        assert_eq!(explained(&sleep, &line(Whose::Ours, true)), None);
        let command = |command: &str| {
            record(Action::Command { command: command.to_owned(), rc: 1, text: String::new() })
        };
        assert_eq!(
            explained(&command("modprobe x"), &Item::Status { kernel: 1, ours: 0 }.into()),
            Some("status")
        );
        assert_eq!(explained(&command("true"), &Item::Status { kernel: 1, ours: 0 }.into()), None);
        assert_eq!(explained(&command("modprobe x"), &Item::Unplayed { what: "x".to_owned() }.into()), None);
    }

    #[test]
    fn a_bad_rule_is_named() {
        for (text, part) in [
            ("[[rule]]\nname = \"x\"\nreason = \"y\"\n", "`x` names neither"),
            ("[[rule]]\nname = \"x\"\nreason = \"y\"\ntrace = \"rr\"\n", "unknown field `trace`"),
            ("rules = 1", "unknown field `rules`"),
        ] {
            let why = Rules::parse(text).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
