#!/usr/bin/env python3
"""A web server that answers every PUT with the SHA-256 of what it got.

    digest.py PORT      until it is killed
"""

import hashlib
import http.server
import sys

CHUNK_BYTES = 1 << 18


class Handler(http.server.BaseHTTPRequestHandler):
    """Reads the body to its announced end."""

    def do_PUT(self):
        digest = hashlib.sha256()
        left = int(self.headers["Content-Length"])
        while left > 0:
            chunk = self.rfile.read(min(left, CHUNK_BYTES))
            if not chunk:
                return
            digest.update(chunk)
            left -= len(chunk)
        answer = digest.hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Nothing: whoever asked says what went wrong."""


def main():
    server = http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler)
    print("ready", flush=True)
    server.serve_forever()


main()
