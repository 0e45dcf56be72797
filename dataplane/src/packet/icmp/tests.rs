//! ICMP answers against bytes a Linux director sent, against etherparse, and read back.

use super::*;
use crate::packet::sample::{Random, Sample};
use crate::packet::{HeapPacket, Parsed, parse};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn headers(frame: &[u8]) -> Headers {
    match parse(frame, frame.len(), 1) {
        Parsed::Flow(headers) => headers,
        other => panic!("{other:?}"),
    }
}

fn exceeded(source: IpAddr) -> Answer<'static> {
    Answer { report: Report::TimeExceeded, source, identification: 0, options: &[] }
}

/// What is answered to a frame, as if by its destination.
fn answered(frame: &[u8], report: Report, identification: u16) -> Result<Vec<u8>, Unsent> {
    let headers = headers(frame);
    let source = match headers.family {
        Family::V4 => IpAddr::V4(headers.addresses_v4(frame).1),
        Family::V6 => IpAddr::V6(headers.addresses_v6(frame).1),
    };
    let mut frame = frame.to_vec();
    if matches!(report, Report::TooBig { .. }) {
        // The kernel finds out after it has decremented the TTL.
        let _ = checksum::decrement_ttl(&mut frame, headers.network.into(), headers.family);
    }
    let frame = &frame[..];
    let mut packet = HeapPacket::fresh();
    answer(frame, &headers, &Answer { report, source, identification, options: &[] }, &mut packet)?;
    Ok(packet.data().to_vec())
}

/// Data as the recorded packets carry it.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from((3 + 7 * index) % 256).unwrap()).collect()
}

#[test]
fn time_exceeded_is_the_kernels() {
    let frame = unhex(
        "020000000c010200000000fe08004500002800014000010665660a0100050a00006404000050000003e800000000500220007341 0000",
    );
    let kernels = unhex(
        "0200000000fe020000000c01080045c00044fa7d000040016b120a0000640a0100050b00098400000000\
         4500002800014000010665660a0100050a00006404000050000003e8000000005002200073410000",
    );
    assert_eq!(answered(&frame, Report::TimeExceeded, 0xfa7d).unwrap(), kernels);
}

#[test]
fn an_answer_keeps_the_tos_but_its_precedence() {
    // 184 and 255 as the kernel answered them.
    for (tos, answers) in [(0, 192), (184, 216), (255, 222), (3, 194), (16, 208)] {
        let mut frame = unhex(
            "020000000c010200000000fe08004500002800014000010665660a0100050a00006404000050000003e800000000500220007341 0000",
        );
        frame[15] = tos;
        checksum::fill_header(&mut frame[14..34]);
        let answer = answered(&frame, Report::PortUnreachable, 1).unwrap();
        assert_eq!((answer[15], answer[43]), (answers, tos));
        assert!(checksum::header_valid(&answer[14..34]));
    }
}

#[test]
fn port_unreachable_is_the_kernels() {
    let frame = unhex(
        "020000000c010200000000fe080045000026000f40004011264f0a0100050a000064083600510012471b030a11181f262d343b42",
    );
    let kernels = unhex(
        "0200000000fe020000000c01080045c00042849c00004001e0f50a0000640a0100050303118a00000000\
         45000026000f40004011264f0a0100050a000064083600510012471b030a11181f262d343b42",
    );
    assert_eq!(answered(&frame, Report::PortUnreachable, 0x849c).unwrap(), kernels);
}

#[test]
fn fragmentation_needed_is_the_kernels_with_548_bytes_quoted() {
    let head = "020000000c010200000000fe080045000579093a4000400617dc0a0100050a00006404000050000003e9000007d05018 \
                2000c1fc0000";
    let frame = [unhex(head), pattern(1361)].concat();
    let answer = answered(&frame, Report::TooBig { mtu: 1400 }, 0xdca8).unwrap();
    let kernels = unhex(
        "0200000000fe020000000c01080045c00240dca80000400186eb0a0000640a010005030413d100000578\
         45000579093a40003f0618dc0a0100050a00006404000050000003e9000007d050182000c1fc0000030a1118",
    );
    assert_eq!(answer[..kernels.len()], kernels);
    assert_eq!((answer.len(), &answer[82..]), (590, &pattern(590 - 82)[..]));
}

#[test]
fn ipv6_answers_are_the_kernels_but_for_the_flow_label() {
    let addresses = "20010db800010000000000000000000520010db8000000000000000000000100";
    let back = "20010db800000000000000000000010020010db8000100000000000000000005";
    let link = "020000000c010200000000fe86dd";
    let swapped = "0200000000fe020000000c0186dd";
    let tcp = "04000050000003e9000007d0501820 00";

    let frame = unhex(&format!("{link}6000000000140601{addresses}{tcp}234c0000"));
    let kernels = unhex(&format!(
        "{swapped}6000000000443a40{back}03003a0e000000006000000000140601{addresses}{tcp}234c0000"
    ));
    assert_eq!(answered(&frame, Report::TimeExceeded, 7).unwrap(), kernels);

    let frame = unhex(&format!("{link}6000000000140640{addresses}0bb90051000003e800000000500220 0023790000"));
    let answer = answered(&frame, Report::PortUnreachable, 7).unwrap();
    assert_eq!(answer[54..62], unhex("01043bcb00000000"));

    let frame = [unhex(&format!("{link}6000000005b40640{addresses}{tcp}f8d40000")), pattern(1440)].concat();
    let answer = answered(&frame, Report::TooBig { mtu: 1480 }, 7).unwrap();
    assert_eq!(answer.len(), 1294);
    assert_eq!(answer[18..22], unhex("04d83a40"));
    assert_eq!(answer[54..70], unhex("02009d8b000005c8 6000000005b4063f"));
}

#[test]
fn some_packets_are_never_answered() {
    let good = unhex(
        "020000000c010200000000fe080045000026000f40004011264f0a0100050a000064083600510012471b030a11181f262d343b42",
    );
    let refused = |change: &dyn Fn(&mut [u8])| {
        let mut frame = good.clone();
        change(&mut frame);
        checksum::fill_header(&mut frame[14..34]);
        answered(&frame, Report::PortUnreachable, 0) == Err(Unsent::Forbidden)
    };
    assert!(!refused(&|_| {}));
    for source in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 9], [255; 4]] {
        assert!(refused(&|frame| frame[26..30].copy_from_slice(&source)), "from {source:?}");
    }
    for destination in [[224, 0, 0, 9], [239, 0, 0, 9], [255; 4], [0; 4]] {
        assert!(refused(&|frame| frame[30..34].copy_from_slice(&destination)), "to {destination:?}");
    }
    for (kind, forbidden) in
        [(3, true), (4, true), (5, true), (11, true), (12, true), (8, false), (13, false), (19, true)]
    {
        let icmp = |frame: &mut [u8]| {
            frame[23] = 1;
            frame[34] = kind;
        };
        assert_eq!(refused(&icmp), forbidden, "about ICMP {kind}");
    }
    assert!(refused(&|frame| frame[21] = 5), "about a later fragment");
    assert!(!refused(&|frame| (frame[17], frame[20]) = (0x24, 0x20)), "about a first fragment");
    assert!(refused(&|frame| frame[6] = 3), "to a group of stations");
    let headers = headers(&good);
    let broadcast = [&[0xff; 6], &good[6..]].concat();
    assert!(!may_answer(&broadcast, &headers), "to everybody on the link");
    let mut packet = HeapPacket::fresh();
    let other = answer(&good, &headers, &exceeded(Ipv6Addr::LOCALHOST.into()), &mut packet);
    assert_eq!(other, Err(Unsent::Impossible));
    let mut small = HeapPacket::with_room(&[], 40);
    let source = Ipv4Addr::new(10, 0, 0, 100).into();
    let full = answer(&good, &headers, &exceeded(source), &mut small);
    assert_eq!(full, Err(Unsent::Impossible));
}

#[test]
fn answers_are_well_formed_and_lead_back_to_the_flow() {
    let mut random = Random::new(5);
    let mut sent = 0;
    let count = if cfg!(miri) { 100 } else { 20_000 };
    for _ in 0..count {
        let Sample { mut frame, headers: original } = Sample::new(&mut random);
        // Random addresses are groups now and then.
        if original.family == Family::V6 {
            frame[usize::from(original.network) + 8] = 0xfd;
            frame[usize::from(original.network) + 24] = 0xfd;
        }
        let mtu = u16::from(random.byte()) + 1280;
        let report = [Report::TimeExceeded, Report::PortUnreachable, Report::TooBig { mtu }][random.below(3)];
        let Ok(answer) = answered(&frame, report, 1) else { continue };
        sent += 1;
        let headers = headers(&answer);
        assert!(headers.is_icmp_error() && headers.ttl == 64 && !headers.is_fragment());
        assert_eq!(answer[12..usize::from(headers.network)], frame[12..usize::from(original.network)]);
        assert_eq!(answer.len(), usize::from(headers.network) + headers.ip_length as usize);
        let packet = SlicedPacket::from_ethernet(&answer).unwrap();
        let message = match (packet.net.unwrap(), packet.transport.unwrap()) {
            (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                assert_eq!(checksum::sum(icmp.slice()), 0xffff);
                assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                icmp.slice()
            }
            (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
                icmp.slice()
            }
            other => panic!("{other:?}"),
        };
        assert!(message.len() <= 1240);
        let quoted = quoted(&answer, &headers).unwrap();
        assert_eq!(quoted.key, original.key(&frame));
        assert_eq!((quoted.icmp_type, quoted.icmp_code), (message[0], message[1]));
        assert_eq!(quoted.mtu, if matches!(report, Report::TooBig { .. }) { mtu.into() } else { 0 });
        assert_eq!(quoted.network, headers.transport + 8);
        assert_eq!(quoted.transport - quoted.network, original.header_length());
    }
    assert!(sent > count / 2, "{sent}");
}

#[test]
fn short_quotes_are_enough_down_to_the_ports() {
    // As routers send them: 28 and 24 bytes of the packet.
    let frame = unhex(
        "020000000c010200000000fe0800450000380011000040015d3f0a0909090a0000640304ef4b00000578\
         4500041001f4400032062e8b0a0000640a01000500500400000003e8",
    );
    let read = |quote: usize| {
        let mut cut = frame[..42 + quote].to_vec();
        cut[17] = u8::try_from(28 + quote).unwrap();
        checksum::fill_header(&mut cut[14..34]);
        quoted(&cut, &headers(&cut))
    };
    let expected = Tuple {
        source: Ipv4Addr::new(10, 0, 0, 100),
        destination: Ipv4Addr::new(10, 1, 0, 5),
        source_port: 80,
        destination_port: 1024,
        protocol: 6,
    };
    let found = read(28).unwrap();
    assert_eq!((found.key, found.mtu), (FlowKey::V4(expected), 1400));
    assert_eq!((found.network, found.transport), (42, 62));
    assert_eq!(read(24).unwrap().key, FlowKey::V4(expected));
    for quote in 0..24 {
        assert_eq!(read(quote), None, "{quote}");
    }
    let changed = |at: usize, value: u8| {
        let mut frame = frame.clone();
        frame[at] = value;
        quoted(&frame, &headers(&frame))
    };
    assert_eq!(changed(34, 12), None, "parameter problem is not relayed");
    assert_eq!(changed(34, 5), None, "redirect is not relayed");
    assert_eq!(changed(34, 8), None, "echo request quotes nothing");
    assert_eq!(changed(49, 1), None, "a later fragment has no ports");
    assert_eq!(changed(42, 0x4f), None, "options cover the ports");
    assert_eq!(changed(42, 0x65), None, "not IPv4");
    assert!(changed(34, 11).is_some() && changed(34, 4).is_some());
}

#[test]
fn padding_is_not_part_of_a_quote() {
    let mut frame = unhex(
        "020000000c010200000000fe0800450000300011000040015d3f0a0909090a0000640304ef4b00000578\
         4500041001f4400032062e8b0a0000640a01000500500400000003e8",
    );
    checksum::fill_header(&mut frame[14..34]);
    assert_eq!(quoted(&frame, &headers(&frame)), None);
}
