//! Reading the configuration again.
//!
//! What the files say is theirs: it becomes what they say now, and goes when they no longer say it. What others added, such as
//! keepalived by the IPVS endpoint, stays. Single timeouts and settings follow the files where the files changed.

use super::director::Director;
use crate::config::{self, Config, Layers};
use crate::desired::{Apply, Desired, SettingsEdit};
use std::collections::BTreeSet;

/// Reads the files again and makes what they say so; returns what they say. A bad file, or one that is refused, leaves the old
/// state running, and `None` is returned.
pub(super) fn reload(director: &mut Director, layers: &Layers, before: &Config) -> Option<Config> {
    let loaded = match config::load(layers) {
        Ok(loaded) => loaded,
        Err(findings) => {
            director.event("refusal", format!("the configuration has errors; nothing changed:\n{findings}"));
            return None;
        }
    };
    let outcome = director.apply(target(director.management.desired(), before, &loaded.config));
    let (text, now) = match outcome {
        Ok(changed) => {
            director.made("change", &changed.changes, "reload");
            let count = changed.changes.len();
            (format!("the configuration was read again: {count} changes"), Some(loaded.config))
        }
        Err(fault) => {
            (format!("the configuration was read again and refused; nothing changed: {fault}"), None)
        }
    };
    director.event("instance", text);
    now
}

/// What there shall be when files that said `before` say `now`.
fn target(desired: &Desired, before: &Config, now: &Config) -> Apply {
    let files: BTreeSet<_> = before.service.iter().chain(&now.service).map(|service| service.key).collect();
    let others = desired.services().filter(|service| !files.contains(&service.key));
    let services = now.service.iter().cloned().chain(others.map(|service| service.to_spec())).collect();
    let of_others = |rule: &&_| !before.mark.contains(rule) && !now.mark.contains(rule);
    let marks = now.mark.iter().chain(desired.marks().iter().filter(of_others)).cloned().collect();
    Apply {
        services,
        timeouts: Some(desired.timeouts().edited(&before.timeouts.edit_to(now.timeouts))),
        settings: Some(SettingsEdit::between(&before.settings, &now.settings).apply(desired.settings())),
        marks: Some(marks),
        ..Apply::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::start::wanted;
    use super::*;
    use crate::desired::{Bounds, Change, MarkRule, Settings, Timeouts};

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    fn make(desired: &mut Desired, apply: Apply) {
        let plan = desired.prepare(&Change::Apply(apply)).unwrap();
        desired.commit(&plan);
    }

    fn names(desired: &Desired) -> Vec<String> {
        desired.services().map(|service| service.key.to_string()).collect()
    }

    const FIRST: &str = "
        [timeouts]
        udp = 30
        [settings]
        sloppy_tcp = true
        [[mark]]
        mark = 1
        [[service]]
        protocol = \"tcp\"
        address = \"192.0.2.1:80\"
        scheduler = \"rr\"
        [[service]]
        protocol = \"tcp\"
        address = \"192.0.2.2:80\"
    ";
    const SECOND: &str = "
        [timeouts]
        udp = 60
        [[mark]]
        mark = 2
        [[service]]
        protocol = \"tcp\"
        address = \"192.0.2.1:80\"
        scheduler = \"wrr\"
        [[service]]
        protocol = \"udp\"
        address = \"192.0.2.3:53\"
    ";

    #[test]
    fn the_files_own_what_they_say_and_nothing_else() {
        let (first, second) = (config(FIRST), config(SECOND));
        let mut desired = Desired::new(Bounds { services: 16, destinations: 16 });
        make(&mut desired, wanted(&first));
        let mut by_hand = wanted(&first);
        by_hand.services.extend(config("[[service]]\nmark = 7\n").service);
        by_hand.marks = Some(vec![MarkRule::all(1), MarkRule::all(7)]);
        by_hand.timeouts = Some(Timeouts { tcp: 5, ..first.timeouts });
        by_hand.settings = Some(Settings { expire_nodest_conn: true, ..first.settings });
        make(&mut desired, by_hand);

        let apply = target(&desired, &first, &second);
        make(&mut desired, apply);
        assert_eq!(names(&desired), ["tcp 192.0.2.1:80", "udp 192.0.2.3:53", "mark 7"]);
        assert_eq!(desired.services().next().unwrap().scheduler.name(), "wrr");
        assert_eq!(desired.marks().to_vec(), [MarkRule::all(2), MarkRule::all(7)]);
        assert_eq!(desired.timeouts(), Timeouts { tcp: 5, udp: 60, ..Timeouts::default() });
        let settings = Settings { expire_nodest_conn: true, ..Settings::default() };
        assert_eq!(desired.settings(), settings, "what the file no longer says is the default again");
        let apply = target(&desired, &second, &second);
        assert!(desired.prepare(&Change::Apply(apply)).unwrap().is_empty(), "the same files change nothing");
    }

    #[test]
    fn a_services_edit_by_hand_lasts_until_the_files_are_read_again() {
        let first = config(FIRST);
        let mut desired = Desired::new(Bounds { services: 16, destinations: 16 });
        make(&mut desired, wanted(&first));
        let mut edited = wanted(&first);
        edited.services[0].persistent = 9;
        make(&mut desired, edited);
        let apply = target(&desired, &first, &first);
        make(&mut desired, apply);
        assert_eq!(desired.to_specs()[0].persistent, 0);
    }
}
