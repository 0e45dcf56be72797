#!/usr/bin/env python3
"""Long-lived HTTP connections that notice when another server answers.

    stick.py HOST PORT CONNECTIONS SOURCE_ADDRESS...

Opens CONNECTIONS keep-alive connections from the source addresses in turn, says "ready", and asks for / on all of
them over and over until SIGTERM. Then prints one JSON object: how many connections were opened and refused, requests,
connections per server; `moved`, answers that came from another server than the connection's first; `errors`, connections that broke or fell silent
for 5 s; `slowest_ms`, the longest wait for an answer. Exit status 0 when nothing moved and nothing broke.
"""

import json
import select
import signal
import socket
import sys
import time

SILENCE_SECONDS = 5.0


class Connection:
    """One keep-alive connection and the name of the server that it began with."""

    def __init__(self, host, port, source):
        self.socket = socket.create_connection((host, port), timeout=SILENCE_SECONDS, source_address=(source, 0))
        self.request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self.server = None
        self.asked_at = 0.0

    def ask(self):
        self.asked_at = time.monotonic()
        self.socket.sendall(self.request)

    def answer(self):
        """The server's name, from a whole answer (a head and a body of the announced length)."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.receive()
        head, body = data.split(b"\r\n\r\n", 1)
        length = int(next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")))
        while len(body) < length:
            body += self.receive()
        return body.decode().strip()

    def receive(self):
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("closed by the server")
        return data


class Crowd:
    """All the connections, and what became of them."""

    def __init__(self, host, port, count, sources):
        self.connections = []
        self.refused = 0
        for i in range(count):
            try:
                self.connections.append(Connection(host, port, sources[i % len(sources)]))
            except ConnectionRefusedError:
                self.refused += 1
        self.opened = len(self.connections)
        self.requests = 0
        self.moved = 0
        self.errors = []
        self.slowest = 0.0

    def round(self):
        for connection in list(self.connections):
            self.guarded(connection, connection.ask)
        waiting = {connection.socket: connection for connection in self.connections}
        while waiting:
            readable, _, _ = select.select(list(waiting), [], [], SILENCE_SECONDS)
            if not readable:
                for connection in waiting.values():
                    self.lose(connection, "silent")
                return
            for ready in readable:
                connection = waiting.pop(ready)
                self.guarded(connection, lambda c=connection: self.judge(c))

    def guarded(self, connection, action):
        try:
            action()
        except OSError as error:
            self.lose(connection, str(error))

    def lose(self, connection, why):
        self.errors.append(f"{connection.server}: {why}")
        self.connections.remove(connection)

    def judge(self, connection):
        name = connection.answer()
        self.requests += 1
        self.slowest = max(self.slowest, time.monotonic() - connection.asked_at)
        if connection.server is None:
            connection.server = name
        elif connection.server != name:
            self.moved += 1

    def report(self):
        servers = {}
        for connection in self.connections:
            servers[connection.server] = servers.get(connection.server, 0) + 1
        return {
            "connections": self.opened,
            "refused": self.refused,
            "requests": self.requests,
            "servers": servers,
            "moved": self.moved,
            "errors": len(self.errors),
            "slowest_ms": round(self.slowest * 1000, 1),
            "first_errors": self.errors[:5],
        }


def main():
    host, port, count, sources = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    crowd = Crowd(host, port, count, sources)
    crowd.round()
    print("ready", flush=True)
    while not ending and crowd.connections:
        crowd.round()
        time.sleep(0.005)
    print(json.dumps(crowd.report()), flush=True)
    return 1 if crowd.moved or crowd.errors else 0


sys.exit(main())
