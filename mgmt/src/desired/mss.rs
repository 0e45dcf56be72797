//! A service's MSS clamp as it is written.

use super::{Family, Refusal, ServiceKey};
use crate::address::Protocol;
use dataplane::packet::mss::clamps;

/// The clamp of a service at `key`; 0: none.
///
/// # Errors
///
/// A value that a clamp cannot have, or a service that is not of TCP.
pub(super) fn mss_clamp(key: ServiceKey, written: u16) -> Result<Option<u16>, Refusal> {
    if written == 0 {
        return Ok(None);
    }
    if let ServiceKey::Address { protocol: Protocol::Udp | Protocol::Sctp, .. } = key {
        return Err(Refusal::MssAlone(key));
    }
    let family = key.family();
    if clamps(family == Family::Ipv6).contains(&written) {
        Ok(Some(written))
    } else {
        Err(Refusal::MssClamp(written, family))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Scheduler, Service, ServiceEdit, ServiceSpec};
    use super::*;

    fn key(protocol: Protocol, address: &str) -> ServiceKey {
        ServiceKey::Address { protocol, address: address.parse().unwrap() }
    }

    #[test]
    fn a_clamp_is_in_the_range_of_its_family_and_of_tcp() {
        let mark = |family| ServiceKey::Mark { mark: 3.try_into().unwrap(), family };
        for (key, low, high) in [
            (key(Protocol::Tcp, "192.0.2.1:80"), 536, 65_495),
            (key(Protocol::Tcp, "[2001:db8::1]:80"), 1220, 65_475),
            (mark(Family::Ipv4), 536, 65_495),
            (mark(Family::Ipv6), 1220, 65_475),
        ] {
            assert_eq!(mss_clamp(key, 0), Ok(None));
            assert_eq!([low, high].map(|bytes| mss_clamp(key, bytes)), [Ok(Some(low)), Ok(Some(high))]);
            for bytes in [1, low - 1, high + 1, u16::MAX] {
                let refused = mss_clamp(key, bytes).unwrap_err();
                assert_eq!(refused.code(), ("out_of_range", "ERANGE"));
                assert!(refused.to_string().contains(&format!("{low} to {high}")), "{refused}");
            }
        }
        for protocol in [Protocol::Udp, Protocol::Sctp] {
            let refused = mss_clamp(key(protocol, "192.0.2.1:80"), 1400).unwrap_err();
            assert!(refused.to_string().contains("TCP services and of marks"), "{refused}");
            assert_eq!(mss_clamp(key(protocol, "192.0.2.1:80"), 0), Ok(None));
        }
    }

    #[test]
    fn a_service_is_written_as_it_is() {
        let key = key(Protocol::Tcp, "192.0.2.1:80");
        let plain = ServiceSpec::new(key, Scheduler::Rr);
        let spec = ServiceSpec { mss_clamp: 1440, ..plain.clone() };
        assert_eq!(Service::without_destinations(&spec).unwrap().to_spec(), spec);
        assert_eq!(Service::without_destinations(&plain).unwrap().to_spec(), plain);
        let json = serde_json::to_string(&spec).unwrap();
        assert!(json.contains("\"mss_clamp\":1440"), "{json}");
        assert_eq!(serde_json::from_str::<ServiceSpec>(&json).unwrap(), spec);
        assert!(!serde_json::to_string(&plain).unwrap().contains("mss"));
        assert_eq!(spec.to_string(), "tcp 192.0.2.1:80 scheduler rr mss clamp 1440");
        assert!(
            serde_json::from_str::<ServiceEdit>(
                r#"{"service":{"protocol":"tcp","address":"192.0.2.1:80"},"mss_clamp":70000}"#
            )
            .is_err()
        );
    }
}
