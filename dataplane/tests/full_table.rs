//! A full table: half-open connections give way to newcomers, established ones never, and all that is counted stays right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails is the test")]

mod common;

use common::*;
use dataplane::bench::DirectorConfig;
use dataplane::connection::ConnectionId;
use dataplane::connection::tcp;
use dataplane::counters::{Activity, Counter, DropReason};
use dataplane::snapshot::editor::DestinationSpec;
use dataplane::snapshot::{Method, SchedulerKind, Settings};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

/// A service of a direct destination and of a masqueraded one that takes at most ten connections.
fn web(connections: u32) -> Lab {
    let mut lab = Lab::new(DirectorConfig { connections, ..DirectorConfig::default() });
    lab.service(tcp_key(80), SchedulerKind::Wlc, None);
    lab.destination(tcp_key(80), server(64), 1);
    let spec = DestinationSpec::new(server(68), 80, 1);
    lab.destination_with(tcp_key(80), DestinationSpec { method: Method::Masquerade, upper: 10, ..spec });
    lab
}

/// Client numbers of those connections that are there, half open or not.
fn clients(lab: &Lab, half_open: bool) -> BTreeSet<u16> {
    let slab = lab.director.engines[0].connections_v4();
    let views = (0..slab.used()).filter_map(|id| slab.read(ConnectionId(id)));
    let wanted = views.filter(|view| view.state.is_half_open() == half_open);
    wanted.map(|view| view.tuple.source_port - 1024).collect()
}

/// What is counted for destinations is what the table holds.
fn assert_books_balance(lab: &Lab) {
    let slab = lab.director.engines[0].connections_v4();
    let views: Vec<_> = (0..slab.used()).filter_map(|id| slab.read(ConnectionId(id))).collect();
    for last in [64, 68] {
        let slot = lab.editor.find_destination(&tcp_key(80), server(last), 80).unwrap().slot;
        let count = |activity: Activity| {
            let here = views.iter().filter(|view| view.destination == slot);
            here.filter(|view| tcp::activity(view.state) == activity).count() as u64
        };
        let (active, inactive) = (count(Activity::Active), count(Activity::Inactive));
        let totals = lab.totals(&tcp_key(80), server(last));
        assert_eq!((totals.active, totals.inactive), (active, inactive), "{last}");
        let shared = lab.director.shared.destinations.shared(slot);
        let counted = (shared.active.load(Relaxed), shared.total.load(Relaxed));
        assert_eq!((u64::from(counted.0), u64::from(counted.1)), (active, active + inactive), "{last}");
    }
    let [opened, closed] =
        [Counter::ConnectionsOpened, Counter::ConnectionsClosed].map(|which| lab.director.count(which));
    assert_eq!(opened - closed, u64::from(lab.open_connections()));
}

#[test]
fn a_flood_takes_its_own_places_and_honest_clients_get_through() {
    let mut lab = web(64);
    for client in 0..20 {
        lab.forwarded(&syn(client)).unwrap();
        lab.forwarded(&ack(client)).unwrap();
    }
    for client in 100..400 {
        assert!(lab.forwarded(&syn(client)).is_some(), "{client}");
        assert_books_balance(&lab);
    }
    assert_eq!(lab.director.count(Counter::EvictedHalfOpen), 300 - 44);
    assert!(lab.forwarded(&ack(399)).is_some(), "who answers stays");
    assert!((0..20).all(|client| lab.forwarded(&ack(client)).is_some()));
    assert_eq!(lab.director.dropped(DropReason::TableFull), 0);
    lab.set(Settings { evict_half_open: false, ..Settings::default() });
    assert_eq!(lab.forwarded(&syn(500)), None);
    assert_eq!(lab.director.dropped(DropReason::TableFull), 1);
    lab.leap_checked(70_000);
    assert!(lab.forwarded(&syn(500)).is_some(), "half-open connections time out");
    assert_books_balance(&lab);
}

/// A table of established connections is not walked for every newcomer; one of them that begins another handshake is found all the same.
#[test]
fn a_connection_that_is_opened_again_gives_way() {
    let mut lab = web(16);
    for client in 0..16 {
        lab.forwarded(&syn(client)).unwrap();
        lab.forwarded(&ack(client)).unwrap();
    }
    assert!((100..110).all(|client| lab.forwarded(&syn(client)).is_none()));
    for frame in [fin(5), ack(5), syn(5)] {
        lab.forwarded(&frame).unwrap();
    }
    assert_eq!(clients(&lab, true), BTreeSet::from([5]));
    assert!(lab.forwarded(&syn(200)).is_some());
    assert_eq!(clients(&lab, true), BTreeSet::from([200]));
    assert_books_balance(&lab);
}

/// The templates of a flood go with its connections, so that they do not keep honest clients out.
#[test]
fn templates_of_evicted_connections_go_too() {
    let config = DirectorConfig { connections: 16, templates: 32, ..DirectorConfig::default() };
    let mut lab = Lab::web(SchedulerKind::Rr, Some(300), config);
    assert!((0..1000).all(|client| {
        lab.director.pass(1);
        lab.forwarded(&syn(client)).is_some()
    }));
    let dropped =
        [DropReason::TemplateFull, DropReason::TableFull].map(|reason| lab.director.dropped(reason));
    assert_eq!(dropped, [0, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// A newcomer is refused only where no connection is half open; an established connection is only ever closed by its time.
    #[test]
    fn only_half_open_connections_give_way(
        steps in proptest::collection::vec((0u16..40, 0u8..9, 0u32..2_000), 1..250),
    ) {
        let room = 16;
        let mut lab = web(room);
        for (client, what, pause) in steps {
            lab.director.leap(pause);
            let before = clients(&lab, true);
            let others = clients(&lab, false);
            let known = before.contains(&client) || others.contains(&client);
            let full = lab.open_connections() == room;
            let forwarded = lab.forwarded(&match what {
                0..=4 => syn(client),
                5..=7 => ack(client),
                _ => fin(client),
            });
            if known {
                prop_assert!(forwarded.is_some());
            } else if what <= 4 {
                prop_assert_eq!(forwarded.is_some(), !full || !before.is_empty());
            }
            let now: BTreeSet<_> = clients(&lab, true).union(&clients(&lab, false)).copied().collect();
            prop_assert!(now.is_superset(&others), "{others:?} {now:?}");
            assert_books_balance(&lab);
        }
    }
}
