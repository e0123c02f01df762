"""A web server with range requests: python range_server.py FOLDER LOG. Prints its port.

It runs in its own process, because GDAL holds the interpreter's lock while it waits for a response.
Each line of LOG is a request: path, bytes sent, "range" or "whole".
"""

from __future__ import annotations

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER, LOG = sys.argv[1], Path(sys.argv[2])


class Ranges(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.note(0, "missing")
            self.send_error(404)
            return
        data = path.read_bytes()
        wanted = self.headers.get("Range")
        start, end = 0, len(data) - 1
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or end), end)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
        else:
            self.send_response(200)
        self.note(end + 1 - start, "range" if wanted else "whole")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end + 1 - start))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        self.wfile.write(data[start : end + 1])

    def note(self, sent: int, kind: str) -> None:
        with LOG.open("a") as log:
            log.write(f"{self.path} {sent} {kind}\n")

    def log_message(self, *args: object) -> None:
        pass


with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=FOLDER)) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
