#!/usr/bin/env python3
"""Checks every length and checksum in captured frames.

    verify.py CAPTURE.pcap...

IPv4 header checksum and length, IPv6 length, TCP, UDP, ICMP and ICMPv6 checksum, UDP length and TCP header length, the same
again for a packet in a packet (IPIP and its kin), and the IPv4 header that an ICMP error quotes. A fragment has only its IP
header checked. Prints what was checked; exit status 1 and the first bad frame otherwise. The capturing host, and whoever sent
to it, must not leave checksums to the NIC.
"""

import collections
import struct
import sys

IPV4, IPV6 = 0x0800, 0x86DD
IPIP, TCP, UDP, IPV6_IN, FRAGMENT, ICMP, ICMPV6 = 4, 6, 17, 41, 44, 1, 58
NAMES = {TCP: "TCP", UDP: "UDP", ICMP: "ICMP", ICMPV6: "ICMPv6"}
# ICMP's errors; what they quote begins after 8 bytes.
ERRORS = {3, 4, 5, 11, 12}

counts = collections.Counter()


class Bad(Exception):
    """What is wrong with a packet."""


def frames(path):
    """The frames of a classic pcap file; a last one that is not whole yet is left away."""
    with open(path, "rb") as file:
        data = file.read()
    offset = 24
    while offset + 16 <= len(data):
        captured, length = struct.unpack_from("<II", data, offset + 8)
        if offset + 16 + captured > len(data):
            return
        if captured != length:
            raise Bad(f"of {length} bytes only {captured} were captured")
        yield data[offset + 16 : offset + 16 + captured]
        offset += 16 + captured


def sums_up(data):
    """True when the one's complement sum of DATA is 0xffff: the number modulo 65535 is that sum."""
    padded = data + b"\0" if len(data) % 2 else data
    return int.from_bytes(padded, "big") % 0xFFFF == 0 and any(padded)


def ipv4(packet):
    header, total = (packet[0] & 15) * 4, struct.unpack_from(">H", packet, 2)[0]
    if header < 20 or total < header or total > len(packet):
        raise Bad(f"IPv4 header of {header}, length {total}, in {len(packet)} bytes")
    if not sums_up(packet[:header]):
        raise Bad("IPv4 header checksum")
    counts["IPv4"] += 1
    if struct.unpack_from(">H", packet, 6)[0] & 0x3FFF:
        counts["fragments"] += 1
        return
    payload(packet[9], packet[12:20], packet[header:total])


def ipv6(packet):
    length = struct.unpack_from(">H", packet, 4)[0]
    if 40 + length > len(packet):
        raise Bad(f"IPv6 length {length} in {len(packet)} bytes")
    counts["IPv6"] += 1
    if packet[6] == FRAGMENT:
        counts["fragments"] += 1
        return
    payload(packet[6], packet[8:40], packet[40 : 40 + length])


def payload(protocol, addresses, data):
    if protocol in (IPIP, IPV6_IN):
        counts["packets in packets"] += 1
        (ipv4 if protocol == IPIP else ipv6)(data)
        return
    if protocol not in NAMES:
        return
    if protocol == TCP and not 20 <= (data[12] >> 4) * 4 <= len(data):
        raise Bad("TCP header length")
    if protocol == UDP:
        length, checksum = struct.unpack_from(">HH", data, 4)
        if length != len(data):
            raise Bad(f"UDP length {length} where {len(data)} bytes are")
        if checksum == 0 and len(addresses) == 8:
            counts["UDP without checksum"] += 1
            return
    pseudo = b"" if protocol == ICMP else addresses + struct.pack(">II", len(data), protocol)
    if not sums_up(pseudo + data):
        raise Bad(f"{NAMES[protocol]} checksum")
    counts[NAMES[protocol]] += 1
    if protocol == ICMP and data[0] in ERRORS:
        quoted = data[8:]
        if len(quoted) < 28 or not sums_up(quoted[: (quoted[0] & 15) * 4]):
            raise Bad("the header that an ICMP error quotes")
        counts["quotes"] += 1


def check(frame):
    kind = struct.unpack_from(">H", frame, 12)[0]
    if kind == IPV4:
        ipv4(frame[14:])
    elif kind == IPV6:
        ipv6(frame[14:])


def main():
    for path in sys.argv[1:]:
        for number, frame in enumerate(frames(path), 1):
            try:
                check(frame)
            except (Bad, IndexError, struct.error) as wrong:
                sys.exit(f"{path}, frame {number}: {wrong}: {frame[:120].hex()}")
    print(", ".join(f"{count:,} {name}" for name, count in counts.most_common()))


main()
