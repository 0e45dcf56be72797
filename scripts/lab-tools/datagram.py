#!/usr/bin/env python3
"""UDP with an answer that proves what arrived.

    datagram.py serve NAME ADDRESS PORT     answers every datagram with "NAME LENGTH SHA256" until it is killed
    datagram.py ask SOURCE ADDRESS PORT LENGTH [COUNT]
                                            sends COUNT datagrams of LENGTH random bytes from a socket each, checks
                                            the answers, prints each server's name; exit status 1 at the first failure
"""

import hashlib
import os
import socket
import sys


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def serve(name, address, port):
    server = socket.socket(family(address), socket.SOCK_DGRAM)
    server.bind((address, int(port)))
    print("ready", flush=True)
    while True:
        data, client = server.recvfrom(65536)
        server.sendto(f"{name} {len(data)} {hashlib.sha256(data).hexdigest()}".encode(), client)


def ask(source, address, port, length, count="1"):
    for _ in range(int(count)):
        client = socket.socket(family(address), socket.SOCK_DGRAM)
        client.settimeout(3)
        client.bind((source, 0))
        client.connect((address, int(port)))
        data = os.urandom(int(length))
        client.send(data)
        try:
            name, size, digest = client.recv(65536).decode().split()
        except OSError as error:
            sys.exit(f"no answer from {address} to {length} bytes: {error}")
        if int(size) != len(data) or digest != hashlib.sha256(data).hexdigest():
            sys.exit(f"{name} received {size} bytes that are not the {length} sent")
        print(name, flush=True)
        client.close()


if sys.argv[1] == "serve":
    serve(*sys.argv[2:])
else:
    ask(*sys.argv[2:])
