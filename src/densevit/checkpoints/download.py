"""Download one file by its URL: resumed after a cut, compared with its size and hash, complete or not there at all."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from densevit.checkpoints.transfer import CACHE, Expected, Patience, Progress, Transfer, failed
from densevit.checkpoints.web import HUB, HUB_ENDPOINT, MIRROR, is_local, may_be_plain, mirror_in
from densevit.errors import CheckpointError, ConfigError
from densevit.io.lock import wait_for_folder

OFFLINE = "HF_HUB_OFFLINE"
"""The hub's environment variable for machines without a network: then only a mirror and this machine are asked."""


def cache_folder() -> Path:
    """Where published weights are kept, which need not exist: $DENSEVIT_CACHE, $XDG_CACHE_HOME/densevit, or in home.

    Raises:
        ConfigError: there is no home folder.
    """
    if given := os.environ.get(CACHE):
        return Path(given).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "densevit"
    except RuntimeError:
        raise ConfigError(f"there is no home folder for downloads; name a folder in {CACHE}") from None


def fetch_url(
    url: str,
    into: Path,
    *,
    sha256: str | None = None,
    sha256_prefix: str | None = None,
    size: int | None = None,
    limit: str = "download_bytes",
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Download a file, unless it is there; processes that want the same file wait for the first of them.

    What a cut connection has left is kept next to ``into``, and continued by the next attempt or call if the server
    still has the same file. A file that is there is never replaced.

    Args:
        url: https, or http on this machine and from the mirror in ``DENSEVIT_MIRROR``.
        into: the path of the file, in a folder of densevit's own.
        sha256: the hash that it must have.
        sha256_prefix: the first digits of that hash, if no more are known.
        size: the bytes that it must have.
        limit: which of ``densevit.limits`` is that of its bytes.
        progress: is told of every packet.
        patience: when to give up.

    Returns:
        ``into``.

    Raises:
        CheckpointError: it cannot be downloaded, or is not what it should be; ``into`` does not exist then.
        OutputError: the disk is full, or the folder cannot be written.
        ConfigError: the mirror is no address.
    """
    expected = Expected(sha256, sha256_prefix, size)
    if not into.exists():
        addresses = _addresses(url)
        with wait_for_folder(into.parent):
            if not into.exists():
                Transfer(into, expected, limit, progress, patience or Patience()).run(url, addresses)
    if fault := expected.fault(into):
        raise CheckpointError(f"{into} {fault}; it is another file or damaged: remove it, and it is downloaded again")
    return into


def _addresses(url: str) -> list[str]:
    """Where a file is fetched: at the mirror if there is one, else at its own URL.

    Raises:
        ConfigError: the mirror is no address.
        CheckpointError: the URL is not encrypted, or there is no network to reach it by.
    """
    parts = urlsplit(url)
    if mirror := mirror_in(MIRROR):
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        return [f"{mirror}/{parts.netloc}{path}", f"{mirror}{path}"]
    if url.startswith(f"{HUB}/") and (endpoint := mirror_in(HUB_ENDPOINT)):
        url = endpoint + url.removeprefix(HUB)
        parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or (parts.scheme == "http" and not may_be_plain(url)):
        raise CheckpointError(f"{url} is not encrypted; an address that begins with https:// is accepted")
    if os.environ.get(OFFLINE, "").upper() in {"1", "ON", "YES", "TRUE"} and not is_local(url):
        raise failed(url, f"{OFFLINE} is set")
    return [url]
