//! The mirror against the real kernel, with a twin whose frames a peer's kernel answers; need root.

use super::apply::{Applier, Prefix, RouteEntry};
use super::routes::Verdict;
use super::{Mirror, MirrorEvent, MirrorOptions, MirrorPort, NetworkView};
use crate::twin::testing::{
    Knobs, MAC, Namespace, PEER_MAC, PORT, Wire, attempt, eventually, in_namespaces, peer_tap, run, twin,
};
use crate::twin::{ExceptionHandle, ExceptionOptions, ExceptionThread};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(3);

type Events = Arc<Mutex<Vec<MirrorEvent>>>;

struct Lab {
    thread: Option<ExceptionHandle>,
    knobs: Arc<Knobs>,
}

impl Lab {
    /// A twin `eth0` without addresses, connected to a peer with 192.168.132.64 and fd00::64.
    fn new(director: &Namespace, peer: &Namespace) -> Self {
        let (path, knobs) = Wire::new(peer_tap(director, peer));
        let thread = ExceptionThread::spawn(path, vec![twin()], ExceptionOptions::default()).unwrap();
        Self { thread: Some(thread), knobs }
    }
}

fn options() -> MirrorOptions {
    MirrorOptions::new(vec![MirrorPort { port: PORT, name: "eth0".into() }])
}

fn mirror(options: &MirrorOptions) -> (Mirror, Events) {
    let events = Events::default();
    let told = Arc::clone(&events);
    let mirror = Mirror::spawn(options, Box::new(move |event| told.lock().unwrap().push(event))).unwrap();
    (mirror, events)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(view: &NetworkView) -> Vec<String> {
    let global = view.addresses.iter().filter(|address| !address.address.to_string().starts_with("fe80"));
    global.map(|address| format!("{}/{}", address.address, address.prefix)).collect()
}

#[test]
fn the_first_view_is_complete() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        run("ip addr add 192.168.132.30/24 dev eth0; ip -6 addr add fd00::30/64 dev eth0 nodad");
        run("ip route add default via 192.168.132.1; ip route add 10.9.0.0/16 via 192.168.132.64 mtu 1400");
        run("ip neigh add 192.168.132.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent");
        run(
            "ip route add unreachable 10.8.0.0/16; ip link add other type veth peer name rehto; ip link set other up; ip link set rehto up",
        );
        run("ip addr add 172.16.0.1/24 dev other");
        // The kernel adds the local route of an IPv6 address some moments after the address.
        eventually("the IPv6 address is whole", SOON, || {
            run("ip -6 route show table local").contains("fd00::30")
        });
        let (mirror, _) = mirror(&options());
        let view = mirror.view();
        let link = &view.links[&PORT];
        assert_eq!(
            (link.name.as_str(), link.up, link.running, link.mac, link.mtu),
            ("eth0", true, true, MAC, 1500)
        );
        assert_eq!(addresses(&view), ["192.168.132.30/24", "fd00::30/64"]);
        for (destination, via) in [
            ("192.168.132.64", Some("192.168.132.64")),
            ("8.8.8.8", Some("192.168.132.1")),
            ("10.9.1.1", Some("192.168.132.64")),
            ("fd00::64", Some("fd00::64")),
            ("10.8.1.1", None),
            ("172.16.0.9", None),
            ("192.168.132.30", None),
            ("fd01::1", None),
        ] {
            assert_eq!(view.next_hop(ip(destination)).map(|hop| hop.via), via.map(ip), "{destination}");
        }
        assert_eq!(view.next_hop(ip("10.9.1.1")).unwrap().mtu, Some(1400));
        assert_eq!(view.next_hop(ip("192.168.132.64")).unwrap().prefsrc, Some(ip("192.168.132.30")));
        for (address, local) in [
            ("192.168.132.30", true),
            ("fd00::30", true),
            ("172.16.0.1", true),
            ("127.0.0.1", true),
            ("8.8.8.8", false),
        ] {
            assert_eq!(view.is_local(ip(address)), local, "{address}");
        }
        assert_eq!(view.mac_of(PORT, ip("192.168.132.77")), Some([2, 0, 0, 0, 0, 0x77]));
        assert_eq!(mirror.stats().malformed, 0);
    });
}

#[test]
fn a_next_hop_resolves_within_ten_milliseconds() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        run("ip addr add 192.168.132.30/24 dev eth0; ip -6 addr add fd00::30/64 dev eth0 nodad");
        for last in 100..120 {
            peer.run(&format!("ip addr add 192.168.132.{last}/24 dev lan0"));
        }
        let (mirror, _) = mirror(&options());
        let mut wanted = std::collections::BTreeSet::new();
        let mut took = Vec::new();
        for last in 100..120 {
            let address = ip(&format!("192.168.132.{last}"));
            wanted.insert((PORT, address));
            let started = Instant::now();
            mirror.want(wanted.clone());
            eventually("the next hop resolves", SOON, || {
                mirror.view().mac_of(PORT, address) == Some(PEER_MAC)
            });
            took.push(started.elapsed());
        }
        took.sort();
        println!("kept: median {:?}, worst {:?}", took[took.len() / 2], took[took.len() - 1]);
        assert!(took[took.len() / 2] < Duration::from_millis(10), "{took:?}");
        wanted.insert((PORT, ip("fd00::64")));
        mirror.want(wanted.clone());
        eventually("IPv6 resolves", SOON, || mirror.view().mac_of(PORT, ip("fd00::64")) == Some(PEER_MAC));
        eventually("it is counted", SOON, || mirror.stats().usable == 21);
        assert!(run("ip neigh show dev eth0").lines().filter(|line| line.contains("managed")).count() >= 21);

        let started = Instant::now();
        assert!(mirror.resolve_once(PORT, ip("192.168.132.64")));
        eventually("on demand", SOON, || mirror.view().mac_of(PORT, ip("192.168.132.64")).is_some());
        println!("on demand: {:?}", started.elapsed());

        mirror.want(Default::default());
        eventually("all are let go", SOON, || !run("ip neigh show dev eth0").contains("managed"));
    });
}

#[test]
fn a_host_that_appears_late_is_found_within_two_seconds() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        run("ip addr add 192.168.132.30/24 dev eth0");
        let (mirror, _) = mirror(&options());
        let address = ip("192.168.132.99");
        mirror.want([(PORT, address)].into());
        // Three probes a second apart, then FAILED, then asked again every second.
        std::thread::sleep(Duration::from_millis(4_500));
        assert!(
            mirror.stats().asked >= 2 && mirror.view().mac_of(PORT, address).is_none(),
            "{:?}",
            mirror.stats()
        );
        // Silent: no gratuitous ARP announces it.
        peer.run("ip addr add 192.168.132.99/24 dev lan0");
        let took = eventually("it is found", SOON, || mirror.view().mac_of(PORT, address) == Some(PEER_MAC));
        println!("found after {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    });
}

#[test]
fn the_twin_going_down_and_up_loses_nothing_for_good() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        run("ip addr add 192.168.132.30/24 dev eth0; ip route add 10.9.0.0/16 via 192.168.132.64");
        let (mirror, _) = mirror(&options());
        mirror.want([(PORT, ip("192.168.132.64"))].into());
        let usable = || mirror.view().mac_of(PORT, ip("192.168.132.64")).is_some();
        eventually("it resolves", SOON, usable);
        run("ip link set eth0 down");
        eventually("down is seen", SOON, || {
            let view = mirror.view();
            !view.links[&PORT].up && view.next_hop(ip("192.168.132.64")).is_none() && !usable()
        });
        run("ip link set eth0 up");
        let took = eventually("it resolves again", SOON, || {
            usable() && mirror.view().next_hop(ip("192.168.132.64")).is_some()
        });
        println!("usable {took:?} after `ip` returned");
        // The kernel does not bring users' routes back, and neither may the mirror.
        assert!(mirror.view().next_hop(ip("10.9.0.1")).is_none());
        assert!(took < Duration::from_millis(200), "{took:?}");
    });
}

#[test]
fn the_carrier_going_and_coming_is_followed() {
    in_namespaces(|director, peer| {
        let lab = Lab::new(director, peer);
        run("ip addr add 192.168.132.30/24 dev eth0; ip route add 10.9.0.0/16 via 192.168.132.64");
        let (mirror, _) = mirror(&options());
        mirror.want([(PORT, ip("192.168.132.64"))].into());
        let usable = || mirror.view().mac_of(PORT, ip("192.168.132.64")).is_some();
        eventually("it resolves", SOON, usable);
        lab.knobs.age_ms.store(10_000, Relaxed);
        eventually("the carrier is gone", SOON, || !mirror.view().links[&PORT].running && !usable());
        lab.knobs.age_ms.store(0, Relaxed);
        eventually("all is back", SOON, || {
            mirror.view().links[&PORT].running && usable() && mirror.view().next_hop(ip("10.9.0.1")).is_some()
        });
    });
}

#[test]
fn an_operators_new_address_and_mtu_are_told() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        let (mirror, events) = mirror(&options());
        run("ip link set eth0 mtu 1400");
        let told = |mac: [u8; 6], mtu: u32| {
            events.lock().unwrap().iter().any(|event| {
                matches!(event, MirrorEvent::TwinChanged { port: PORT, mac: now, mtu: size } if (*now, *size) == (mac, mtu))
            })
        };
        eventually("the MTU is told", SOON, || told(MAC, 1400));
        run("ip link set eth0 address 02:00:00:00:00:99");
        eventually("the address is told", SOON, || told([2, 0, 0, 0, 0, 0x99], 1400));
        assert_eq!(mirror.view().links[&PORT].mtu, 1400);
    });
}

#[test]
fn setting_an_alias_never_shows_a_withdrawn_address() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        run("ifconfig eth0 192.168.132.30/24 up");
        let (mirror, events) = mirror(&options());
        let vip = ip("192.168.132.254");
        let alias = "ifconfig eth0:0 192.168.132.254 broadcast 192.168.132.254 netmask 255.255.255.255 up";
        let listed = |view: &NetworkView| view.addresses.iter().any(|address| address.address == vip);
        for _ in 0..20 {
            run(alias);
            run("route add -host 192.168.132.254 dev eth0:0");
            eventually("the VIP shows", SOON, || mirror.view().is_local(vip) && listed(&mirror.view()));
            // Set again over the present one: the same dance of removals and additions.
            run(alias);
            std::thread::sleep(Duration::from_millis(80));
            let views: Vec<Arc<NetworkView>> = std::mem::take(&mut *events.lock().unwrap())
                .into_iter()
                .filter_map(|event| if let MirrorEvent::View(view) = event { Some(view) } else { None })
                .collect();
            let shown = views.iter().position(|view| view.is_local(vip)).unwrap();
            assert!(views[shown..].iter().all(|view| view.is_local(vip) && listed(view)));
            assert!(addresses(&mirror.view()).contains(&"192.168.132.254/32".to_owned()));
            run("ifconfig eth0:0 down");
            eventually("the VIP goes", SOON, || !mirror.view().is_local(vip) && !listed(&mirror.view()));
            events.lock().unwrap().clear();
        }
    });
}

#[test]
fn an_overrun_is_noticed_and_read_over() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        run("ip addr add 192.168.132.30/24 dev eth0");
        // A receiver that dawdles, and room for a few messages only.
        let dawdle = Box::new(|_| std::thread::sleep(Duration::from_millis(10)));
        let mirror = Mirror::spawn(&MirrorOptions { receive_buffer: 4096, ..options() }, dawdle).unwrap();
        mirror.want([(PORT, ip("192.168.132.64"))].into());
        let add: String = (0..5_000)
            .map(|at| format!("route add 10.{}.{}.0/24 via 192.168.132.64\n", at / 250, at % 250))
            .collect();
        let file = format!("/tmp/uvs-routes-{}", std::process::id());
        std::fs::write(&file, add).unwrap();
        run(&format!("ip -batch {file}"));
        std::fs::remove_file(&file).unwrap();
        run("ip route del 10.7.7.0/24");
        eventually("all routes are there", SOON, || {
            let view = mirror.view();
            let tens = view
                .routes
                .main()
                .filter(|route| route.prefix == 24 && route.destination != ip("192.168.132.0"));
            tens.count() == 4_999 && view.next_hop(ip("10.7.7.7")).is_none()
        });
        assert_eq!(mirror.view().next_hop(ip("10.19.249.9")).unwrap().via, ip("192.168.132.64"));
        eventually("the next hop stays resolved", SOON, || {
            mirror.view().mac_of(PORT, ip("192.168.132.64")).is_some()
        });
        let stats = mirror.stats();
        println!("{stats:?}");
        assert!(stats.overruns > 0 && stats.malformed == 0, "{stats:?}");
    });
}

#[test]
fn a_lost_mark_is_asked_back_and_a_static_neighbour_is_left_alone() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        run("ip addr add 192.168.132.30/24 dev eth0");
        run("ip neigh add 192.168.132.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent");
        let (mirror, _) = mirror(&options());
        mirror.want([(PORT, ip("192.168.132.64")), (PORT, ip("192.168.132.77"))].into());
        let shown = |address: &str| run(&format!("ip neigh show {address} dev eth0"));
        eventually("it is kept", SOON, || shown("192.168.132.64").contains("managed"));
        run("ip neigh replace 192.168.132.64 lladdr 02:00:00:00:00:64 dev eth0 nud reachable");
        eventually("it is kept again", SOON, || shown("192.168.132.64").contains("managed"));
        assert!(mirror.resolve_once(PORT, ip("192.168.132.77")));
        run("ip neigh flush dev eth0");
        eventually("it is kept after a flush", SOON, || shown("192.168.132.64").contains("managed"));
        assert!(shown("192.168.132.77").contains("PERMANENT"), "{}", shown("192.168.132.77"));
        mirror.want(Default::default());
        eventually("it is let go", SOON, || !shown("192.168.132.64").contains("managed"));
        assert!(shown("192.168.132.77").contains("PERMANENT"), "{}", shown("192.168.132.77"));
    });
}

#[test]
fn a_twin_that_is_made_anew_is_found_again() {
    in_namespaces(|director, peer| {
        let mut lab = Lab::new(director, peer);
        run("ip addr add 192.168.132.30/24 dev eth0");
        let (mirror, events) = mirror(&options());
        mirror.want([(PORT, ip("192.168.132.64"))].into());
        let usable = || mirror.view().mac_of(PORT, ip("192.168.132.64")).is_some();
        eventually("it resolves", SOON, usable);
        let (path, twins) = lab.thread.take().unwrap().stop().unwrap();
        drop(twins);
        eventually("it is gone", SOON, || {
            let view = mirror.view();
            view.links.is_empty()
                && view.addresses.is_empty()
                && !usable()
                && !view.is_local(ip("192.168.132.30"))
        });
        run("ip link add eth1 type veth peer name eth2");
        lab.thread = Some(ExceptionThread::spawn(path, vec![twin()], ExceptionOptions::default()).unwrap());
        run("ip addr add 192.168.132.30/24 dev eth0");
        eventually("it resolves again", SOON, || usable() && mirror.view().is_local(ip("192.168.132.30")));
        let replaced = |event: &MirrorEvent| matches!(event, MirrorEvent::TwinReplaced { port: PORT });
        assert_eq!(events.lock().unwrap().iter().filter(|event| replaced(event)).count(), 1);
        run("ip link set eth0 down; ip link set eth0 name up0; ip link set up0 up");
        eventually("a renamed twin stays a twin", SOON, || {
            mirror.view().links.get(&PORT).is_some_and(|link| link.name == "up0" && link.up) && usable()
        });
    });
}

#[test]
fn macvlans_count_as_the_ports_own() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        let (mirror, _) = mirror(&options());
        run("ip link add vrrp.51 link eth0 address 00:00:5e:00:01:33 type macvlan mode private");
        run("ip link set vrrp.51 up; ip addr add 192.168.132.254/32 dev vrrp.51");
        eventually("its address is the port's", SOON, || {
            let view = mirror.view();
            view.links[&PORT].extra_macs == [[0, 0, 0x5e, 0, 1, 0x33]]
                && addresses(&view).contains(&"192.168.132.254/32".to_owned())
        });
        run("ip link del vrrp.51");
        eventually("it goes", SOON, || {
            let view = mirror.view();
            view.links[&PORT].extra_macs.is_empty() && addresses(&view).is_empty()
        });
    });
}

#[test]
fn several_ways_share_the_flows_by_weight() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        run("ip addr add 192.168.132.30/24 dev eth0; ip -6 addr add fd00::30/64 dev eth0 nodad");
        let (mirror, _) = mirror(&options());
        run("ip route add 10.0.0.0/8 nexthop via 192.168.132.1 weight 1 nexthop via 192.168.132.2 weight 3");
        run("ip -6 route add fd01::/64 nexthop via fd00::1 nexthop via fd00::2");
        run("ip -6 route append fd01::/64 via fd00::3");
        run("ip route add 11.0.0.0/8 via inet6 fd00::64");
        let ways = |to: &str| {
            let view = mirror.view();
            let Verdict::Forward(route) = view.routes.ask(ip(to)) else { return 0 };
            view.ways(&route, ip(to)).filter(|(choice, _)| choice.is_some()).count()
        };
        eventually("the ways are there", SOON, || {
            (ways("10.0.0.1"), ways("fd01::1"), ways("11.0.0.1")) == (2, 3, 1)
        });
        let view = mirror.view();
        let second = (0..1_000_u32)
            .map(|flow| {
                let hash = flow.wrapping_mul(0x9e37_79b9) >> 1;
                view.next_hop_of_flow(ip("10.0.0.1"), hash).unwrap().via
            })
            .filter(|via| *via == ip("192.168.132.2"))
            .count();
        assert!((700..800).contains(&second), "{second}");
        assert_eq!(view.next_hop(ip("11.0.0.1")).unwrap().via, ip("fd00::64"));
        run("ip -6 route del fd01::/64 via fd00::1; ip route replace 10.0.0.0/8 via 192.168.132.9");
        eventually("one less, and one instead", SOON, || {
            ways("fd01::1") == 2 && mirror.view().next_hop(ip("10.0.0.1")).unwrap().via == ip("192.168.132.9")
        });
    });
}

#[test]
fn what_the_configuration_names_is_applied_twice_alike() {
    in_namespaces(|director, peer| {
        let _lab = Lab::new(director, peer);
        let prefixes =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Prefix>>();
        let own = prefixes(&["192.168.132.30/24", "fd00::30/64"]);
        let virtuals = prefixes(&["192.168.132.254", "fd00::254/128"]);
        let route = |to: &str, via: Option<&str>| RouteEntry { to: to.parse().unwrap(), via: via.map(ip) };
        let routes = [
            route("0.0.0.0/0", Some("192.168.132.1")),
            route("10.1.2.3/8", Some("192.168.132.64")),
            route("172.16.0.0/12", None),
            route("::/0", Some("fd00::1")),
            route("11.0.0.0/8", Some("fd00::64")),
        ];
        let mut applier = Applier::open("eth0").unwrap();
        for _ in 0..2 {
            applier.addresses(&own).unwrap();
            applier.routes(&routes).unwrap();
            applier.neighbours(&[(ip("192.168.132.77"), [2, 0, 0, 0, 0, 0x77])]).unwrap();
            applier.virtual_addresses(&virtuals).unwrap();
        }
        assert!(run("ip addr show eth0").contains("inet 192.168.132.30/24 brd 192.168.132.255"));
        let (mirror, _) = mirror(&options());
        let view = mirror.view();
        assert_eq!(
            addresses(&view),
            ["192.168.132.30/24", "192.168.132.254/32", "fd00::30/64", "fd00::254/128"]
        );
        assert!(
            view.addresses
                .iter()
                .all(|address| !address.tentative || address.address.to_string().contains("fe80"))
        );
        for (to, via) in
            [("8.8.8.8", "192.168.132.1"), ("10.200.0.1", "192.168.132.64"), ("2001:db8::1", "fd00::1")]
        {
            assert_eq!(view.next_hop(ip(to)).unwrap().via, ip(via));
        }
        assert_eq!(view.next_hop(ip("172.16.5.5")).unwrap().via, ip("172.16.5.5"));
        assert_eq!(view.mac_of(PORT, ip("192.168.132.77")), Some([2, 0, 0, 0, 0, 0x77]));
        applier.remove_virtual_addresses(&virtuals).unwrap();
        applier.remove_virtual_addresses(&virtuals).unwrap();
        eventually("they are gone", SOON, || {
            addresses(&mirror.view()) == ["192.168.132.30/24", "fd00::30/64"]
        });

        let error = applier.routes(&[route("10.2.0.0/16", Some("1.2.3.4"))]).unwrap_err().to_string();
        assert!(error.contains("10.2.0.0/16 via 1.2.3.4 on eth0") && error.contains("router"), "{error}");
        let error = applier
            .addresses(&prefixes(&["0.0.0.0/0", "255.255.255.255/32"]))
            .err()
            .map(|error| error.to_string());
        println!("{error:?}");
        let error = Applier::open("eth7").unwrap_err().to_string();
        assert!(error.contains("eth7") && error.contains("No such device"), "{error}");
        let (ok, _) = attempt("ip link show eth0");
        assert!(ok);
    });
}
