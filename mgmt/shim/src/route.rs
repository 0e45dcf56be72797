//! Whose is a generic-netlink message: uvsd's, or the kernel's because it is about another family?

use crate::table::Side;

/// As many bytes of a datagram as are looked at.
pub(crate) const HEAD: usize = 256;

const NLMSG_HEADER: usize = 16;
const GENL_HEADER: usize = 4;
/// Message type of the family that knows the families, `nlctrl` (linux/genetlink.h).
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// NLM_F_ROOT and NLM_F_MATCH.
const NLM_F_DUMP: u16 = 0x300;
/// Without the two flag bits.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// Where a datagram that starts with `head` goes, on a socket that talks to `now`.
///
/// Only looking up a family by its name changes sides: every other message follows the look-up that went before it. A
/// dump of all families is answered by uvsd, which knows of IPVS and `nlctrl`: the kernel's would show its own IPVS.
pub(crate) fn of(head: &[u8], now: Side) -> Side {
    if !is_for_families(head) || head.get(NLMSG_HEADER) != Some(&CTRL_CMD_GETFAMILY) {
        return now;
    }
    if field(head, 6).is_some_and(|flags| flags & NLM_F_DUMP == NLM_F_DUMP) {
        return Side::Director;
    }
    match family_name(head.get(NLMSG_HEADER + GENL_HEADER..).unwrap_or_default()) {
        Some(b"IPVS" | b"nlctrl") => Side::Director,
        Some(_) => Side::Kernel,
        None => now,
    }
}

/// Whether a message is for the family that knows the families.
pub(crate) fn is_for_families(header: &[u8]) -> bool {
    field(header, 4) == Some(GENL_ID_CTRL)
}

fn field(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]))
}

/// The name without its NUL; `None` where there is none or it is malformed.
fn family_name(mut attributes: &[u8]) -> Option<&[u8]> {
    loop {
        let length = usize::from(field(attributes, 0)?);
        let value = attributes.get(4..length)?;
        if field(attributes, 2)? & ATTRIBUTE_TYPE == CTRL_ATTR_FAMILY_NAME {
            return value.split(|byte| *byte == 0).next();
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A look-up with these attributes, as libnl makes it.
    fn look_up(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; 4];
        message.extend(GENL_ID_CTRL.to_ne_bytes());
        message.extend([0; 10]);
        message.extend([CTRL_CMD_GETFAMILY, 1, 0, 0]);
        for (kind, value) in attributes {
            message.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(*value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        message
    }

    #[test]
    fn looking_up_ipvs_leads_to_the_director_from_either_side() {
        for now in [Side::Director, Side::Kernel] {
            assert_eq!(of(&look_up(&[(2, b"IPVS\0")]), now), Side::Director);
            assert_eq!(of(&look_up(&[(2, b"IPVS")]), now), Side::Director);
            assert_eq!(of(&look_up(&[(1, &[0x10, 0]), (2, b"IPVS\0")]), now), Side::Director);
            assert_eq!(of(&look_up(&[(2, b"nlctrl\0")]), now), Side::Director);
        }
    }

    #[test]
    fn looking_up_another_family_leads_to_the_kernel() {
        for name in [b"nl80211\0".as_slice(), b"wireguard\0", b"ethtool", b"IPVSX\0", b"ipvs\0", b"\0", b""] {
            assert_eq!(of(&look_up(&[(2, name)]), Side::Director), Side::Kernel, "{name:?}");
        }
    }

    #[test]
    fn a_dump_of_all_families_is_the_directors() {
        for mut dump in [look_up(&[]), look_up(&[(2, b"wireguard\0")])] {
            dump[6..8].copy_from_slice(&0x301_u16.to_ne_bytes());
            assert_eq!(of(&dump, Side::Kernel), Side::Director);
        }
    }

    #[test]
    fn anything_else_stays_where_the_socket_is() {
        let mut other = look_up(&[(2, b"IPVS\0")]);
        other[4] = 0x1f;
        for now in [Side::Director, Side::Kernel] {
            assert_eq!(of(&other, now), now);
            assert_eq!(of(&look_up(&[(1, &[0x15, 0])]), now), now, "by its number");
            assert_eq!(of(&[], now), now);
            assert_eq!(of(&[0; 17], now), now);
        }
    }

    #[test]
    fn cut_and_mutated_messages_are_only_ever_a_side() {
        let whole = look_up(&[(7, b"abc"), (2, b"wireguard\0")]);
        for length in 0..whole.len() {
            let _side = of(&whole[..length], Side::Director);
        }
        let mut state = 1_u32;
        for _ in 0..100_000 {
            let mut bent = whole.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = usize::try_from(state >> 8).unwrap() % bent.len();
                bent[at] = u8::try_from(state >> 24).unwrap();
            }
            let _side = of(&bent, Side::Kernel);
        }
    }
}
