//! Many services added one by one, as a script of ipvsadm commands does: no change costs more because there are others.

use super::*;
use crate::address::{Endpoint, Protocol};
use crate::config::Neighbour;
use crate::desired::{DestinationAdd, DestinationSpec, Scheduler, ServiceAdd, ServiceSpec};
use crate::protocol::{Request, Response, ServicePageQuery};
use dataplane::engine::SharedLimits;
use std::time::{Duration, Instant};

const SERVICES: u32 = 1_000;
const EACH: u8 = 5;

fn key(number: u32) -> ServiceKey {
    let [_, _, high, low] = number.to_be_bytes();
    let address = Endpoint { ip: [192, 0, high, low].into(), port: 80 };
    ServiceKey::Address { protocol: Protocol::Tcp, address }
}

fn server(number: u32, last: u8) -> Server {
    let [_, _, high, low] = number.to_be_bytes();
    Server { ip: [10, high, low, last].into(), port: None }
}

fn lab() -> (Management, Shared) {
    let (services, destinations) = (SERVICES * 2, SERVICES * 2 * u32::from(EACH));
    let address = "10.255.255.254/8".parse().unwrap();
    let neighbours = vec![Neighbour { address: [10, 0, 0, 1].into(), mac: crate::address::Mac([4; 6]) }];
    let tables = Tables { addresses: vec![address], routes: Vec::new(), neighbours };
    let port = Port { name: "eth0".into(), mac: [2; 6], mtu: 1500, tables: Some(tables) };
    let shared = SharedLimits {
        workers: 4,
        services: services as usize,
        destinations: destinations as usize,
        templates: 64,
    };
    let management = Management::new(Limits { services, destinations }, Network::new(vec![port]));
    (management, Shared::new(shared, 1))
}

/// How long each change took.
struct Times(Vec<Duration>);

impl Times {
    fn median(&self, range: std::ops::Range<usize>) -> Duration {
        let mut times = self.0[range].to_vec();
        times.sort();
        times[times.len() / 2]
    }
}

#[test]
fn a_thousand_services_one_by_one_and_their_listing() {
    let (mut management, shared) = lab();
    let mut times = Times(Vec::new());
    // Workers still use the last one, so that what it shares cannot be changed in place.
    let mut last = management.snapshot();
    let mut change = |management: &mut Management, change: &Change| {
        let start = Instant::now();
        management.change(change, &shared).unwrap();
        last = management.snapshot();
        management.published(&shared);
        times.0.push(start.elapsed());
    };
    for number in 0..SERVICES {
        let service = ServiceSpec::new(key(number), Scheduler::Wlc);
        change(&mut management, &Change::ServiceAdd(ServiceAdd { service }));
        for last in 1..=EACH {
            let destination = DestinationSpec::new(server(number, last));
            let add = DestinationAdd { service: key(number), destination };
            change(&mut management, &Change::DestinationAdd(add));
        }
    }
    assert_eq!(last.index.len(), SERVICES as usize);
    let tenth = times.0.len() / 10;
    let (first, late) = (times.median(0..tenth), times.median(times.0.len() - tenth..times.0.len()));
    let all: Duration = times.0.iter().sum();
    println!("{} changes: {all:?}; median first {first:?}, last {late:?}", times.0.len());
    // Far from what growing with the number of services would make of it: a hundredfold.
    assert!(late < first * 8 + Duration::from_micros(200), "{first:?} {late:?}");

    let view = View { shared: &shared, tables: &[], now: Ticks(0) };
    let start = Instant::now();
    let listed = management.answer(&Request::ServiceList(ServicePageQuery::default()), &view).unwrap();
    let listing = start.elapsed();
    let Response::Services(page) = listed else { panic!("{listed:?}") };
    let destinations: usize = page.services.iter().map(|service| service.destinations.len()).sum();
    assert_eq!(
        (page.services.len(), destinations),
        (SERVICES as usize, SERVICES as usize * usize::from(EACH))
    );
    let start = Instant::now();
    management.tick_rates(0, &shared);
    management.tick_rates(2_000, &shared);
    let rates = start.elapsed();
    println!("listing {destinations} destinations: {listing:?}; a look at their rates: {rates:?}");
    let bound = Duration::from_millis(if cfg!(debug_assertions) { 1_000 } else { 100 });
    assert!(listing < bound && rates < bound, "{listing:?} {rates:?}");
}
