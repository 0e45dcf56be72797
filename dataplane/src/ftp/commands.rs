//! What is said on a control connection. A line that a segment cuts in two is not understood, as by the kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// PASV: the server is to name an address and port.
    Passive,
    /// EPSV: the server is to name a port.
    ExtendedPassive,
    /// PORT, EPRT: the server is to connect to this end.
    Active(IpAddr, u16),
}

/// What a server announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Its address, where the answer names one.
    pub(crate) address: Option<Ipv4Addr>,
    /// Its port.
    pub(crate) port: u16,
    /// Where in the text the six numbers of a 227 are.
    pub(crate) numbers: Range<usize>,
}

/// Whether a text begins with `word`, in capitals or not.
fn begins(text: &[u8], word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
}

/// A decimal number at the start of a text, of at most five digits, and what follows it.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take(5).take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits).filter(|(number, _)| !number.is_empty())?;
    Some((number.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')), rest))
}

/// Six numbers of a byte each with commas between them: address and port. Also how long they are.
fn six_numbers(text: &[u8]) -> Option<(Ipv4Addr, u16, usize)> {
    let mut numbers = [0_u8; 6];
    let mut rest = text;
    for (index, place) in numbers.iter_mut().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(b",")?;
        }
        let (value, after) = number(rest)?;
        *place = u8::try_from(value).ok()?;
        rest = after;
    }
    let [a, b, c, d, high, low] = numbers;
    let port = u16::from_be_bytes([high, low]);
    (port != 0).then_some((Ipv4Addr::new(a, b, c, d), port, text.len() - rest.len()))
}

/// `|1|10.1.0.5|51210|` of EPRT, `|||40000|` of 229; any mark may stand for the strokes. The parts between the first three.
fn extended(text: &[u8]) -> Option<(&[u8], &[u8], u16)> {
    let (mark, rest) = text.split_first().filter(|(mark, _)| mark.is_ascii_graphic())?;
    let mut parts = rest.splitn(4, |byte| byte == mark);
    let (family, address, port) = (parts.next()?, parts.next()?, parts.next()?);
    let closed = parts.next().is_some();
    let (port, after) = number(port)?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    (closed && after.is_empty()).then_some((family, address, port))
}

/// What a client's text asks for.
pub(crate) fn asked(text: &[u8], v6: bool) -> Option<Asked> {
    for at in 0..text.len() {
        let Some(rest) = text.get(at..) else { break };
        if !v6 && begins(rest, "PASV\r\n") {
            return Some(Asked::Passive);
        }
        if begins(rest, "EPSV\r") {
            return Some(Asked::ExtendedPassive);
        }
        if begins(rest, "EPSV ") {
            let own = if v6 { b'2' } else { b'1' };
            return (rest.get(5) == Some(&own) && rest.get(6) == Some(&b'\r'))
                .then_some(Asked::ExtendedPassive);
        }
    }
    if !v6 && begins(text, "PORT ") {
        let rest = &text[5..];
        let (address, port, length) = six_numbers(rest)?;
        return matches!(rest.get(length), Some(b'\r' | b'\n'))
            .then_some(Asked::Active(address.into(), port));
    }
    if begins(text, "EPRT ") {
        let (family, address, port) = extended(&text[5..])?;
        let address: IpAddr = std::str::from_utf8(address).ok()?.parse().ok()?;
        let named = if address.is_ipv4() { b"1" } else { b"2" };
        return (family == named && address.is_ipv6() == v6).then_some(Asked::Active(address, port));
    }
    None
}

/// What a server's text announces in answer to PASV, or to EPSV.
pub(crate) fn announced(text: &[u8], extended_passive: bool) -> Option<Announced> {
    if !begins(text, if extended_passive { "229 " } else { "227 " }) {
        return None;
    }
    let open = text.iter().position(|byte| *byte == b'(')? + 1;
    let rest = text.get(open..)?;
    if extended_passive {
        let (_, _, port) = extended(rest)?;
        return Some(Announced { address: None, port, numbers: 0..0 });
    }
    let (address, port, length) = six_numbers(rest)?;
    (rest.get(length) == Some(&b')')).then_some(Announced {
        address: Some(address),
        port,
        numbers: open..open + length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clients_ask() {
        let v4 = |address: &str, port| Some(Asked::Active(address.parse().unwrap(), port));
        for (text, expected) in [
            ("PASV\r\n", Some(Asked::Passive)),
            ("pasv\r\n", Some(Asked::Passive)),
            ("EPSV\r\n", Some(Asked::ExtendedPassive)),
            ("EPSV 1\r\n", Some(Asked::ExtendedPassive)),
            ("EPSV 2\r\n", None),
            ("EPSV ALL\r\n", None),
            ("PORT 10,1,0,5,200,10\r\n", v4("10.1.0.5", 51_210)),
            ("port 10,1,0,5,200,12\r\n", v4("10.1.0.5", 51_212)),
            ("PORT 10,1,0,5,200\r\n", None),
            ("PORT 10,1,0,256,200,10\r\n", None),
            ("PORT 10,1,0,5,200,10", None),
            ("EPRT |1|10.1.0.5|51211|\r\n", v4("10.1.0.5", 51_211)),
            ("EPRT !1!10.1.0.5!51211!\r\n", v4("10.1.0.5", 51_211)),
            ("EPRT |2|10.1.0.5|51211|\r\n", None),
            ("EPRT |1|10.1.0.5|0|\r\n", None),
            ("EPRT |1|10.1.0.5|70000|\r\n", None),
            ("NOOP\r\n", None),
            ("", None),
        ] {
            assert_eq!(asked(text.as_bytes(), false), expected, "{text:?}");
        }
        assert_eq!(asked(b"EPRT |2|2001:db8:1::5|51211|\r\n", true), v4("2001:db8:1::5", 51_211));
        assert_eq!(asked(b"PORT 10,1,0,5,200,10\r\n", true), None);
        assert_eq!(asked(b"EPSV 2\r\n", true), Some(Asked::ExtendedPassive));
    }

    #[test]
    fn servers_announce() {
        let text = b"227 Entering Passive Mode (192,168,10,3,156,64).\r\n";
        let found = announced(text, false).unwrap();
        assert_eq!((found.address, found.port), (Some(Ipv4Addr::new(192, 168, 10, 3)), 40_000));
        assert_eq!(&text[found.numbers], b"192,168,10,3,156,64");
        assert_eq!(announced(text, true), None);
        let found = announced(b"229 Entering Extended Passive Mode (|||40001|)\r\n", true).unwrap();
        assert_eq!((found.address, found.port), (None, 40_001));
        for text in [
            "227 yes",
            "227 (1,2,3,4,5,6",
            "227 (1,2,3,4,0,0)",
            "229 (|||0|)",
            "229 (||)",
            "229 (|||40001)",
            "230 (|||1|)",
        ] {
            assert_eq!(
                (announced(text.as_bytes(), false), announced(text.as_bytes(), true)),
                (None, None),
                "{text}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 2048 })
        })]

        #[test]
        fn nothing_panics(text in "(PORT |EPRT |EPSV |PASV|227 |229 )?[0-9,|(). \r\nA-Z]{0,60}", v6: bool) {
            let _ = asked(text.as_bytes(), v6);
            if let Some(found) = announced(text.as_bytes(), v6) {
                prop_assert!(found.numbers.end <= text.len() && found.port != 0);
            }
        }
    }
}
