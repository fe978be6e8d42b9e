"""What a download has to know of the web: where redirects may lead, and what the headers of an answer say."""

import os
import re
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request

from densevit.errors import CheckpointError, ConfigError

MIRROR = "DENSEVIT_MIRROR"
"""Environment variable with the address of a mirror, which is asked for MIRROR/HOST/PATH, then for MIRROR/PATH."""
HUB = "https://huggingface.co"
HUB_ENDPOINT = "HF_ENDPOINT"
"""The hub's environment variable with the address of its mirror, which is asked for the hub's addresses."""

_LOCAL = {"localhost", "127.0.0.1", "::1"}


class Redirects(HTTPRedirectHandler):
    """Redirects that do not leave the encryption, to addresses of the web only, whose own text is not read."""

    max_redirections = 10
    max_repeats = 2

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """The request for the next address.

        Raises:
            CheckpointError: it may not be followed.
        """
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        fp.close()
        if new.scheme not in ("http", "https"):
            raise CheckpointError(f"{plain(req.full_url)} leads to {new.scheme}:, which is no address of the web")
        if (old.scheme, new.scheme) == ("https", "http") and not may_be_plain(newurl):
            raise CheckpointError(f"{plain(req.full_url)} leads from https to {plain(newurl)}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def mirror_in(variable: str) -> str:
    """The address in an environment variable, without a slash at its end; empty if there is none.

    Raises:
        ConfigError: it is no address of the web.
    """
    address = os.environ.get(variable, "").strip()
    try:
        parts = urlsplit(address)
        is_usable = not address or (parts.scheme in ("http", "https") and bool(parts.hostname))
    except ValueError:  # brackets of IPv6 that do not match
        is_usable = False
    if not is_usable:
        raise ConfigError(f"{variable} is {address!r}, but the address of a mirror begins with https:// or http://")
    return address.rstrip("/")


def is_local(url: str) -> bool:
    """Whether an address is on this machine."""
    return urlsplit(url).hostname in _LOCAL


def may_be_plain(url: str) -> bool:
    """Whether an address may be read without encryption: on this machine, and at the user's mirrors."""
    host = urlsplit(url).hostname
    mirrors = {urlsplit(mirror_in(name)).hostname for name in (MIRROR, HUB_ENDPOINT)}
    return host in _LOCAL or (host is not None and host in mirrors)


def version_of(response: HTTPResponse) -> str:
    """What identifies the version of the server's file, for ``If-Range``: a strong ETag, else its date."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def length_of(response: HTTPResponse) -> int | None:
    """The bytes that follow, as far as the server says."""
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"\d{1,18}", length) else None


def range_of(response: HTTPResponse) -> tuple[int, int | None]:
    """The first byte that a partial answer brings, and the size of the whole file; -1 if it does not say."""
    found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", "").strip())
    if found is None:
        return -1, None
    length = length_of(response)
    first, rest = int(found[1]), None if length is None else int(found[1]) + length
    return first, rest if found[2] == "*" else int(found[2])


def plain(url: str) -> str:
    """An address for messages, without passwords and signatures."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
