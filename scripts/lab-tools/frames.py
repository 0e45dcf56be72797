#!/usr/bin/env python3
"""Compares, byte by byte, what a client sent with what the real servers received.

    frames.py DIRECTOR_MAC CLIENT.pcap SERVER_MAC=SERVER.pcap...

Every frame that the client sent to the director's MAC must have arrived at exactly one real server, as often as it was
sent, with the same bytes but: the destination MAC is the server's, the source MAC is the director's, the TTL (hop
limit) is one less and, in IPv4, the header checksum is right for that. Frames that did not come from the director are
left aside. Prints what was compared; exit status 1 and the first difference otherwise.

The order is not compared: a client on two CPUs hands its frames to the capture in another order than to the wire.
"""

import collections
import struct
import sys


def frames(path):
    """The frames in a classic pcap file."""
    with open(path, "rb") as file:
        data = file.read()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    offset = 24
    while offset + 16 <= len(data):
        captured, length = struct.unpack_from(order + "II", data, offset + 8)
        if captured != length:
            sys.exit(f"{path}: of a frame of {length} bytes only {captured} were captured")
        yield data[offset + 16 : offset + 16 + captured]
        offset += 16 + captured


def mac(text):
    return bytes(int(part, 16) for part in text.split(":"))


def is_ipv4(frame):
    return frame[12:14] == b"\x08\x00"


def checksum_is_right(frame):
    header = frame[14 : 14 + (frame[14] & 15) * 4]
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def ttl_offset(frame):
    return 22 if is_ipv4(frame) else 21


def masked(frame):
    """The frame without what a director in VS/DR may change."""
    out = bytearray(frame)
    out[0:12] = bytes(12)
    out[ttl_offset(frame)] = 0
    if is_ipv4(frame):
        out[24:26] = bytes(2)
    return bytes(out)


def is_fragment(frame):
    if is_ipv4(frame):
        return struct.unpack_from(">H", frame, 20)[0] & 0x3FFF != 0
    return frame[20] == 44


def kind(frame):
    """What is printed in the summary; None for what a director does not forward (neighbour discovery, ping)."""
    version, protocol = ("IPv4", frame[23]) if is_ipv4(frame) else ("IPv6", frame[20])
    if is_fragment(frame):
        return version + " fragments"
    return {6: f"{version} TCP", 17: f"{version} UDP"}.get(protocol)


def flow(frame):
    """Addresses and ports, or addresses and identification of a fragmented datagram."""
    if is_ipv4(frame):
        ports_at = 14 + (frame[14] & 15) * 4
        return frame[26:34] + (frame[18:20] if is_fragment(frame) else frame[ports_at : ports_at + 4])
    return frame[22:54] + (frame[58:62] if is_fragment(frame) else frame[54:58])


def forwarded_kinds(path):
    return (f for f in frames(path) if f[12:14] in (b"\x08\x00", b"\x86\xdd") and kind(f))


def compare(was, became):
    """Ends the program when the director changed what it may not."""
    place = f"a frame of {len(was)} bytes ({kind(was)})"
    if became[ttl_offset(was)] != was[ttl_offset(was)] - 1:
        sys.exit(f"{place}: TTL {was[ttl_offset(was)]} became {became[ttl_offset(was)]}")
    if is_ipv4(became) and not checksum_is_right(became):
        sys.exit(f"{place}: wrong IP header checksum after the director")


def main():
    director = mac(sys.argv[1])
    sent = collections.defaultdict(list)
    for frame in forwarded_kinds(sys.argv[2]):
        if frame[0:6] == director:
            sent[flow(frame)].append(frame)
    received = collections.defaultdict(list)
    for argument in sys.argv[3:]:
        server, path = argument.split("=", 1)
        for frame in forwarded_kinds(path):
            if frame[6:12] == director:
                if frame[0:6] != mac(server):
                    sys.exit(f"{path}: a frame from the director is addressed to {frame[0:6].hex(':')}")
                received[flow(frame)].append(frame)
    for extra in received.keys() - sent.keys():
        sys.exit(f"{len(received[extra])} frames arrived that nobody sent: {received[extra][0].hex()}")
    counts = collections.Counter()
    lost = 0
    for name, before in sent.items():
        waiting = collections.defaultdict(list)
        for frame in before:
            waiting[masked(frame)].append(frame)
        for became in received[name]:
            if not waiting[masked(became)]:
                sys.exit(f"a frame arrived that was not sent, or not so often ({kind(became)}): {became.hex()}")
            was = waiting[masked(became)].pop(0)
            compare(was, became)
            counts[kind(was)] += 1
        # What a receive ring lost before the director saw it; TCP sent it again.
        lost += len(before) - len(received[name])
    total = sum(counts.values())
    if lost * 100 > total:
        sys.exit(f"{lost} of {total + lost} frames did not arrive: more than a busy machine's rings lose")
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    print(f"{len(sent)} flows: {kinds}" + (f"; {lost} lost on the way" if lost else ""))


main()
