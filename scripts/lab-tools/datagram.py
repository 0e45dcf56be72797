#!/usr/bin/env python3
"""UDP with an answer that proves what arrived.

    datagram.py serve NAME ADDRESS PORT     answers every datagram with "NAME LENGTH SHA256" until it is killed
    datagram.py ask SOURCE ADDRESS PORT LENGTH [COUNT]
                                            sends COUNT datagrams of LENGTH random bytes from a socket each, checks
                                            the answers, prints each server's name; exit status 1 at the first failure
    datagram.py reversed SOURCE ADDRESS PORT LENGTH [COUNT]
                                            the same over IPv4 in fragments of 1,400 bytes, the last one first
"""

import hashlib
import os
import socket
import struct
import sys

FRAGMENT_BYTES = 1400


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(name, address, port):
    server = socket.socket(family(address), socket.SOCK_DGRAM)
    server.bind((address, int(port)))
    print("ready", flush=True)
    while True:
        data, client = server.recvfrom(65536)
        server.sendto(f"{name} {len(data)} {hashlib.sha256(data).hexdigest()}".encode(), client)


def ask(source, address, port, length, count="1", send=socket.socket.send):
    for _ in range(int(count)):
        client = socket.socket(family(address), socket.SOCK_DGRAM)
        client.settimeout(3)
        client.bind((source, 0))
        client.connect((address, int(port)))
        data = os.urandom(int(length))
        send(client, data)
        try:
            name, size, digest = client.recv(65536).decode().split()
        except OSError as error:
            sys.exit(f"no answer from {address} to {length} bytes: {error}")
        if int(size) != len(data) or digest != hashlib.sha256(data).hexdigest():
            sys.exit(f"{name} received {size} bytes that are not the {length} sent")
        print(name, flush=True)
        client.close()


def send_reversed(client, data):
    """Sends a datagram of the client's socket as IPv4 fragments, the last first; UDP checksum 0 (none)."""
    source, destination = client.getsockname(), client.getpeername()
    payload = struct.pack(">HHHH", source[1], destination[1], 8 + len(data), 0) + data
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    identification = int.from_bytes(os.urandom(2), "big") or 1
    for start in reversed(range(0, len(payload), FRAGMENT_BYTES)):
        piece = payload[start : start + FRAGMENT_BYTES]
        more = 0x2000 if start + len(piece) < len(payload) else 0
        # The kernel fills in total length and header checksum.
        header = struct.pack(">BBHHHBBH", 0x45, 0, 0, identification, more | start // 8, 64, socket.IPPROTO_UDP, 0)
        addresses = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
        raw.sendto(header + addresses + piece, (destination[0], 0))
    raw.close()


if sys.argv[1] == "serve":
    serve(*sys.argv[2:])
elif sys.argv[1] == "reversed":
    ask(*sys.argv[2:], send=send_reversed)
else:
    ask(*sys.argv[2:])
