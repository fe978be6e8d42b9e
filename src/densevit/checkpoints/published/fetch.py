"""The files of a publisher: from the address of a row, from the hub, or from where a person has put them."""

import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from densevit.checkpoints.download import fetch_url
from densevit.checkpoints.files import SUFFIXES
from densevit.checkpoints.hub import SCHEME, resolve
from densevit.checkpoints.published.row import Origin, Published
from densevit.checkpoints.transfer import Expected, Progress
from densevit.checkpoints.web import HUB, HUB_ENDPOINT, mirror_in
from densevit.errors import CheckpointError
from densevit.io import file_sha256
from densevit_runtime.io.decode import reason

_log = logging.getLogger(__name__)


class Fetched(NamedTuple):
    """The publisher's files, on this machine.

    Attributes:
        source: what an importer calls the weights: a path, or ``hf://owner/name/file@revision``.
        revision: commit of the hub's repository.
        sha256: of the weights.
        side_sha256: of the other files of weights, by name.
        downloaded: files that are no longer needed once the weights are converted.
    """

    source: str
    revision: str | None
    sha256: str
    side_sha256: dict[str, str]
    downloaded: tuple[Path, ...]


def fetch(
    row: Published,
    origin: Origin,
    place: Path,
    *,
    sha256: str | None,
    revision: str | None,
    side_sha256: Mapping[str, str] = MappingProxyType({}),
) -> Fetched:
    """The files of one origin, compared with what is known of them.

    Args:
        row: the model.
        origin: from where.
        place: the folder for files that have a URL; what is there already is not downloaded.
        sha256: of the weights, if the origin does not state it.
        revision: of the hub's repository, likewise.
        side_sha256: of other files of weights by name, as far as they are known.

    Raises:
        CheckpointError: if they cannot be fetched, or are others.
        OutputError: if there is no room for them.
    """
    expected = Expected(origin.sha256 or sha256, origin.sha256_prefix, origin.bytes)
    path = place / file_name(origin)
    if origin.url is not None or path.is_file():
        downloaded = _fetch_files(row, origin, place, expected, side_sha256)
        others = {name: file_sha256(place / name) for name in origin.side_files if is_weights(name)}
        return Fetched(str(path), None, expected.sha256 or file_sha256(path), others, downloaded)
    revision = origin.revision or revision
    path = _from_hub(origin, revision)
    if fault := expected.fault(path):
        raise CheckpointError(f"{path.resolve()} {fault}; remove it, and it is downloaded again")
    revision = revision or _commit(path)
    return Fetched(_hub_address(origin, revision), revision, expected.sha256 or file_sha256(path), {}, ())


def is_weights(name: str) -> bool:
    """Whether a file next to the weights holds weights too, those of an encoder."""
    return PurePosixPath(name).suffix in SUFFIXES


def _fetch_files(
    row: Published, origin: Origin, place: Path, expected: Expected, side_sha256: Mapping[str, str]
) -> tuple[Path, ...]:
    """Download the weights and the files next to them; those that were not there before."""
    path = place / file_name(origin)
    addresses = {path: origin.address, **{place / name: origin.side_address(name) for name in origin.side_files}}
    missing = tuple(file for file in addresses if not file.exists())
    facts: dict[str, Any] = {"sha256": expected.sha256, "sha256_prefix": expected.sha256_prefix, "size": expected.size}
    for file, address in addresses.items():
        if file != path and not is_weights(file.name):
            fetch_url(address, file, limit="config_bytes")
            continue
        if file in missing:
            _log.info("downloading the weights of %s from %s", row.name, address)
        known: dict[str, Any] = facts if file == path else {"sha256": side_sha256.get(file.name)}
        with _progress_bar(row.name) as progress:
            fetch_url(address, file, progress=progress, **known)
    return missing


def _from_hub(origin: Origin, revision: str | None) -> Path:
    """The weights file in the hub's cache, downloaded if necessary.

    ``huggingface_hub`` asks again and again for a host that cannot be found, for half a minute; here it is asked once.
    """
    from huggingface_hub import try_to_load_from_cache

    address, host = _hub_address(origin, revision), urlsplit(mirror_in(HUB_ENDPOINT) or HUB).hostname
    try:
        if not getproxies():
            socket.getaddrinfo(host, None)
    except OSError as error:
        if isinstance(cached := try_to_load_from_cache(str(origin.repo), str(origin.file), revision=revision), str):
            return Path(cached)
        raise CheckpointError(f"{address} could not be downloaded ({host}: {reason(error)})") from None
    return resolve(address)


def file_name(origin: Origin) -> str:
    """The publisher's name of the weights file, by which importers tell releases apart."""
    path = origin.file if origin.url is None else urlsplit(origin.url).path
    return unquote(str(path).rpartition("/")[2])


def _hub_address(origin: Origin, revision: str | None) -> str:
    return f"{SCHEME}{origin.repo}/{origin.file}" + (f"@{revision}" if revision else "")


def _commit(path: Path) -> str | None:
    """The commit of a file in the hub's cache, whose folders are named so: snapshots/COMMIT/FILE."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None


@contextmanager
def _progress_bar(title: str) -> Iterator[Progress]:
    """The bar that the hub's downloads have too; only on a terminal."""
    from huggingface_hub.utils.tqdm import tqdm

    with tqdm(desc=title, unit="B", unit_scale=True, disable=None, leave=False) as bar:  # type: ignore[no-untyped-call]

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
