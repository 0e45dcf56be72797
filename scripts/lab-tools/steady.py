#!/usr/bin/env python3
"""A client that asks again and again, a connection each, and measures how long it went without an answer.

    steady.py HOST PORT

Says "ready" after the first answer and goes on until SIGTERM. Then prints one JSON object: `answers`, `failures`
(connections refused, broken or silent for 0.2 s), `outage_ms`, the longest time between two answers, and the servers that
answered. On SIGUSR1 it prints the same for the time since the last such line, and begins anew.
"""

import json
import signal
import socket
import sys
import time

PATIENCE_SECONDS = 0.2
PAUSE_SECONDS = 0.01


def ask(host, port):
    with socket.create_connection((host, port), timeout=PATIENCE_SECONDS) as connection:
        connection.settimeout(PATIENCE_SECONDS)
        connection.sendall(f"GET / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        data = b""
        while part := connection.recv(65536):
            data += part
    return data.split(b"\r\n\r\n", 1)[1].decode().strip()


class Report:
    def __init__(self, last):
        self.answers = self.failures = 0
        self.longest = 0.0
        self.last = last
        self.servers = {}

    def answered(self, server):
        now = time.monotonic()
        self.longest = max(self.longest, now - self.last)
        self.last = now
        self.answers += 1
        self.servers[server] = self.servers.get(server, 0) + 1

    def show(self):
        longest = max(self.longest, time.monotonic() - self.last)
        words = {"answers": self.answers, "failures": self.failures, "outage_ms": round(longest * 1000), "servers": self.servers}
        print(json.dumps(words), flush=True)


class Stop(Exception):
    pass


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    asked_for = []
    signal.signal(signal.SIGUSR1, lambda *_: asked_for.append(True))
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(Stop))
    report = Report(time.monotonic())
    ready = False
    try:
        while True:
            try:
                report.answered(ask(host, port))
                if not ready:
                    print("ready", flush=True)
                    ready = True
            except (OSError, IndexError):
                report.failures += 1
            if asked_for:
                asked_for.clear()
                report.show()
                report = Report(report.last)
            time.sleep(PAUSE_SECONDS)
    except Stop:
        report.show()


main()
