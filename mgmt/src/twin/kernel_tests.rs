//! Twins and the exception thread against the real kernel; need root.

use super::testing::{MAC, PORT, Wire, attempt, eventually, in_namespaces, peer_tap, run, twin};
use super::{ExceptionOptions, ExceptionThread, RateLimit, Silence, Twin, TwinConfig, TwinError};
use dataplane::id::PortId;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(3);

fn config(name: &str, mtu: u32) -> TwinConfig {
    TwinConfig { port: PortId(1), name: name.into(), mac: MAC, mtu }
}

#[test]
fn a_twin_looks_as_asked_and_goes_with_its_owner() {
    in_namespaces(|_, _| {
        let twin = Twin::create(config("eth0", 1600)).unwrap();
        let link = run("ip -d link show eth0");
        for expected in
            ["02:00:00:00:84:1e", "mtu 1600", "UP,LOWER_UP", "tun type tap pi off vnet_hdr off persist off"]
        {
            assert!(link.contains(expected), "{expected}: {link}");
        }
        drop(twin);
        assert!(!attempt("ip link show eth0").0);
    });
}

#[test]
fn a_name_in_use_is_refused_with_the_mend() {
    in_namespaces(|_, _| {
        let _twin = twin();
        run("ip link add nic0 type veth peer name nic1; ip tuntap add dev left mode tap");
        for taken in ["eth0", "nic0", "left"] {
            let error = Twin::create(config(taken, 1500)).unwrap_err();
            assert!(matches!(error, TwinError::Taken { .. }), "{error}");
            assert!(error.to_string().contains("rename it"), "{error}");
        }
        let error = Twin::create(config("low", 20)).unwrap_err();
        assert!(matches!(error, TwinError::Property { .. }) && error.to_string().contains("MTU"), "{error}");
        assert!(!attempt("ip link show low").0, "a refused twin stays behind");
    });
}

#[test]
fn a_missing_capability_is_named() {
    in_namespaces(|_, _| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        let error = Twin::create(config("eth0", 1500)).unwrap_err();
        sets.effective.insert(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        assert!(matches!(error, TwinError::NotPermitted { .. }), "{error}");
    });
}

#[test]
fn arp_and_ping_are_answered_through_the_twin() {
    in_namespaces(|director, peer| {
        let (path, knobs) = Wire::new(peer_tap(director, peer));
        let thread = ExceptionThread::spawn(path, vec![twin()], ExceptionOptions::default()).unwrap();
        run("ip addr add 192.168.132.30/24 dev eth0; ip -6 addr add fd00::30/64 dev eth0 nodad");
        let arping = peer.run("arping -c 3 -I lan0 192.168.132.30");
        assert!(arping.contains("02:00:00:00:84:1e"), "{arping}");
        println!("{}", peer.run("ping -c 5 -i 0.05 192.168.132.30").lines().last().unwrap());
        peer.run("ping -6 -c 3 -i 0.05 fd00::30");
        run("ping -c 3 -i 0.05 192.168.132.64");
        let stats = thread.stats().snapshot();
        assert!(stats.to_kernel.control >= 4 && stats.to_kernel.local >= 11, "{stats:?}");
        assert!(stats.from_kernel >= 11 && stats.bucket_refused.total() == 0, "{stats:?}");

        let started = Instant::now();
        let (path, twins) = thread.stop().unwrap();
        assert!(started.elapsed() < Duration::from_millis(50), "{:?}", started.elapsed());
        assert_eq!((twins.len(), knobs.age_ms.load(Relaxed)), (1, 0));
        drop((path, twins));
        assert!(!attempt("ip link show eth0").0);
    });
}

#[test]
fn a_stray_flood_is_held_to_its_rate_and_leaves_arp_and_ping_alone() {
    in_namespaces(|director, peer| {
        let (path, knobs) = Wire::new(peer_tap(director, peer));
        let stray = RateLimit { per_second: 2_000, burst: 100 };
        let options = ExceptionOptions { stray, ..ExceptionOptions::default() };
        let thread = ExceptionThread::spawn(path, vec![twin()], options).unwrap();
        run("ip addr add 192.168.132.30/24 dev eth0");
        let started = Instant::now();
        knobs.stray_flood.store(u64::MAX / 2, Relaxed);
        peer.run("ping -c 20 -i 0.05 -W 1 192.168.132.30");
        peer.run("arping -c 1 -I lan0 192.168.132.30");
        knobs.stray_flood.store(0, Relaxed);
        let seconds = started.elapsed().as_secs_f64();
        let drained = knobs.drained.load(Relaxed);
        let stats = thread.stats().snapshot();
        let allowed = 100.0 + 2_000.0 * seconds;
        println!("{seconds:.2} s: {drained} drained, {stats:?}");
        assert!((stats.to_kernel.stray as f64) <= allowed, "{} of {allowed}", stats.to_kernel.stray);
        assert!((stats.to_kernel.stray as f64) >= allowed * 0.8, "{} of {allowed}", stats.to_kernel.stray);
        assert!(stats.bucket_refused.stray > 10_000 && stats.bucket_refused.control == 0, "{stats:?}");
        let fates = stats.to_kernel.total() + stats.bucket_refused.total() + stats.tap_full + stats.tap_down;
        assert!(fates.abs_diff(drained) < 1_000, "{fates} {drained}");
        let (path, _) = thread.stop().unwrap();
        drop(path);
    });
}

#[test]
fn a_standing_worker_costs_the_carrier_until_it_moves() {
    in_namespaces(|director, peer| {
        let (path, knobs) = Wire::new(peer_tap(director, peer));
        let thread = ExceptionThread::spawn(path, vec![twin()], ExceptionOptions::default()).unwrap();
        let lower_up = || run("ip link show eth0").contains("LOWER_UP");
        knobs.age_ms.store(400, Relaxed);
        std::thread::sleep(Duration::from_millis(150));
        assert!(lower_up());
        knobs.age_ms.store(501, Relaxed);
        let took = eventually("carrier drops", SOON, || !lower_up());
        assert!(took < Duration::from_millis(200), "{took:?}");
        assert!(thread.stats().snapshot().carrier_down);
        knobs.age_ms.store(3, Relaxed);
        eventually("carrier returns", SOON, lower_up);
        let stats = thread.stats().snapshot();
        assert_eq!((stats.carrier_down, stats.carrier_drops), (false, 1));
    });
}

#[test]
fn frames_longer_than_the_port_takes_are_counted() {
    in_namespaces(|director, peer| {
        let (path, _knobs) = Wire::new(peer_tap(director, peer));
        let thread = ExceptionThread::spawn(path, vec![twin()], ExceptionOptions::default()).unwrap();
        run("ip addr add 192.168.132.30/24 dev eth0; ip link set eth0 mtu 9000; ping -c 1 192.168.132.64");
        assert!(!attempt("ping -c 2 -i 0.05 -W 0.2 -M do -s 4000 192.168.132.64").0);
        let stats = thread.stats().snapshot();
        assert_eq!((stats.too_long, stats.read), (2, stats.from_kernel + 2), "{stats:?}");
        run("ip link set eth0 mtu 1500; ping -c 1 -s 4000 192.168.132.64");
    });
}

#[test]
fn a_full_inject_ring_makes_the_kernel_wait_and_then_costs_frames() {
    in_namespaces(|director, peer| {
        let (path, knobs) = Wire::new(peer_tap(director, peer));
        let thread = ExceptionThread::spawn(path, vec![twin()], ExceptionOptions::default()).unwrap();
        run("ip addr add 192.168.132.30/24 dev eth0; ping -c 1 192.168.132.64");
        knobs.full.store(true, Relaxed);
        let before = thread.stats().snapshot();
        assert!(!attempt("ping -c 5 -i 0.01 -W 0.1 192.168.132.64").0);
        eventually("frames are given up", SOON, || thread.stats().snapshot().inject_full >= 5);
        let stats = thread.stats().snapshot();
        assert_eq!(stats.from_kernel, before.from_kernel);
        assert!(stats.wake_ups - before.wake_ups < 20_000, "spins: {}", stats.wake_ups - before.wake_ups);
        knobs.full.store(false, Relaxed);
        run("ping -c 3 -i 0.01 -W 1 192.168.132.64");
        eventually("nothing is in flight", SOON, || {
            let stats = thread.stats().snapshot();
            stats.read == stats.from_kernel + stats.inject_full + stats.too_long
        });
    });
}

#[test]
fn nothing_to_do_costs_little_whether_the_twin_is_up_or_down() {
    in_namespaces(|director, peer| {
        let (path, knobs) = Wire::new(peer_tap(director, peer));
        let thread = ExceptionThread::spawn(path, vec![twin()], ExceptionOptions::default()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        for state in ["up", "down"] {
            run(&format!("ip link set eth0 {state}"));
            let before = thread.stats().snapshot().wake_ups;
            std::thread::sleep(Duration::from_millis(500));
            let turns = thread.stats().snapshot().wake_ups - before;
            println!("{state}: {turns} turns in 0.5 s");
            assert!(turns < 1_000, "{state}: {turns} turns in 0.5 s");
        }
        knobs.stray_flood.store(10, Relaxed);
        eventually("frames for a twin that is down are counted", SOON, || {
            thread.stats().snapshot().tap_down >= 10
        });
    });
}

#[test]
fn a_deleted_twin_is_made_anew() {
    in_namespaces(|director, peer| {
        let (path, _knobs) = Wire::new(peer_tap(director, peer));
        let thread = ExceptionThread::spawn(path, vec![twin()], ExceptionOptions::default()).unwrap();
        run("ip link delete eth0");
        let before = thread.stats().snapshot().wake_ups;
        eventually("the twin is back", SOON, || thread.stats().snapshot().twins_remade == 1);
        assert!(thread.stats().snapshot().wake_ups - before < 4_000);
        run("ip addr add 192.168.132.30/24 dev eth0; ping -c 1 192.168.132.64");
        assert_eq!(thread.stop().unwrap().1.first().map(|twin| twin.config().port), Some(PORT));
    });
}

#[test]
fn an_interface_is_silenced_and_let_go() {
    in_namespaces(|_, peer| {
        run(
            "ip link add nic0 type veth peer name nic1; ip link set nic0 up; ip addr add 10.0.0.1/24 dev nic0",
        );
        run(&format!("ip link set nic1 netns {}", peer.name()));
        peer.run("sh -c 'ip link set nic1 up; ip addr add 10.0.0.2/24 dev nic1'");
        peer.run("ping -c 1 -W 1 10.0.0.1");
        let silent = || !attempt(&format!("ip netns exec {} ping -c 1 -W 0.2 10.0.0.1", peer.name())).0;
        let silence = Silence::install("nic0").unwrap();
        assert!(silent());
        let error = Silence::install("nic0").unwrap_err().to_string();
        assert!(error.starts_with("another uvsd already works on nic0"), "{error}");
        silence.remove().unwrap();
        // As a director that was killed leaves it.
        run("nft add table netdev uvs_nic0");
        let silence = Silence::install("nic0").unwrap();
        assert_eq!(run("nft list tables").trim(), "table netdev uvs_nic0");
        assert!(silent());
        silence.remove().unwrap();
        assert_eq!(run("nft list tables").trim(), "");
        assert!(!silent());
        drop(Silence::install("nic0").unwrap());
        assert!(!silent());
        let error = Silence::install("nic7").unwrap_err().to_string();
        assert_eq!(error, "silencing nic7: there is no such interface");
    });
}
