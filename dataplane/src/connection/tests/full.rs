//! Who gives way in a full table.

use super::super::half_open::LOOKED_AT;
use super::*;
use proptest::prelude::*;

/// Fills a table with connections in these states.
fn full(states: &[State]) -> Table<Ipv4Addr> {
    let mut table = table::<Ipv4Addr>(u32::try_from(states.len()).unwrap(), false, Ticks(0));
    for (number, state) in (0..).zip(states) {
        let new = NewConnection { state: *state, ..new(v4(number, 9), 60_000) };
        open(&mut table, &new, Ticks(0)).unwrap();
    }
    assert_eq!(table.len(), table.capacity());
    table
}

/// Asks so often that the hand goes round the table once, and a little further.
fn rounds(table: &mut Table<Ipv4Addr>) -> Option<ConnectionId> {
    (0..=table.used().div_ceil(LOOKED_AT)).find_map(|_| table.half_open())
}

#[test]
fn half_open_is_what_the_client_has_not_completed() {
    let half_open: Vec<_> =
        State::ALL.into_iter().filter(|state| state.is_half_open()).map(State::name).collect();
    assert_eq!(half_open, ["SYN_RECV", "SYNACK", "INIT1", "INIT"]);
}

#[test]
fn the_hand_comes_back_after_a_round() {
    let mut table = full(&[State::SynRecv; 100]);
    let found: Vec<_> = (0..200).map(|_| table.half_open().unwrap().0).collect();
    assert_eq!(found, (0..100).chain(0..100).collect::<Vec<_>>(), "the oldest first");
}

#[test]
fn a_table_of_established_connections_is_walked_once() {
    let mut table = full(&[State::Established; 100]);
    assert!((0..10).all(|_| table.half_open().is_none()));
    let looked_at = table.hand.in_vain;
    assert!((100..100 + LOOKED_AT).contains(&looked_at));
    assert!(table.half_open().is_none());
    assert_eq!(table.hand.in_vain, looked_at);
    // Somebody new is there: another look is worth its while.
    table.close(ConnectionId(50));
    open(&mut table, &new(v4(1000, 9), 60_000), Ticks(0)).unwrap();
    assert_eq!(rounds(&mut table), Some(ConnectionId(50)));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Newcomers take the places of half-open connections and of no others, as long as there are any, whatever becomes established
    /// between them; the table stays full, and the wheel and the index have what they should.
    #[test]
    fn newcomers_take_the_places_of_half_open_connections(
        states in proptest::collection::vec(prop_oneof![
            Just(State::SynRecv), Just(State::SynAck), Just(State::Established), Just(State::TimeWait), Just(State::Udp)
        ], 1..if cfg!(miri) { 40 } else { 150 }),
        newcomers in proptest::collection::vec((any::<bool>(), 0u32..30_000), 1..if cfg!(miri) { 20 } else { 300 }),
    ) {
        let mut table = full(&states);
        let kept: Vec<_> = (0..table.used())
            .map(ConnectionId)
            .filter(|id| !table.line(*id).state().is_half_open())
            .map(|id| (id, table.line(id).tuple()))
            .collect();
        let mut now = Ticks(0);
        for (number, (completes, later)) in (1000..).zip(newcomers) {
            now = now.after(later / 256);
            let half_open = (0..table.used()).filter(|number| table.line(ConnectionId(*number)).state().is_half_open()).count();
            let Some(id) = rounds(&mut table) else {
                prop_assert_eq!(half_open, 0);
                break;
            };
            prop_assert!(table.line(id).state().is_half_open());
            let gone = table.line(id).tuple();
            prop_assert!(table.close(id));
            prop_assert_eq!(find(&table, &gone), None);
            let new = new(v4(number, 9), 60_000);
            let came = open(&mut table, &new, now).unwrap();
            prop_assert_eq!(came, id, "its line is the free one");
            if completes {
                table.line(came).set_state(State::Established);
                table.touch(came, 900_000, now);
            }
            prop_assert_eq!(find(&table, &new.tuple), Some(Found { id: came, reverse: false }));
            assert_wheel_adds_up(&table);
        }
        prop_assert_eq!(table.len(), table.capacity());
        prop_assert_eq!(table.wheel_full(), 0);
        for (id, tuple) in kept {
            prop_assert_eq!(find(&table, &tuple), Some(Found { id, reverse: false }));
        }
    }
}
