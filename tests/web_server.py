"""A server of files for tests of downloads, which breaks off, lies and goes in circles on request."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Served:
    """What the server does with one path.

    Attributes:
        data: the bytes of the file.
        ranges: whether parts are served, and ``If-Range`` heeded.
        etag: names the version of the file.
        cut: the first answers end after so many bytes of what they announce, one answer for each number.
        length: the Content-Length that is stated instead of the real one.
        chunked: no length is stated, the data comes in chunks.
        drip_s: pause after each 100 bytes.
        answers: statuses of the first answers, such as 503, which have no body.
        location: where a redirect leads.
        headers: further headers.
    """

    data: bytes = b""
    ranges: bool = True
    etag: str | None = None
    cut: list[int] = field(default_factory=list)
    length: int | None = None
    chunked: bool = False
    drip_s: float = 0.0
    answers: list[int] = field(default_factory=list)
    location: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def tag(self) -> str:
        """The ETag: as stated, else of the data."""
        return f'"{hashlib.md5(self.data).hexdigest()}"' if self.etag is None else self.etag


@dataclass
class Server:
    """The running server: its address, the paths that it knows, and the requests that it had."""

    url: str
    paths: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def asked(self, path: str) -> list[str]:
        """The ranges that were asked of a path, "" for the whole."""
        return [headers.get("Range", "") for _, asked, headers in self.requests if asked == path]


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put_on_hub(server: Server, repo: str, file: str, data: bytes, commit: str = COMMIT) -> None:
    """Serve a file as the hub does, as the newest revision and under its commit."""
    for revision in ("main", commit):
        server.paths[f"/{repo}/resolve/{revision}/{file}"] = Served(data, headers={"X-Repo-Commit": commit})


def use_as_hub(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub, which reads the environment when it is imported, ask this server; ``cache`` is its own."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


@contextmanager
def serve() -> Iterator[Server]:
    """Run a server on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            _answer(self, server)

        def do_GET(self) -> None:
            _answer(self, server)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def _answer(request: BaseHTTPRequestHandler, server: Server) -> None:
    path = request.path.partition("?")[0]
    server.requests.append((request.command, path, dict(request.headers)))
    served = server.paths.get(path)
    if served is None or served.answers:
        status = 404 if served is None else served.answers.pop(0)
        _head(request, status, {"Content-Length": "0", "X-Error-Code": "EntryNotFound"})  # as the hub says it
        return
    if served.location is not None:
        _head(request, 302, {"Location": served.location, "Content-Length": "0"} | served.headers)
        return
    start = _start(request, served)
    headers = {"ETag": served.tag} if served.tag else {}
    if start > len(served.data) or (start and start == len(served.data)):
        _head(request, 416, headers | {"Content-Range": f"bytes */{len(served.data)}", "Content-Length": "0"})
        return
    body = served.data[start:]
    if start:
        headers["Content-Range"] = f"bytes {start}-{len(served.data) - 1}/{len(served.data)}"
    if served.chunked:
        headers["Transfer-Encoding"] = "chunked"
    else:
        headers["Content-Length"] = str(len(body) if served.length is None else served.length)
    _head(request, 206 if start else 200, headers | served.headers)
    if request.command == "HEAD":
        return
    sent = body[: served.cut.pop(0)] if served.cut else body
    _send(request, sent, served)
    if served.length is not None or len(sent) < len(body):
        request.close_connection = True


def _start(request: BaseHTTPRequestHandler, served: Served) -> int:
    """The first byte to send."""
    wanted = request.headers.get("Range", "")
    if not served.ranges or not wanted or request.headers.get("If-Range", served.tag) != served.tag:
        return 0
    return int(wanted.removeprefix("bytes=").partition("-")[0])


def _head(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()


def _send(request: BaseHTTPRequestHandler, data: bytes, served: Served) -> None:
    step = 100 if served.drip_s else max(len(data), 1)
    try:
        for first in range(0, len(data), step):
            part = data[first : first + step]
            request.wfile.write(b"%x\r\n%b\r\n" % (len(part), part) if served.chunked else part)
            request.wfile.flush()
            time.sleep(served.drip_s)
        if served.chunked and not served.length:
            request.wfile.write(b"0\r\n\r\n")
    except OSError:  # the other side has had enough
        request.close_connection = True
