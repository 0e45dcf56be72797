//! One configuration file: everything wrong with its syntax and types at once, and where each value stands.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::finding::{Finding, Place, Severity};
use super::{Config, help};
use crate::desired::{MaglevOrder, Scheduler, ServiceSpec};

/// More errors than this in one file are not listed: it is not one of ours.
const ERRORS_MAX: usize = 50;

/// A file as far as it could be understood.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: String,
    text: String,
    /// The values that are well-formed and of the right type.
    pub(super) values: toml::Table,
    /// The same, typed; keys that are not in the file have their defaults.
    pub(super) config: Config,
    spans: BTreeMap<String, Range<usize>>,
    /// What was wrong.
    pub(super) findings: Vec<Finding>,
    /// `[[port]]`s written, well-formed or not.
    pub(super) ports_written: usize,
}

/// Where nothing else is said, every director that reads the file fills mh's table alike.
fn meant_by_a_file(service: &mut ServiceSpec) {
    if service.scheduler == Scheduler::Mh {
        service.mh_order.get_or_insert(MaglevOrder::Canonical);
    }
}

impl Source {
    pub(super) fn parse(path: &str, text: &str) -> Self {
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            values: toml::Table::new(),
            config: Config::default(),
            spans: BTreeMap::new(),
            findings: Vec::new(),
            ports_written: 0,
        };
        let (mut table, errors) = DeTable::parse_recoverable(text);
        for error in errors.iter().take(ERRORS_MAX) {
            source.report(error.span(), error.message(), String::new());
        }
        if errors.is_empty() {
            source.ports_written =
                table.get_ref().get("port").and_then(|port| port.get_ref().as_array()).map_or(0, |a| a.len());
            source.type_check(&mut table);
            walk(table.get_ref(), "", &mut source.spans);
        } else {
            // What a broken file leaves unsaid must not be reported as missing.
            source.ports_written = 1;
        }
        source
    }

    /// Asks serde again and again, each time without the value it refused last, so that one error does not hide the next.
    fn type_check(&mut self, table: &mut Spanned<DeTable<'_>>) {
        for _ in 0..ERRORS_MAX {
            let error = match Config::deserialize(Deserializer::from(table.clone())) {
                Ok(config) => {
                    self.config = config;
                    self.config.service.iter_mut().for_each(meant_by_a_file);
                    self.values =
                        toml::Table::deserialize(Deserializer::from(table.clone())).unwrap_or_default();
                    return;
                }
                Err(error) => error,
            };
            let Some(span) = error.span() else {
                self.report(None, error.message(), String::new());
                return;
            };
            let Some(removed) = remove(table.get_mut(), span.start) else {
                self.report(Some(span), error.message(), String::new());
                return;
            };
            let mend = help::mend(&removed, error.message());
            self.report(Some(span), error.message(), mend);
        }
    }

    fn report(&mut self, span: Option<Range<usize>>, message: &str, mend: String) {
        let place = span.map_or_else(
            || Place::Whole(self.path.clone()),
            |span| Place::in_file(&self.path, &self.text, span),
        );
        self.findings.push(Finding { severity: Severity::Error, place, message: message.to_owned(), mend });
    }

    /// Where the value at a path such as `port[0].name` stands, or the nearest thing around it that stands anywhere.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(span) = self.spans.get(path) {
                return Some(Place::in_file(&self.path, &self.text, span.clone()));
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Items of `[[port]]` or `[[service]]` that this file contributed.
    pub(super) fn list_len(&self, list: &str) -> usize {
        self.values.get(list).and_then(toml::Value::as_array).map_or(0, Vec::len)
    }

    /// Whether the file sets this very key.
    pub(super) fn sets(&self, path: &str) -> bool {
        self.spans.contains_key(path)
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn walk(table: &DeTable<'_>, path: &str, spans: &mut BTreeMap<String, Range<usize>>) {
    for (key, value) in table {
        let path = join(path, key.get_ref());
        walk_value(value, &path, &key.span(), spans);
    }
}

fn walk_value(
    value: &Spanned<DeValue<'_>>,
    path: &str,
    key: &Range<usize>,
    spans: &mut BTreeMap<String, Range<usize>>,
) {
    match value.get_ref() {
        DeValue::Table(table) => {
            spans.insert(path.to_owned(), if value.span().is_empty() { key.clone() } else { value.span() });
            walk(table, path, spans);
        }
        DeValue::Array(items) => {
            spans.insert(path.to_owned(), if value.span().is_empty() { key.clone() } else { value.span() });
            for (index, item) in items.iter().enumerate() {
                walk_value(item, &format!("{path}[{index}]"), &item.span(), spans);
            }
        }
        _ => {
            spans.insert(path.to_owned(), value.span());
        }
    }
}

/// Removes the smallest thing at `offset` and says what it was: `port[0].mtu`. A table's span is its header only, so the
/// search looks into every table before it looks at the table itself.
fn remove(table: &mut DeTable<'_>, offset: usize) -> Option<String> {
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if key.span().contains(&offset) && !matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_)) {
            found = Some((key.clone(), String::new(), true));
            break;
        }
        if let Some(inner) = remove_in(value, offset) {
            found = Some((key.clone(), inner, false));
            break;
        }
        if key.span().contains(&offset) || value.span().contains(&offset) || value.span().start == offset {
            found = Some((key.clone(), String::new(), true));
            break;
        }
    }
    let (key, inner, whole) = found?;
    if whole {
        table.remove(&key);
    }
    Some(format!("{}{inner}", key.get_ref()))
}

fn remove_in(value: &mut Spanned<DeValue<'_>>, offset: usize) -> Option<String> {
    match value.get_mut() {
        DeValue::Table(table) => remove(table, offset).map(|inner| format!(".{inner}")),
        DeValue::Array(items) => {
            for index in 0..items.len() {
                let item: &mut Spanned<DeValue<'_>> = items.get_mut(index)?;
                if let Some(inner) = remove_in(item, offset) {
                    return Some(format!("[{index}]{inner}"));
                }
                if item.span().contains(&offset) {
                    let all = std::mem::replace(items, std::iter::empty().collect());
                    let others = all.into_iter().enumerate().filter(|(other, _)| *other != index);
                    *items = others.map(|(_, item)| item).collect();
                    return Some(format!("[{index}]"));
                }
            }
            None
        }
        _ => None,
    }
}
