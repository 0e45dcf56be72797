#!/usr/bin/env python3
"""The receiving end of tunnels, for kernels without the modules.

    decapsulate.py INTERFACE KIND...     makes the TUN interface and gives it what arrives in tunnels, until it is killed

KIND is ipip, gre or gue:PORT. Like the modules: the outer headers go, the IPv4 packet inside is received on INTERFACE. Left away is
what does not hold together: a GRE checksum that is wrong (the kernel itself sees to UDP's), a packet of another version than 4, or
shorter than its header says.
"""

import fcntl
import os
import select
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 8 << 20
GRE_CHECKSUM = 0x8000
ETHERTYPE_IPV4 = 0x0800


def ipip(packet):
    return packet[(packet[0] & 15) * 4 :]


def gre(packet):
    inside = packet[(packet[0] & 15) * 4 :]
    if len(inside) < 8:
        return b""
    flags, kind = struct.unpack_from(">HH", inside)
    if kind != ETHERTYPE_IPV4 or flags & ~GRE_CHECKSUM:
        return b""
    if not flags & GRE_CHECKSUM:
        return inside[4:]
    padded = inside + b"\0" if len(inside) % 2 else inside
    # The one's complement sum is 0xffff where the number is a multiple of that.
    return inside[8:] if int.from_bytes(padded, "big") % 0xFFFF == 0 else b""


def gue(datagram):
    # Version 0, no control message, IPv4 inside; flags and private data are skipped.
    if len(datagram) < 4 or datagram[0] >> 5 or datagram[1] != socket.IPPROTO_IPIP:
        return b""
    return datagram[4 + (datagram[0] & 31) * 4 :]


def opened(kind):
    name, _, port = kind.partition(":")
    if name == "gue":
        end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        end.bind(("", int(port)))
        unwrap = gue
    else:
        unwrap = {"ipip": ipip, "gre": gre}[name]
        end = socket.socket(socket.AF_INET, socket.SOCK_RAW, {"ipip": socket.IPPROTO_IPIP, "gre": socket.IPPROTO_GRE}[name])
    end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    return end, unwrap


def main():
    tunnel = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tunnel, TUNSETIFF, struct.pack("16sH22x", sys.argv[1].encode(), IFF_TUN | IFF_NO_PI))
    ends = dict(map(opened, sys.argv[2:]))
    print("ready", flush=True)
    while True:
        for end in select.select(list(ends), [], [])[0]:
            inner = ends[end](end.recv(65535))
            if len(inner) >= 20 and inner[0] >> 4 == 4 and len(inner) >= struct.unpack_from(">H", inner, 2)[0]:
                try:
                    os.write(tunnel, inner)
                except OSError:
                    # The interface is down: as on the wire, what comes then is lost.
                    pass


main()
