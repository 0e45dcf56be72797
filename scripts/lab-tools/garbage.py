#!/usr/bin/env python3
"""Talks nonsense to a control socket and prints a table of what was said and what came back.

    garbage.py SOCKET

After each attempt a well-behaved client must still get its greeting. Exit status 1 when it does not.
"""

import json
import os
import socket
import sys
import time

PATH = sys.argv[1]
random = os.urandom


def connect():
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(3)
    client.connect(PATH)
    return client


def call(method, params):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode() + b"\n"


NO_SERVICE = {"protocol": "tcp", "address": "10.9.9.9:9"}
SERVICE = {"protocol": "tcp", "address": "192.168.132.254:80"}


def destination(weight=1, service=SERVICE):
    return call("destination.add", {"service": service, "destination": {"address": "192.168.132.99:80", "weight": weight}})



ATTEMPTS = [
    ("an empty line", b"\n"),
    ("a thousand empty lines", b"\n" * 1000),
    ("no JSON", b"hello director\n"),
    ("random bytes", random(4096) + b"\n"),
    ("bytes that are no UTF-8", b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}\n'),
    ("zero bytes", bytes(4096) + b"\n"),
    ("half an object", b'{"jsonrpc":"2.0","id":1,"met\n'),
    ("an array of arrays, 100,000 deep", b"[" * 100_000 + b"\n"),
    ("an object, 100,000 deep", b'{"a":' * 100_000 + b"\n"),
    ("a number", b"42\n"),
    ("null", b"null\n"),
    ("an empty object", b"{}\n"),
    ("an empty array (a batch)", b"[]\n"),
    ("a batch", b'[{"jsonrpc":"2.0","id":1,"method":"status"}]\n'),
    ("JSON-RPC 1.0", b'{"id":1,"method":"status","params":[]}\n'),
    ("no method", b'{"jsonrpc":"2.0","id":1}\n'),
    ("an unknown method", call("format.disk", {})),
    ("a method of 60,000 letters", call("x" * 60_000, {})),
    ("an object as id", b'{"jsonrpc":"2.0","id":{"a":1},"method":"status"}\n'),
    ("parameters that are a string", call("service.add", "please")),
    ("an unknown field", call("service.add", {"colour": "blue"})),
    ("a service at no address", call("service.add", {"service": {"protocol": "tcp", "address": "nowhere:80"}})),
    ("a service at port 70000", call("service.add", {"service": {"protocol": "tcp", "address": "10.0.0.1:70000"}})),
    ("a service over carrier pigeon", call("service.add", {"service": {"protocol": "pigeon", "address": "10.0.0.1:80"}})),
    ("a weight of -1", destination(-1)),
    ("a weight of 10^300", destination(1e300)),
    ("a destination without a service", destination(service=NO_SERVICE)),
    ("a line of 40 MiB", b"x" * (40 << 20) + b"\n"),
    ("40 MiB without an end", b"y" * (40 << 20)),
    ("two calls in one packet, the first broken", b"{]\n" + call("status", {})),
]


def come_back(client):
    """What the director says until it falls silent or hangs up."""
    client.settimeout(0.5)
    data = b""
    try:
        while chunk := client.recv(65536):
            data += chunk
        return data, "hung up"
    except TimeoutError:
        return data, "stays connected"
    except OSError as error:
        return data, f"hung up ({error.strerror})"


def shortened(data):
    lines = [line for line in data.decode(errors="replace").split("\n") if line]
    if not lines:
        return "nothing"
    try:
        error = json.loads(lines[0]).get("error")
        text = f"error {error['code']}: {error['message']}" if error else lines[0]
    except (ValueError, AttributeError, TypeError, KeyError):
        text = lines[0]
    return (text[:90] + ("…" if len(text) > 90 else "")) + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def greeting(client):
    line = b""
    while not line.endswith(b"\n"):
        byte = client.recv(1)
        if not byte:
            sys.exit("the director hung up instead of greeting")
        line += byte
    return line


def attempt(said):
    client = connect()
    greeting(client)
    try:
        client.sendall(said)
    except OSError:
        pass  # It may hang up before it has heard everything; what it said is read below.
    answer, ending = come_back(client)
    client.close()
    return f"{shortened(answer)}; {ending}"


def too_many_clients():
    clients = []
    try:
        for _ in range(40):
            client = connect()
            client.settimeout(1)
            clients.append(client)
        last = shortened(come_back(clients[-1])[0])
    except OSError as error:
        last = error.strerror
    for client in clients:
        client.close()
    return f"the last one got: {last}"


def never_reads():
    client = connect()
    client.settimeout(1)
    sent = 0
    try:
        for _ in range(20_000):
            client.sendall(call("stats", {}))
            sent += 1
    except OSError as error:
        client.close()
        return f"after {sent} calls: {error.strerror or 'no more is taken'}"
    client.close()
    return f"all {sent} calls were taken"


def still_polite():
    deadline = time.monotonic() + 5
    while True:
        try:
            client = connect()
            hello = json.loads(greeting(client))
            client.close()
            return hello
        except (OSError, SystemExit, ValueError):
            if time.monotonic() > deadline:
                sys.exit("a well-behaved client gets no greeting any more")
            time.sleep(0.05)


def row(said, back):
    still_polite()
    print(f"{said:46} {back}", flush=True)


for name, said in ATTEMPTS:
    row(name, attempt(said))
row("40 clients at once", too_many_clients())
row("20,000 calls whose answers nobody reads", never_reads())
