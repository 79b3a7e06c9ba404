"""A web server on 127.0.0.1 that honours Range and fails on demand."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file and how it is served; `log` holds the Range header of each request.

    Attributes:
        cut_after: per request, how many bytes of the body are sent before the connection
            closes; requests beyond the list are served whole.
        statuses: per request, an error status sent instead; 0 for none.
        is_sized: whether Content-Length is told.
    """

    content: bytes
    etag: str | None = '"v1"'
    has_ranges: bool = True
    is_sized: bool = True
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    location: str | None = None
    log: list[str | None] = field(default_factory=list)


@dataclass
class Server:
    url: str
    files: dict[str, Served]

    def add(self, name: str, served: Served) -> str:
        self.files[f"/{name}"] = served
        return f"{self.url}/{name}"


def _handler(files: dict[str, Served]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served = files.get(self.path)
            if served is None:
                self.send_error(404)
                return
            asked = self.headers.get("Range")
            served.log.append(asked)
            status = served.statuses.pop(0) if served.statuses else 0
            if status:
                self.send_error(status)
            elif served.location:
                self.send_response(302)
                self.send_header("Location", served.location)
                self.end_headers()
            else:
                self._send(served, self._start(served, asked))

        def _start(self, served: Served, asked: str | None) -> int:
            same = self.headers.get("If-Range") in (None, served.etag)
            if asked is None or not served.has_ranges or not same:
                return 0
            match = re.fullmatch(r"bytes=(\d+)-", asked)
            assert match is not None
            return int(match[1])

        def _send(self, served: Served, start: int) -> None:
            total = len(served.content)
            if start > total:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            if served.etag:
                self.send_header("ETag", served.etag)
            if served.is_sized:
                self.send_header("Content-Length", str(total - start))
            self.end_headers()
            body = served.content[start:]
            self.wfile.write(body[: served.cut_after.pop(0)] if served.cut_after else body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[Server]:
    files: dict[str, Served] = {}
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler(files))
    # A short poll, or every shutdown would wait half a second.
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{httpd.server_address[1]}", files)
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
