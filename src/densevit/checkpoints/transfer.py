"""One file on its way over HTTP: requests for what is missing of it, until it is complete or given up."""

import http.client
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, build_opener

from densevit import __version__
from densevit.checkpoints.web import Redirects, length_of, plain, range_of, version_of
from densevit.errors import CheckpointError, DataError, OutputError
from densevit.io import file_sha256, read_json, write_json
from densevit.limits import limits, too_much
from densevit_runtime.io.decode import reason

CACHE = "DENSEVIT_CACHE"
"""Environment variable with the folder for published weights; ``~/.cache/densevit`` by default."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and with those of the whole file as far as the server says."""

_CHUNK = 2**20
_TRANSIENT = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
_MISSING = {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}


@dataclass(frozen=True, kw_only=True)
class Patience:
    """When a download is given up.

    Attributes:
        timeout_s: for a connection, and between two packets.
        attempts: that bring less than ``enough`` bytes, in a row.
        enough: bytes after which an attempt counts as a success.
        pause_s: before the second attempt; twice as long before each further one.
        window_s: a server that sends less than ``window_bytes`` in this time is as good as silent.
        window_bytes: see ``window_s``.
    """

    timeout_s: float = 30.0
    attempts: int = 5
    enough: int = 2**20
    pause_s: float = 1.0
    window_s: float = 60.0
    window_bytes: int = 2**16


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is there.

    Attributes:
        sha256: 64 hexadecimal digits.
        sha256_prefix: the first digits only.
        size: in bytes.
    """

    sha256: str | None = None
    sha256_prefix: str | None = None
    size: int | None = None

    @property
    def digits(self) -> str:
        """What the SHA-256 begins with; empty if nothing is known."""
        return (self.sha256 or self.sha256_prefix or "").lower()

    def fault(self, path: Path) -> str:
        """How a file differs from what is known of it; empty if it does not."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"has {size} bytes, but {self.size} are published"
        if self.digits and not (found := file_sha256(path)).startswith(self.digits):
            return f"has the SHA-256 {found}, but {self.digits}{'' if self.sha256 else '...'} is published"
        return ""


class _Interrupted(Exception):
    """The connection was lost or slow, so another attempt may bring the rest."""


class Missing(CheckpointError):
    """The server has no such file."""


class Transfer:
    """One file on its way: what is there of it, and the attempts to get the rest."""

    def __init__(
        self, into: Path, expected: Expected, limit: str, progress: Progress | None, patience: Patience
    ) -> None:
        self.into, self.expected, self.limit = into, expected, limit
        self.most = getattr(limits(), limit) if expected.size is None else expected.size
        self.progress, self.patience = progress, patience
        self.part = into.with_name(into.name + ".part")
        self.notes = into.with_name(into.name + ".part.json")  # which file the part belongs to
        self.opener = build_opener(Redirects())

    def run(self, url: str, addresses: list[str]) -> None:
        """Fetch the file from the first address that has it."""
        for number, address in enumerate(addresses):
            try:
                self._fetch(address)
                break
            except Missing:
                if number == len(addresses) - 1:
                    raise
        if fault := self.expected.fault(self.part):
            self._discard()
            raise CheckpointError(
                f"what came from {url} {fault}, so it is not kept; try again, and if the message stays, its publisher "
                "or a mirror serves another file"
            )
        try:
            with self.part.open("rb+") as file:
                os.fsync(file.fileno())
            self.part.replace(self.into)
            self.notes.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self.into} cannot be written ({reason(error)}); check the folder") from error

    def _fetch(self, address: str) -> None:
        """Attempts until the part is complete."""
        failures = 0
        while True:
            before = self._size()
            try:
                self._attempt(address)
                return
            except _Interrupted as error:
                failures = 0 if self._size() - before >= self.patience.enough else failures + 1
                if failures >= self.patience.attempts:
                    kept = f", with {self._size()} bytes, which the next attempt continues" if self._size() else ""
                    raise failed(address, f"{error}, {failures} times in a row{kept}") from None
                time.sleep(self.patience.pause_s * 2 ** max(failures - 1, 0))

    def _attempt(self, address: str) -> None:
        """One request for all that is missing."""
        start, notes = self._resumable(address)
        headers = {"User-Agent": f"densevit/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-"} | ({"If-Range": notes["mark"]} if notes["mark"] else {})
        try:
            with self.opener.open(Request(address, headers=headers), timeout=self.patience.timeout_s) as response:
                self._receive(address, response, start, notes)
        except HTTPError as error:
            error.close()
            self._refused(address, error, start)
        except URLError as error:  # before an answer: no such host, no network, no trust in the certificate
            cause = error.reason
            text = reason(cause) if isinstance(cause, BaseException) else str(cause)
            if not self._size():
                raise failed(address, text) from None
            raise _Interrupted(text) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _Interrupted(reason(error) or type(error).__name__) from None

    def _refused(self, address: str, error: HTTPError, start: int) -> None:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{start}":
                return  # the part was complete
            self._discard()
            raise _Interrupted("the server no longer has the file of which a part is here")
        if error.code in _TRANSIENT or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Interrupted(f"the server answers {error.code} {str(error.reason)[:80]}")
        if error.code in _MISSING:
            raise Missing(f"{plain(address)} could not be downloaded (the server answers {error.code}: not there)")
        if 300 <= error.code < 400:
            raise failed(
                address,
                f"its redirects lead in a circle, or nowhere, or there are more than {Redirects.max_redirections}",
            )
        raise failed(address, f"the server answers {error.code} {str(error.reason)[:80]}")

    def _receive(self, address: str, response: http.client.HTTPResponse, start: int, notes: dict[str, str]) -> None:
        """Append what the server sends to the part, or begin it again if it sends the whole."""
        mark = version_of(response)
        total = length_of(response)
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            first, total = range_of(response)
            other = notes["mark"] and mark and mark != notes["mark"]  # from a server that does not know If-Range
            if first != start or not start or other:
                self._discard()
                raise _Interrupted("the server sent another part than the one that is missing")
        elif response.status == HTTPStatus.OK:
            start = 0
        else:
            raise failed(address, f"the server answers {response.status} {response.reason[:80]}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise failed(address, "the server compresses it, although that was not accepted")
        if start == 0:
            self._discard()
        self._check_size(address, total, start)
        if start == 0:
            write_json(self.notes, {"url": address, "mark": mark}, internal=True)
        self._copy(address, response, start, total)

    def _copy(self, address: str, response: http.client.HTTPResponse, start: int, total: int | None) -> None:
        done, mark, mark_s = start, start, time.monotonic()
        try:
            file = self.part.open("ab", buffering=0)
        except OSError as error:
            raise self._no_room(error) from error
        with file:
            while chunk := response.read1(_CHUNK):
                done += len(chunk)
                if done > self.most:
                    self._check_size(address, done, start)
                view = memoryview(chunk)
                try:
                    while view:
                        view = view[file.write(view) :]
                except OSError as error:
                    raise self._no_room(error) from error
                if self.progress is not None:
                    self.progress(done, total)
                if (now := time.monotonic()) - mark_s > self.patience.window_s:
                    if done - mark < self.patience.window_bytes:
                        raise _Interrupted(f"only {done - mark} bytes came in {now - mark_s:.0f} s")
                    mark, mark_s = done, now
        if total is not None and done < total:
            raise _Interrupted(f"the connection was closed after {done} of {total} bytes")

    def _check_size(self, address: str, total: int | None, start: int) -> None:
        """Refuse a file that has another size than it should, or does not fit, before it is there."""
        if total is None:
            return
        if self.expected.size not in (None, total):
            self._discard()
            raise failed(address, f"it has {total} bytes or more, but {self.expected.size} are published")
        if total > self.most:
            self._discard()
            raise CheckpointError(too_much(f"{plain(address)} has {total:,} bytes or more", self.limit))
        free = shutil.disk_usage(self.part.parent).free
        if total - start > free:
            raise OutputError(
                f"{plain(address)} needs {total - start:,} bytes, but {free:,} are free in {self.part.parent}; free "
                f"some space, or name a folder on another disk in {CACHE}",
                everywhere=True,
            )

    def _no_room(self, error: OSError) -> OutputError:
        """The error for a part that cannot be written, which is removed to leave room for others."""
        self._discard()
        return OutputError(
            f"{self.part} cannot be written ({reason(error)}); free some space, or name a folder on another disk in "
            f"{CACHE}",
            everywhere=True,
        )

    def _resumable(self, address: str) -> tuple[int, dict[str, str]]:
        """The bytes that need not be sent again, and what the server called the file that they are of."""
        try:
            notes = read_json(self.notes, "a note on a download") if self.part.is_file() else {}
            known = {key: value for key, value in notes.items() if isinstance(value, str)}
        except (DataError, AttributeError):
            known = {}
        # Without a mark of the file's version, only a hash shows that two parts do not belong together.
        if known.get("url") != address or not (known.get("mark") or self.expected.digits):
            return 0, {"mark": ""}
        return self._size(), {"mark": known.get("mark", "")}

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _discard(self) -> None:
        for file in (self.part, self.notes):
            with suppress(OSError):
                file.unlink(missing_ok=True)


def failed(address: str, why: str) -> CheckpointError:
    """The error for a file that its server does not give."""
    return CheckpointError(f"{plain(address)} could not be downloaded ({why})")
