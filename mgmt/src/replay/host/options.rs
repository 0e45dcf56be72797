//! IPv4 options, as Linux checks them on the way in (RFC 791, RFC 1122 3.2.1.8).

/// Where the options begin in a packet.
const FIRST: u8 = 20;
const END: u8 = 0;
const NOTHING: u8 = 1;
const RECORD_ROUTE: u8 = 7;
const TIMESTAMP: u8 = 0x44;
const LOOSE_ROUTE: u8 = 0x83;
const STRICT_ROUTE: u8 = 0x89;

/// What becomes of a packet for its options' sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Options {
    /// Nothing.
    Right,
    /// Its sender is told which octet of the packet is wrong.
    Wrong(u8),
    /// It is dropped: it chooses its own way.
    Refused,
}

/// Checks the options of a packet.
pub(super) fn check(options: &[u8]) -> Options {
    let (mut at, mut seen, mut routed) = (0, Vec::new(), false);
    while let Some(kind) = options.get(at).copied() {
        if kind == END {
            break;
        }
        if kind == NOTHING {
            at += 1;
            continue;
        }
        let rest = &options[at..];
        let wrong =
            |place: usize| Options::Wrong(FIRST.saturating_add(u8::try_from(at + place).unwrap_or(u8::MAX)));
        let length = match rest.get(1).map(|length| usize::from(*length)) {
            Some(length) if length >= 2 && length <= rest.len() => length,
            _ => return wrong(0),
        };
        let class = if kind == STRICT_ROUTE { LOOSE_ROUTE } else { kind };
        if matches!(class, RECORD_ROUTE | TIMESTAMP | LOOSE_ROUTE) {
            if let Some(place) = broken(class, &rest[..length]) {
                return wrong(place);
            }
            if seen.contains(&class) {
                return wrong(0);
            }
            seen.push(class);
            routed |= class == LOOSE_ROUTE;
        }
        at += length;
    }
    if routed { Options::Refused } else { Options::Right }
}

/// The octet of an option with a pointer that is wrong.
fn broken(kind: u8, option: &[u8]) -> Option<usize> {
    let shortest = if kind == TIMESTAMP { 4 } else { 3 };
    if option.len() < shortest {
        return Some(1);
    }
    let (pointer, length) = (usize::from(option[2]), option.len());
    let first = if kind == TIMESTAMP { 5 } else { 4 };
    if pointer < first {
        return Some(2);
    }
    if pointer > length {
        // Full: the overflow counter may be, too.
        return (kind == TIMESTAMP && option[3] >> 4 == 15).then_some(3);
    }
    let needed = match (kind, option.get(3).map(|flags| flags & 15)) {
        (TIMESTAMP, Some(1 | 3)) => 7,
        _ => 3,
    };
    (kind != LOOSE_ROUTE && pointer + needed > length).then_some(2)
}

#[cfg(test)]
mod tests {
    use super::{Options, check};
    use crate::replay::trace::from_hex;
    use proptest::prelude::*;

    /// Asked of a real kernel.
    #[test]
    fn options_as_the_kernel_checks_them() {
        for (options, place) in [
            ("070604010203040000000000", 22),
            ("070204010203040000000000", 21),
            ("070703010203040000000000", 22),
            ("070705010203040000000000", 22),
            ("07070400000000070704000000000000", 27),
            ("440809f00000000000000000", 23),
            ("440804000000000000000000", 22),
            ("070b0400", 20),
        ] {
            assert_eq!(check(&from_hex(options).unwrap()), Options::Wrong(place), "{options}");
        }
        for options in ["01010101", "070b0400000000000000000000", "440805000000000000000000", ""] {
            assert_eq!(check(&from_hex(options).unwrap()), Options::Right, "{options}");
        }
        for options in ["830704c0a80a0300", "890704c0a80a0300", "830708c0a80a0300"] {
            assert_eq!(check(&from_hex(options).unwrap()), Options::Refused, "{options}");
        }
    }

    proptest! {
        #[test]
        fn any_options_are_checked(options in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = check(&options);
        }
    }
}
