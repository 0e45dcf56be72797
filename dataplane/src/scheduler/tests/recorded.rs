//! Choices recorded on Linux 6.1.192 (ipvsadm 1.31): one scenario a line, its events in order. `open N S`: connection N was given
//! to server S; `none`: no server was available. Every listing of connection counts in the recordings agreed with these events.

use super::director::Director;
use crate::snapshot::SchedulerKind;
use std::collections::HashMap;

/// Choices in the file.
const RECORDED: usize = 1362;

fn kind(name: &str) -> SchedulerKind {
    SchedulerKind::ALL.into_iter().find(|kind| kind.name() == name).unwrap()
}

fn replay(scenario: &str) -> usize {
    let mut director: Option<Director> = None;
    let mut connections: HashMap<u32, (u8, bool)> = HashMap::new();
    let mut choices = 0;
    for event in scenario.split("; ") {
        let words: Vec<&str> = event.split(' ').collect();
        let number = |at: usize| words[at].parse::<u32>().unwrap();
        let server = |at: usize| words[at].parse::<u8>().unwrap();
        match words[0] {
            "scenario" => continue,
            "service" => {
                director = Some(Director::new(kind(words[1]), 1));
                continue;
            }
            _ => {}
        }
        let director = director.as_mut().unwrap();
        match words[0] {
            "switch" => director.switch(kind(words[1])),
            "add" => director.add(server(1), number(2), number(3), number(4)),
            "edit" => director.edit(server(1), number(2), number(3), number(4)),
            "remove" => director.remove(server(1)),
            "none" => assert_eq!(director.choose(0), None, "{}", &scenario[..24]),
            "open" => {
                assert_eq!(director.choose(0), Some(server(2)), "{event} of {}", &scenario[..24]);
                director.opened(0, server(2));
                connections.insert(number(1), (server(2), true));
            }
            "active" | "inactive" => {
                let (server, active) = connections.get_mut(&number(1)).unwrap();
                *active = words[0] == "active";
                director.changed(0, *server, *active);
            }
            "close" => {
                let (server, active) = connections.remove(&number(1)).unwrap();
                director.closed(0, server, active);
            }
            other => panic!("{other}"),
        }
        choices += usize::from(matches!(words[0], "open" | "none"));
    }
    choices
}

#[test]
fn every_recorded_choice_is_made_again() {
    let choices: usize = include_str!("recorded.txt").lines().map(replay).sum();
    assert_eq!(choices, RECORDED);
}
