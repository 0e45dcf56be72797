//! The states and changes that a director is given.

use crate::traffic::Shape;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Parameters of `config.apply` for all services of a shape, every destination of this weight.
pub(super) fn whole(shape: &Shape, weight: u32) -> Value {
    let destinations = |port: u16| -> Vec<Value> {
        (0..shape.destinations)
            .map(|index| json!({ "address": server(shape, index, port), "weight": weight }))
            .collect()
    };
    let service = |index: u32| {
        let address = shape.service(index);
        json!({
            "protocol": shape.protocol.name(),
            "address": address.to_string(),
            "scheduler": "rr",
            "destination": destinations(address.port()),
        })
    };
    json!({ "services": (0..shape.services).map(service).collect::<Vec<_>>() })
}

/// Parameters of `config.apply` for nothing.
pub(super) fn nothing() -> Value {
    json!({ "services": [] })
}

/// Parameters of `destination.edit`: another weight for one destination; ever another one as `number` grows.
pub(super) fn one(shape: &Shape, number: u64) -> Value {
    let service = u32::try_from(number.wrapping_mul(7919) % u64::from(shape.services)).unwrap_or(0);
    let round = number / u64::from(shape.services);
    let index = u16::try_from(round % u64::from(shape.destinations)).unwrap_or(0);
    let address = shape.service(service);
    json!({
        "service": { "protocol": shape.protocol.name(), "address": address.to_string() },
        "address": server(shape, index, address.port()),
        "weight": 10 + round % 1000,
    })
}

fn server(shape: &Shape, index: u16, port: u16) -> String {
    SocketAddr::new(shape.server(index).0, port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{FrameLength, Protocol};

    #[test]
    fn states_have_everything_and_changes_one_thing() {
        let frame = FrameLength::Fixed(64);
        let shape =
            Shape { protocol: Protocol::Udp, ipv6: false, services: 3, destinations: 2, frame, flows: 1 };
        let state = whole(&shape, 2);
        assert_eq!(state["services"].as_array().unwrap().len(), 3);
        assert_eq!(state["services"][2]["destination"][1]["address"], "198.18.0.2:1026");
        let changes: std::collections::HashSet<String> =
            (0..6).map(|number| one(&shape, number).to_string()).collect();
        assert_eq!(changes.len(), 6);
        assert_eq!(one(&shape, 0)["service"]["address"], "198.18.255.254:1024");
    }
}
