#!/usr/bin/env python3
"""The receiving end of IPIP tunnels, for kernels without the ipip module.

    decapsulate.py INTERFACE     makes the TUN interface and gives it what arrives in IP protocol 4, until it is killed

Like the module: the outer header goes, the packet inside is received on INTERFACE. A packet of another version than 4, or
shorter than its header says, is left away.
"""

import fcntl
import os
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 8 << 20


def main():
    tunnel = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tunnel, TUNSETIFF, struct.pack("16sH22x", sys.argv[1].encode(), IFF_TUN | IFF_NO_PI))
    outer = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
    outer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    print("ready", flush=True)
    while True:
        packet = outer.recv(65535)
        inner = packet[(packet[0] & 15) * 4 :]
        if len(inner) >= 20 and inner[0] >> 4 == 4 and len(inner) >= struct.unpack_from(">H", inner, 2)[0]:
            try:
                os.write(tunnel, inner)
            except OSError:
                # The interface is down: as on the wire, what comes then is lost.
                pass


main()
