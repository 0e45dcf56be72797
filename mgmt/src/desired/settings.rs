//! Timeouts and behaviour of the whole director.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use super::{Refusal, TIMEOUT_MAX_S};

pub use dataplane::snapshot::Settings;

/// Timeouts in seconds that `ipvsadm --set` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// TCP ESTABLISHED.
    pub tcp: u32,
    /// TCP FIN_WAIT.
    pub tcp_fin: u32,
    /// UDP.
    pub udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp: 900, tcp_fin: 120, udp: 300 }
    }
}

/// Parameters of `timeouts.set`: what is absent or 0 stays as it is, as with `ipvsadm --set`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeoutsSet {
    /// Seconds of TCP ESTABLISHED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<u32>,
    /// Seconds of TCP FIN_WAIT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_fin: Option<u32>,
    /// Seconds of UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<u32>,
}

impl Timeouts {
    /// The three by their names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u32); 3] {
        [("tcp", self.tcp), ("tcp_fin", self.tcp_fin), ("udp", self.udp)]
    }

    /// # Errors
    ///
    /// One is 0, or longer than the director's clock can tell apart.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let wrong = self.named().into_iter().find(|(_, seconds)| !(1..=TIMEOUT_MAX_S).contains(seconds));
        wrong.map_or(Ok(()), |(name, seconds)| Err(Refusal::Timeout { name, seconds }))
    }

    /// With an edit made.
    pub(crate) fn edited(self, edit: &TimeoutsSet) -> Self {
        let value = |new: Option<u32>, old| new.filter(|new| *new != 0).unwrap_or(old);
        Self {
            tcp: value(edit.tcp, self.tcp),
            tcp_fin: value(edit.tcp_fin, self.tcp_fin),
            udp: value(edit.udp, self.udp),
        }
    }

    /// The edit that makes `self` into `after`.
    pub(crate) fn edit_to(self, after: Self) -> TimeoutsSet {
        let value = |new: u32, old: u32| (new != old).then_some(new);
        TimeoutsSet {
            tcp: value(after.tcp, self.tcp),
            tcp_fin: value(after.tcp_fin, self.tcp_fin),
            udp: value(after.udp, self.udp),
        }
    }
}

/// Parameters of `settings.set`: any of the settings by the kernel's sysctl names; the others stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct SettingsEdit(Map<String, Value>);

/// A sysctl's 0 and 1 for a setting that is on or off.
fn as_switch(value: Value) -> Value {
    match value.as_u64() {
        Some(0) => Value::Bool(false),
        Some(1) => Value::Bool(true),
        _ => value,
    }
}

/// Settings as names and values.
fn fields(settings: &Settings) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

impl SettingsEdit {
    /// Adds one setting by its name, with its value as `sysctl` or TOML would have it: `1`, `true`.
    ///
    /// # Errors
    ///
    /// No such setting, or a value that it does not take.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, Refusal> {
        let value = serde_json::from_str(value.trim()).unwrap_or_else(|_| Value::from(value.trim()));
        self.insert(name, value)?;
        Ok(self)
    }

    fn insert(&mut self, name: &str, value: Value) -> Result<(), Refusal> {
        let wrong = |reason: String| Refusal::Setting { name: name.to_owned(), reason };
        let mut all = fields(&Settings::default());
        let Some(known) = all.get_mut(name) else {
            let names = all.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(wrong(format!("there is no such setting; there are {names}")));
        };
        *known = if known.is_boolean() { as_switch(value) } else { value };
        let value = known.clone();
        let read = Settings::deserialize(Value::Object(all)).map_err(|error| wrong(error.to_string()))?;
        check_settings(&read)?;
        self.0.insert(name.to_owned(), value);
        Ok(())
    }

    /// Nothing named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values.
    pub(super) fn named(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter()
    }

    /// `settings` with the edit made. Each value was checked when it was named.
    pub(crate) fn apply(&self, settings: Settings) -> Settings {
        let mut all = fields(&settings);
        all.extend(self.0.iter().map(|(name, value)| (name.clone(), value.clone())));
        Settings::deserialize(Value::Object(all)).unwrap_or(settings)
    }

    /// What makes `before` into `after`.
    pub(crate) fn between(before: &Settings, after: &Settings) -> Self {
        let before = fields(before);
        Self(fields(after).into_iter().filter(|(name, value)| before.get(name) != Some(value)).collect())
    }
}

impl<'de> Deserialize<'de> for SettingsEdit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut edit = Self::default();
        for (name, value) in Map::deserialize(deserializer)? {
            edit.insert(&name, value).map_err(de::Error::custom)?;
        }
        Ok(edit)
    }
}

/// A number that the setting of its name does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange {
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub value: u32,
    /// The least it takes.
    pub low: u32,
    /// The most it takes.
    pub high: u32,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not in the range {} to {}", self.value, self.low, self.high)
    }
}

/// Every setting that has a number it does not take.
pub fn out_of_range(settings: &Settings) -> impl Iterator<Item = OutOfRange> {
    let range = |name, value, low, high| OutOfRange { name, value, low, high };
    let ranges = [
        range("conn_reuse_mode", settings.conn_reuse_mode.into(), 0, 3),
        range("drop_entry", settings.drop_entry.into(), 0, 3),
        range("drop_packet", settings.drop_packet.into(), 0, 3),
        range("secure_tcp", settings.secure_tcp.into(), 0, 3),
        range("am_droprate", settings.am_droprate, 1, u32::MAX),
        range("lblc_expiration", settings.lblc_expiration, 1, TIMEOUT_MAX_S),
        range("lblcr_expiration", settings.lblcr_expiration, 1, TIMEOUT_MAX_S),
    ];
    ranges.into_iter().filter(|held| held.value < held.low || held.value > held.high)
}

/// # Errors
///
/// The first number out of its range.
pub(super) fn check_settings(settings: &Settings) -> Result<(), Refusal> {
    out_of_range(settings).next().map_or(Ok(()), |wrong| {
        Err(Refusal::Setting { name: wrong.name.to_owned(), reason: wrong.to_string() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_changes_what_it_names() {
        let edit =
            SettingsEdit::default().with("sloppy_tcp", "1").unwrap().with("conn_reuse_mode", "0").unwrap();
        let after = edit.apply(Settings::default());
        assert_eq!(after, Settings { sloppy_tcp: true, conn_reuse_mode: 0, ..Settings::default() });
        assert_eq!(SettingsEdit::between(&Settings::default(), &after), edit);
        let json = r#"{"sloppy_tcp":true,"conn_reuse_mode":0}"#;
        assert_eq!(serde_json::from_str::<SettingsEdit>(json).unwrap(), edit);
        let off: SettingsEdit = serde_json::from_str(r#"{"sloppy_tcp":0}"#).unwrap();
        assert!(!off.apply(after).sloppy_tcp);
        assert!(SettingsEdit::default().is_empty());
    }

    #[test]
    fn what_is_no_setting_is_refused_with_the_mend() {
        for (name, value, part) in [
            ("sloppy", "1", "there are "),
            ("", "", "no such setting"),
            ("sloppy_tcp", "2", "invalid type"),
            ("sloppy_tcp", "yes", "invalid type"),
            ("conn_reuse_mode", "4", "0 to 3"),
            ("conn_reuse_mode", "-1", "-1"),
            ("conn_reuse_mode", "true", "invalid type"),
            ("conn_reuse_mode", "256", "256"),
        ] {
            let refusal = SettingsEdit::default().with(name, value).unwrap_err();
            assert!(refusal.to_string().contains(part), "{name}={value}: {refusal}");
        }
        for bad in [r#"{"x":1}"#, "[]", "1", r#"{"sloppy_tcp":null}"#, r#"{"conn_reuse_mode":9}"#] {
            assert!(serde_json::from_str::<SettingsEdit>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_page_names_every_setting() {
        let page = include_str!("../../../docs/services.md");
        for name in fields(&Settings::default()).keys() {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_timeout_of_0_stays_as_it_is() {
        let set = TimeoutsSet { tcp: Some(0), tcp_fin: None, udp: Some(10) };
        let after = Timeouts::default().edited(&set);
        assert_eq!(after, Timeouts { udp: 10, ..Timeouts::default() });
        assert_eq!(
            Timeouts::default().edit_to(after),
            TimeoutsSet { udp: Some(10), ..TimeoutsSet::default() }
        );
        assert!(after.check().is_ok());
        for bad in [0, TIMEOUT_MAX_S + 1] {
            assert!(Timeouts { tcp_fin: bad, ..after }.check().unwrap_err().to_string().contains("tcp_fin"));
        }
    }
}
