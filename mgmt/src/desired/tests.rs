//! The desired state against a model that only knows lists, and the refusals one by one.

use proptest::prelude::*;

use super::*;
use std::net::Ipv4Addr;

use crate::address::{Endpoint, Protocol, Server};

const BOUNDS: Bounds = Bounds { services: 8, destinations: 24 };

fn key(last: u8, port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol: Protocol::Tcp,
        address: Endpoint { ip: [192, 168, 132, last].into(), port },
    }
}

fn service(last: u8) -> ServiceSpec {
    ServiceSpec::new(key(last, 80), Scheduler::Rr)
}

fn destination(last: u8) -> DestinationSpec {
    DestinationSpec::new(Server { ip: [10, 0, 0, last].into(), port: None })
}

fn make(desired: &mut Desired, change: &Change) -> Result<Plan, Refusal> {
    let plan = desired.prepare(change)?;
    if !plan.dry_run {
        desired.commit(&plan);
    }
    Ok(plan)
}

fn add_service(spec: ServiceSpec) -> Change {
    Change::ServiceAdd(ServiceAdd { service: spec })
}

fn add_destination(to: u8, last: u8) -> Change {
    Change::DestinationAdd(DestinationAdd { service: key(to, 80), destination: destination(last) })
}

fn edit_destination(to: u8, last: u8) -> DestinationEdit {
    DestinationEdit::of(key(to, 80), destination(last).address)
}

fn delete_destination(to: u8, last: u8) -> Change {
    Change::DestinationDelete(DestinationDelete { service: key(to, 80), address: destination(last).address })
}

fn listed(desired: &Desired, last: u8) -> Vec<u8> {
    let held = &desired.service(key(last, 80)).unwrap().destinations;
    held.iter()
        .map(|destination| match destination.server.ip {
            std::net::IpAddr::V4(ip) => ip.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        })
        .collect()
}

fn state_with(destinations: &[u8]) -> Desired {
    let mut desired = Desired::new(BOUNDS);
    make(&mut desired, &add_service(service(254))).unwrap();
    for last in destinations {
        make(&mut desired, &add_destination(254, *last)).unwrap();
    }
    desired
}

#[test]
fn the_newest_destination_is_first_an_edit_does_not_move_it_and_a_return_goes_to_the_head() {
    let mut desired = state_with(&[1, 2, 3]);
    assert_eq!(listed(&desired, 254), [3, 2, 1]);
    make(
        &mut desired,
        &Change::DestinationEdit(DestinationEdit { weight: Some(7), ..edit_destination(254, 1) }),
    )
    .unwrap();
    assert_eq!(listed(&desired, 254), [3, 2, 1]);
    make(&mut desired, &delete_destination(254, 1)).unwrap();
    make(&mut desired, &add_destination(254, 1)).unwrap();
    assert_eq!(listed(&desired, 254), [1, 3, 2]);
}

fn at(protocol: Protocol, address: &str) -> ServiceSpec {
    let key = ServiceKey::Address { protocol, address: address.parse().unwrap() };
    ServiceSpec { key, ..service(1) }
}

fn with_method(method: Method) -> Change {
    let destination = DestinationSpec { method, ..destination(2) };
    Change::DestinationAdd(DestinationAdd { service: key(254, 80), destination })
}

#[test]
fn refusals_carry_the_kernels_names_and_change_nothing() {
    let mut desired = state_with(&[1]);
    let ours = key(254, 80);
    let v6 = DestinationSpec { address: "fd00::64".parse().unwrap(), ..destination(1) };
    let cases: Vec<(Change, &str)> = vec![
        (add_service(service(254)), "EEXIST"),
        (add_destination(254, 1), "EEXIST"),
        (add_destination(253, 1), "ESRCH"),
        (Change::ServiceDelete(ServiceDelete { service: key(254, 81) }), "ESRCH"),
        (delete_destination(254, 9), "ENOENT"),
        (Change::DestinationEdit(edit_destination(254, 9)), "ENOENT"),
        (
            Change::DestinationEdit(DestinationEdit {
                upper_threshold: Some(3),
                lower_threshold: Some(4),
                ..edit_destination(254, 1)
            }),
            "ERANGE",
        ),
        (
            Change::DestinationEdit(DestinationEdit {
                weight: Some(WEIGHT_MAX + 1),
                ..edit_destination(254, 1)
            }),
            "ERANGE",
        ),
        (Change::DestinationAdd(DestinationAdd { service: ours, destination: v6 }), "EINVAL"),
        (add_service(ServiceSpec { netmask: Some(ClientMask::Prefix(24)), ..service(1) }), "EINVAL"),
        (
            add_service(ServiceSpec { netmask: Some(ClientMask::Prefix(64)), persistent: 1, ..service(1) }),
            "EINVAL",
        ),
        (add_service(ServiceSpec { persistent: TIMEOUT_MAX_S + 1, ..service(1) }), "ERANGE"),
        (add_service(at(Protocol::Tcp, "224.0.0.1:80")), "EINVAL"),
        (with_method(Method::Tunnel(Tunnel { kind: TunnelKind::Gue, ..Tunnel::default() })), "EINVAL"),
        (
            Change::TimeoutsSet(TimeoutsSet { tcp: Some(TIMEOUT_MAX_S + 1), ..TimeoutsSet::default() }),
            "EINVAL",
        ),
        (Change::MarkRuleDelete(MarkRule::all(1)), "ENOENT"),
        (
            Change::Apply(Apply {
                settings: Some(Settings { conn_reuse_mode: 4, ..Settings::default() }),
                ..Apply::default()
            }),
            "EINVAL",
        ),
        (Change::Apply(Apply { expected_revision: Some(9), ..Apply::default() }), "ESTALE"),
        (Change::Apply(Apply { services: vec![service(1), service(1)], ..Apply::default() }), "EEXIST"),
    ];
    let before = (desired.revision(), desired.to_specs());
    for (change, errno) in cases {
        let refusal = make(&mut desired, &change).unwrap_err();
        assert_eq!(refusal.code().1, errno, "{change}: {refusal}");
        assert!(refusal.to_string().len() > 20, "{refusal}");
        assert_eq!((desired.revision(), desired.to_specs()), before);
    }
}

#[test]
fn a_full_director_refuses_more_and_says_which_limit() {
    let mut desired = Desired::new(BOUNDS);
    for last in 0..8 {
        make(&mut desired, &add_service(service(last + 1))).unwrap();
    }
    let refusal = make(&mut desired, &add_service(service(99))).unwrap_err();
    assert_eq!(refusal, Refusal::ServicesFull { wanted: 9, limit: 8 });
    for last in 0..24 {
        make(&mut desired, &add_destination(1, last + 1)).unwrap();
    }
    let refusal = make(&mut desired, &add_destination(1, 200)).unwrap_err();
    assert_eq!(refusal, Refusal::DestinationsFull { wanted: 25, limit: 24 });
    make(&mut desired, &Change::ServiceDelete(ServiceDelete { service: key(1, 80) })).unwrap();
    assert_eq!(desired.counts(), (7, 0));
}

/// The kernel lists what it was told, too.
#[test]
fn a_direct_servers_other_port_is_a_name_and_a_note_says_that_it_is_no_more() {
    let mut desired = state_with(&[1]);
    let other = DestinationSpec { address: "10.0.0.1:8080".parse().unwrap(), ..destination(1) };
    let add = Change::DestinationAdd(DestinationAdd { service: key(254, 80), destination: other });
    let plan = make(&mut desired, &add).unwrap();
    assert!(plan.notes[0].contains("port 8080 has no effect"), "{:?}", plan.notes);
    assert!(matches!(make(&mut desired, &add), Err(Refusal::DestinationExists { .. })));
    let held: Vec<_> =
        desired.service(key(254, 80)).unwrap().destinations.iter().map(|held| held.server).collect();
    assert_eq!(held, ["10.0.0.1:8080".parse().unwrap(), "10.0.0.1:80".parse().unwrap()]);
    make(&mut desired, &delete_destination(254, 1)).unwrap();
    assert!(matches!(make(&mut desired, &delete_destination(254, 1)), Err(Refusal::NoDestination { .. })));
    assert_eq!(desired.counts(), (1, 1));
}

#[test]
fn editing_a_service_changes_only_what_is_named() {
    let mut desired = state_with(&[1]);
    let nothing = ServiceEdit::of(key(254, 80));
    make(&mut desired, &Change::ServiceEdit(ServiceEdit { one_packet: Some(true), ..nothing })).unwrap();
    let edit = ServiceEdit { persistent: Some(120), netmask: Some(ClientMask::Prefix(24)), ..nothing };
    make(&mut desired, &Change::ServiceEdit(edit)).unwrap();
    let only_time = ServiceEdit { persistent: Some(60), ..nothing };
    make(&mut desired, &Change::ServiceEdit(only_time)).unwrap();
    let held = desired.service(key(254, 80)).unwrap();
    let mask = ClientMask::Ipv4(Ipv4Addr::new(255, 255, 255, 0));
    assert_eq!(held.persistence, Some(Persistence { timeout_s: 60, mask }));
    assert_eq!((held.scheduler, held.one_packet), (Scheduler::Rr, true));
    let none = ServiceEdit { persistent: Some(0), ..nothing };
    make(&mut desired, &Change::ServiceEdit(none)).unwrap();
    assert_eq!(desired.service(key(254, 80)).unwrap().persistence, None);
    let clamp = |desired: &Desired| desired.service(key(254, 80)).unwrap().mss_clamp;
    let edit = ServiceEdit { mss_clamp: Some(1440), ..nothing };
    assert_eq!(make(&mut desired, &Change::ServiceEdit(edit)).unwrap().changes, [Change::ServiceEdit(edit)]);
    make(&mut desired, &Change::ServiceEdit(ServiceEdit { one_packet: Some(false), ..nothing })).unwrap();
    assert_eq!(clamp(&desired), Some(1440));
    let wrong = ServiceEdit { mss_clamp: Some(535), ..nothing };
    assert!(matches!(make(&mut desired, &Change::ServiceEdit(wrong)), Err(Refusal::MssClamp(535, _))));
    let off = ServiceEdit { mss_clamp: Some(0), ..nothing };
    assert_eq!(make(&mut desired, &Change::ServiceEdit(off)).unwrap().changes, [Change::ServiceEdit(off)]);
    assert_eq!(clamp(&desired), None);
}

/// The kernel's wrr begins its round again at every edit: the data path has to hear of one that changes nothing.
#[test]
fn an_edit_that_changes_nothing_is_a_change_under_wrr_alone() {
    for (scheduler, revisions) in [(Scheduler::Wrr, 1), (Scheduler::Rr, 0)] {
        let mut desired = Desired::new(BOUNDS);
        make(&mut desired, &add_service(ServiceSpec { scheduler, ..service(254) })).unwrap();
        make(&mut desired, &add_destination(254, 1)).unwrap();
        let before = desired.revision();
        let edit = Change::DestinationEdit(DestinationEdit { weight: Some(1), ..edit_destination(254, 1) });
        let plan = make(&mut desired, &edit).unwrap();
        assert_eq!(
            (desired.revision() - before, plan.changes.len()),
            (revisions, usize::try_from(revisions).unwrap())
        );
    }
}

#[test]
fn a_mask_need_not_be_leading_bits_as_in_the_kernel() {
    let mut desired = Desired::new(BOUNDS);
    let odd = ServiceSpec { netmask: Some("0.0.0.24".parse().unwrap()), persistent: 1, ..service(1) };
    make(&mut desired, &add_service(odd.clone())).unwrap();
    assert_eq!(desired.to_specs(), [odd]);
}

#[test]
fn a_service_on_every_port_needs_no_persistence() {
    let mut desired = Desired::new(BOUNDS);
    make(&mut desired, &add_service(at(Protocol::Tcp, "192.168.132.1:0"))).unwrap();
    assert_eq!(desired.counts(), (1, 0));
}

#[test]
fn a_flush_takes_all_services_and_leaves_timeouts_and_settings() {
    let mut desired = state_with(&[1, 2]);
    make(&mut desired, &add_service(service(1))).unwrap();
    make(&mut desired, &Change::TimeoutsSet(TimeoutsSet { udp: Some(7), ..TimeoutsSet::default() })).unwrap();
    let plan = make(&mut desired, &Change::ServiceFlush(ServiceFlush {})).unwrap();
    assert_eq!((plan.changes.len(), desired.counts()), (2, (0, 0)));
    assert_eq!(desired.timeouts(), Timeouts { udp: 7, ..Timeouts::default() });
    assert!(make(&mut desired, &Change::ServiceFlush(ServiceFlush {})).unwrap().is_empty());
}

#[test]
fn timeouts_and_settings_change_what_is_named_and_make_a_revision_only_then() {
    let mut desired = Desired::new(BOUNDS);
    let set = Change::TimeoutsSet(TimeoutsSet { tcp: Some(0), tcp_fin: Some(5), udp: None });
    let plan = make(&mut desired, &set).unwrap();
    assert_eq!(plan.changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["~ timeouts tcp_fin 5"]);
    assert_eq!((desired.timeouts().tcp, desired.timeouts().tcp_fin, desired.revision()), (900, 5, 1));
    assert!(make(&mut desired, &set).unwrap().is_empty());

    let edit = SettingsEdit::default().with("expire_nodest_conn", "1").unwrap();
    let plan = make(&mut desired, &Change::SettingsSet(edit.clone())).unwrap();
    assert_eq!(plan.changes, [Change::SettingsSet(edit)]);
    assert!(desired.settings().expire_nodest_conn);
    assert_eq!(desired.revision(), 2);

    let leave = Change::Apply(Apply::default());
    assert!(make(&mut desired, &leave).unwrap().is_empty(), "what a set does not name stays");
    let all = Apply {
        timeouts: Some(Timeouts::default()),
        settings: Some(Settings::default()),
        marks: Some(Vec::new()),
        ..Apply::default()
    };
    assert_eq!(make(&mut desired, &Change::Apply(all)).unwrap().changes.len(), 2);
    assert_eq!((desired.timeouts(), desired.settings()), (Timeouts::default(), Settings::default()));
}

#[test]
fn only_a_tunnel_crosses_families() {
    let mut desired = state_with(&[]);
    let far = |method| {
        let destination = DestinationSpec { method, ..DestinationSpec::new("fd00::64".parse().unwrap()) };
        Change::DestinationAdd(DestinationAdd { service: key(254, 80), destination })
    };
    for method in [Method::Direct, Method::Masquerade] {
        assert_eq!(make(&mut desired, &far(method)).unwrap_err().code().1, "EINVAL");
    }
    make(&mut desired, &far(Method::Tunnel(Tunnel::default()))).unwrap();
    let edit = DestinationEdit {
        method: Some(Method::Masquerade),
        ..DestinationEdit::of(key(254, 80), "fd00::64".parse().unwrap())
    };
    assert_eq!(make(&mut desired, &Change::DestinationEdit(edit)).unwrap_err().code().1, "EINVAL");
}

#[test]
fn a_masqueraded_destination_has_a_port_of_its_own_and_a_method_may_be_edited() {
    let mut desired = state_with(&[]);
    let destination = DestinationSpec {
        method: Method::Masquerade,
        ..DestinationSpec::new("10.0.0.1:8080".parse().unwrap())
    };
    let add = Change::DestinationAdd(DestinationAdd { service: key(254, 80), destination });
    assert!(make(&mut desired, &add).unwrap().notes.is_empty());
    let edit = DestinationEdit {
        method: Some(Method::Direct),
        ..DestinationEdit::of(key(254, 80), destination.address)
    };
    make(&mut desired, &Change::DestinationEdit(edit)).unwrap();
    let held = desired.service(key(254, 80)).unwrap().destinations[0];
    assert_eq!((held.method, held.server), (Method::Direct, "10.0.0.1:8080".parse().unwrap()));
}

fn rule(mark: u32, to: &str) -> MarkRule {
    MarkRule { destination: Some(to.parse().unwrap()), ..MarkRule::all(mark) }
}

#[test]
fn mark_rules_are_kept_in_order_each_once() {
    let mut desired = Desired::new(BOUNDS);
    let (first, second, third) = (rule(1, "10.0.0.0/8"), rule(2, "10.1.0.0/16"), rule(0, "10.1.1.0/24"));
    for added in [&first, &second, &third] {
        make(&mut desired, &Change::MarkRuleAdd(added.clone())).unwrap();
    }
    assert_eq!(desired.marks().to_vec(), [first.clone(), second.clone(), third.clone()]);
    let again = make(&mut desired, &Change::MarkRuleAdd(second.clone())).unwrap_err();
    assert_eq!(again.code(), ("exists", "EEXIST"));

    let wanted = vec![first.clone(), third.clone(), second.clone()];
    let apply = Apply { marks: Some(wanted.clone()), ..Apply::default() };
    let plan = make(&mut desired, &Change::Apply(apply)).unwrap();
    let small = [Change::MarkRuleDelete(second.clone()), Change::MarkRuleAdd(second.clone())];
    assert_eq!(plan.changes, small);
    assert_eq!(desired.marks().to_vec(), wanted);

    make(&mut desired, &Change::MarkRuleDelete(third.clone())).unwrap();
    assert_eq!(desired.marks().to_vec(), [first, second]);
    assert_eq!(make(&mut desired, &Change::MarkRuleDelete(third)).unwrap_err().code().1, "ENOENT");
    let ports = MarkRule { destination_ports: Some("80".parse().unwrap()), ..MarkRule::all(1) };
    assert_eq!(make(&mut desired, &Change::MarkRuleAdd(ports)).unwrap_err().code().1, "EINVAL");
    let many: Vec<_> = (0..=MARK_RULES_MAX).map(|mark| MarkRule::all(u32::try_from(mark).unwrap())).collect();
    let full = make(&mut desired, &Change::Apply(Apply { marks: Some(many), ..Apply::default() }));
    assert_eq!(full.unwrap_err().code().1, "ENOMEM");
}

#[test]
fn a_mark_names_a_service_of_each_family() {
    let mut desired = Desired::new(BOUNDS);
    for family in [Family::Ipv4, Family::Ipv6] {
        let key = ServiceKey::Mark { mark: 3.try_into().unwrap(), family };
        make(&mut desired, &add_service(ServiceSpec::new(key, Scheduler::Wrr))).unwrap();
        let ours = if family == Family::Ipv4 { "10.0.0.1:80" } else { "fd00::1" };
        let theirs = if family == Family::Ipv4 { "fd00::1" } else { "10.0.0.1" };
        let add = |address: &str| {
            let destination = DestinationSpec::new(address.parse().unwrap());
            Change::DestinationAdd(DestinationAdd { service: key, destination })
        };
        assert!(
            make(&mut desired, &add(ours)).unwrap().notes.is_empty(),
            "a mark's destinations have any port"
        );
        assert_eq!(make(&mut desired, &add(theirs)).unwrap_err().code().1, "EINVAL");
    }
    assert_eq!(desired.counts(), (2, 2));
}

#[test]
fn applying_the_same_set_twice_makes_no_new_revision_and_a_dry_run_makes_none() {
    let mut desired = state_with(&[1, 2]);
    let target = Apply { services: vec![service(5)], ..Apply::default() };
    let before = desired.revision();
    let plan = make(&mut desired, &Change::Apply(Apply { dry_run: true, ..target.clone() })).unwrap();
    assert_eq!(plan.changes.len(), 2);
    assert_eq!(desired.revision(), before);
    make(&mut desired, &Change::Apply(target.clone())).unwrap();
    assert_eq!(desired.revision(), before + 1);
    let again = make(&mut desired, &Change::Apply(target)).unwrap();
    assert!(again.is_empty());
    assert_eq!(desired.revision(), before + 1);
}

#[test]
fn untouched_services_are_shared_not_copied() {
    let mut desired = state_with(&[1]);
    make(&mut desired, &add_service(service(1))).unwrap();
    let untouched = std::sync::Arc::clone(desired.service(key(1, 80)).unwrap());
    let target = Apply { services: vec![service(1), service(2)], ..Apply::default() };
    make(&mut desired, &Change::Apply(target)).unwrap();
    assert!(std::sync::Arc::ptr_eq(&untouched, desired.service(key(1, 80)).unwrap()));
}

/// A change to one of four services with one of six servers; many are refused, which is the point.
fn any_change() -> impl Strategy<Value = Change> {
    let weight = 0_u32..4;
    prop_oneof![
        (1_u8..5).prop_map(|s| add_service(service(s))),
        (1_u8..5).prop_map(|s| Change::ServiceDelete(ServiceDelete { service: key(s, 80) })),
        (0_u8..1).prop_map(|_| Change::ServiceFlush(ServiceFlush {})),
        ((1_u8..5), 0_usize..4, prop::option::of(0_u32..3), prop::option::of(any::<bool>())).prop_map(
            |(s, scheduler, persistent, clamp)| {
                Change::ServiceEdit(ServiceEdit {
                    scheduler: Some(Scheduler::ALL[scheduler]),
                    persistent,
                    mss_clamp: clamp.map(|on| if on { 536 } else { 0 }),
                    ..ServiceEdit::of(key(s, 80))
                })
            }
        ),
        ((1_u8..5), (1_u8..7)).prop_map(|(s, d)| add_destination(s, d)),
        ((1_u8..5), (1_u8..7)).prop_map(|(s, d)| add_destination(s, d)),
        ((1_u8..5), (1_u8..7)).prop_map(|(s, d)| delete_destination(s, d)),
        ((1_u8..5), (1_u8..7), weight, prop::option::of(0_u32..3), prop::option::of(0_u32..3)).prop_map(
            |(s, d, weight, upper_threshold, lower_threshold)| {
                Change::DestinationEdit(DestinationEdit {
                    weight: Some(weight),
                    upper_threshold,
                    lower_threshold,
                    ..edit_destination(s, d)
                })
            }
        ),
    ]
}

/// (service, scheduler, persistent, destinations newest first), the least that can be right.
type Model = Vec<(ServiceKey, Scheduler, u32, Vec<DestinationSpec>)>;

fn model_step(model: &mut Model, change: &Change) -> bool {
    let at = |model: &Model, wanted: ServiceKey| model.iter().position(|entry| entry.0 == wanted);
    match change {
        Change::ServiceAdd(add) => {
            let free = at(model, add.service.key).is_none();
            if free {
                model.push((add.service.key, add.service.scheduler, add.service.persistent, Vec::new()));
            }
            free
        }
        Change::ServiceDelete(delete) => at(model, delete.service).map(|place| model.remove(place)).is_some(),
        Change::ServiceEdit(edit) => at(model, edit.service).is_some_and(|place| {
            model[place].1 = edit.scheduler.unwrap_or(model[place].1);
            model[place].2 = edit.persistent.unwrap_or(model[place].2);
            true
        }),
        Change::DestinationAdd(add) => at(model, add.service).is_some_and(|place| {
            let list = &mut model[place].3;
            let free = list.iter().all(|held| held.address.ip != add.destination.address.ip);
            if free {
                list.insert(0, add.destination);
            }
            free
        }),
        Change::DestinationDelete(delete) => at(model, delete.service).is_some_and(|place| {
            let list = &mut model[place].3;
            let found = list.iter().position(|held| held.address.ip == delete.address.ip);
            found.map(|index| list.remove(index)).is_some()
        }),
        Change::DestinationEdit(edit) => at(model, edit.service).is_some_and(|place| {
            let list = &mut model[place].3;
            let Some(held) = list.iter_mut().find(|held| held.address.ip == edit.address.ip) else {
                return false;
            };
            let mut next = *held;
            next.weight = edit.weight.unwrap_or(next.weight);
            next.upper_threshold = edit.upper_threshold.unwrap_or(next.upper_threshold);
            next.lower_threshold = edit.lower_threshold.unwrap_or(next.lower_threshold);
            let good = next.lower_threshold <= next.upper_threshold;
            if good {
                *held = next;
            }
            good
        }),
        Change::ServiceFlush(_) => {
            model.clear();
            true
        }
        Change::TimeoutsSet(_)
        | Change::SettingsSet(_)
        | Change::MarkRuleAdd(_)
        | Change::MarkRuleDelete(_)
        | Change::Apply(_) => false,
    }
}

fn comparable(desired: &Desired) -> Vec<(ServiceKey, Scheduler, u32, Vec<DestinationSpec>)> {
    desired
        .services()
        .map(|held| {
            let newest_first = held.destinations.iter().map(|destination| {
                let mut spec = destination.to_spec();
                spec.address.port = None;
                spec
            });
            (held.key, held.scheduler, held.to_spec().persistent, newest_first.collect())
        })
        .collect()
}

fn after(changes: &[Change]) -> Desired {
    let mut desired = Desired::new(BOUNDS);
    for change in changes {
        let _refused = make(&mut desired, change);
    }
    desired
}

/// A few rules, each at most once, in any order.
fn any_rules() -> impl Strategy<Value = Vec<MarkRule>> {
    let all: Vec<_> = (0_u32..7).map(MarkRule::all).collect();
    prop::sample::subsequence(all, 0..7).prop_shuffle()
}

proptest! {
    #[test]
    fn mark_rules_become_what_a_set_says_by_small_changes(from in any_rules(), to in any_rules()) {
        let set = |marks| Change::Apply(Apply { marks: Some(marks), ..Apply::default() });
        let mut applied = Desired::new(BOUNDS);
        make(&mut applied, &set(from.clone())).unwrap();
        let mut stepped = Desired::new(BOUNDS);
        make(&mut stepped, &set(from)).unwrap();
        for change in make(&mut applied, &set(to.clone())).unwrap().changes {
            make(&mut stepped, &change).map_err(|refusal| TestCaseError::fail(format!("{change}: {refusal}")))?;
        }
        prop_assert_eq!(applied.marks().to_vec(), &to[..]);
        prop_assert_eq!(stepped.marks().to_vec(), to);
    }

    #[test]
    fn random_edits_agree_with_the_model(changes in prop::collection::vec(any_change(), 0..60)) {
        let mut desired = Desired::new(BOUNDS);
        let mut model = Model::new();
        for change in &changes {
            let before = desired.revision();
            let made = make(&mut desired, change);
            prop_assert_eq!(made.is_ok(), model_step(&mut model, change), "{}", change);
            let moved = made.is_ok_and(|plan| !plan.is_empty());
            prop_assert_eq!(desired.revision(), before + u64::from(moved));
            model.sort_by_key(|entry| entry.0);
            prop_assert_eq!(comparable(&desired), model.clone());
            let destinations: usize = model.iter().map(|entry| entry.3.len()).sum();
            prop_assert_eq!(desired.counts(), (model.len(), destinations));
        }
    }

    #[test]
    fn an_applied_set_and_its_small_changes_both_lead_to_the_target(
        from in prop::collection::vec(any_change(), 0..60),
        to in prop::collection::vec(any_change(), 0..60),
    ) {
        let mut applied = after(&from);
        let target = after(&to).to_specs();
        let plan = make(&mut applied, &Change::Apply(Apply { services: target.clone(), ..Apply::default() })).unwrap();
        prop_assert_eq!(&applied.to_specs(), &target);
        let mut stepped = after(&from);
        for change in &plan.changes {
            make(&mut stepped, change).map_err(|refusal| TestCaseError::fail(format!("{change}: {refusal}")))?;
        }
        prop_assert_eq!(stepped.to_specs(), target);
    }
}
