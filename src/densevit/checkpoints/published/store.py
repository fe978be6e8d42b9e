"""Published weights on this machine: downloaded once, compared with their hash, converted once, found again by name.

Each name has a folder in the cache: ``model.safetensors`` as densevit reads it, ``record.json`` with what it was made
from, and ``source/`` for the files of the publisher, which a person may put there too.
"""

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from densevit import __version__
from densevit.checkpoints.download import cache_folder
from densevit.checkpoints.native import Bundle, save_bundle
from densevit.checkpoints.published import find_published
from densevit.checkpoints.published.fetch import Fetched, fetch, file_name
from densevit.checkpoints.published.row import Origin, Published
from densevit.checkpoints.transfer import CACHE
from densevit.config import Config
from densevit.errors import CheckpointError, ConfigError, DataError, OutputError
from densevit.io import file_sha256, read_json, write_json
from densevit.io.lock import wait_for_folder
from densevit_runtime.io.decode import reason

WEIGHTS, RECORD, SOURCE = "model.safetensors", "record.json", "source"
CONVERSION = 1
"""Raised when importers begin to make something else of a published file: what is in caches is then made again."""

Verified = Literal["sha256", "sha256_prefix", "unverified"]

_log = logging.getLogger(__name__)


class Record(Config):
    """What the weights in the cache were made from.

    Attributes:
        address: from which the file of the publisher came.
        revision: commit of the hub's repository.
        sha256: of the publisher's file; where no hash is published, the same is demanded from then on.
        side_sha256: likewise, of the encoder's file where the other holds only a head.
        verified: what of this hash is published.
        converted_sha256: of the file in the cache.
        conversion: the ``CONVERSION`` that made it.
        densevit: the version that did.
    """

    address: str
    revision: str | None
    sha256: str
    side_sha256: dict[str, str] = Field(default_factory=dict)
    verified: Verified
    converted_sha256: str
    conversion: int
    densevit: str


def weights_of(name: str) -> Path:
    """The densevit checkpoint of a published model, which the first call downloads and converts.

    Raises:
        CheckpointError: if there is no such model, or its weights cannot be fetched or are not those of the publisher.
        OutputError: if the cache cannot be written.
    """
    row = find_published(name)
    if row is None:
        raise CheckpointError(f"there are no published weights of the name {name!r}; densevit models lists them")
    folder = cache_folder() / "published" / row.name
    path = folder / WEIGHTS
    if not _fault(folder):
        return path
    _make(cache_folder())
    _make(folder)
    with wait_for_folder(folder):
        if fault := _fault(folder):  # another process may have filled it in the meantime
            if path.is_file():
                _log.warning("%s %s; it is made again", path, fault)
            _fill(row, folder)
    return path


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # compiled kernels may be there too, see kernels/cache
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({reason(error)}); name another folder in {CACHE}") from error


def _fault(folder: Path) -> str:
    """What is wrong with the weights in a folder of the cache; empty if they are as they were written."""
    path, record = folder / WEIGHTS, _read_record(folder)
    if not path.is_file():
        return "is missing"
    if record is None:
        return f"has no {RECORD} that can be read"
    if record.conversion != CONVERSION:
        return "is of another version of densevit"
    return "" if file_sha256(path) == record.converted_sha256 else "is damaged"


def _read_record(folder: Path) -> Record | None:
    try:
        return Record.parse(read_json(folder / RECORD, "a record of published weights"), source=str(folder / RECORD))
    except (ConfigError, DataError):
        return None


def _fill(row: Published, folder: Path) -> None:
    """Fetch the weights from the first place that gives them, and convert them."""
    record = _read_record(folder)
    # What a person has put there goes before the network.
    origins = sorted(row.sources, key=lambda origin: not (folder / SOURCE / file_name(origin)).is_file())
    failures: list[str] = []
    for origin in origins:
        pin = record if record is not None and record.address == origin.address else None
        try:
            fetched = _fetch(row, origin, folder, pin)
            _convert(row, origin, fetched, folder)
            return
        except OutputError:
            raise
        except CheckpointError as error:
            failures.append(str(error).replace("\n", "\n  "))
    first = row.sources[0]
    wanted = [first.address, *map(first.side_address, first.side_files)]
    raise CheckpointError(
        f"the weights of {row.name} could not be fetched and converted:\n  "
        + "\n  ".join(failures)
        + f"\nfetch {' and '.join(wanted)} by hand and put {'them' if len(wanted) > 1 else 'it'} into "
        f"{folder / SOURCE}, or give the path of a copy instead of the name"
    )


def _fetch(row: Published, origin: Origin, folder: Path, pin: Record | None) -> Fetched:
    if pin is None:
        return fetch(row, origin, folder / SOURCE, sha256=None, revision=None)
    try:
        pinned: dict[str, Any] = {"sha256": pin.sha256, "revision": pin.revision, "side_sha256": pin.side_sha256}
        return fetch(row, origin, folder / SOURCE, **pinned)
    except CheckpointError as error:
        if origin.sha256 is None and "SHA-256" in str(error):
            hint = f"that was pinned at the first use; remove {folder / RECORD} to accept another file"
            raise CheckpointError(f"{error}; {hint}") from None
        raise


def _convert(row: Published, origin: Origin, fetched: Fetched, folder: Path) -> None:
    """Write the weights as a densevit checkpoint, with the record of their origin."""
    from densevit.checkpoints.open import import_file  # which opens published models through this module

    verified: Verified = "sha256" if origin.sha256 else "sha256_prefix" if origin.sha256_prefix else "unverified"
    try:
        bundle = import_file(fetched.source, **row.import_options).bundle
    except CheckpointError:
        if verified == "unverified":  # what came may be anything, such as a page that asks for a password
            _remove(fetched.downloaded)
        raise
    try:
        save_bundle(_described(bundle, row, origin, fetched, verified), folder / WEIGHTS, internal=True)
    except OutputError:  # the disk is full, and a download that stays would pass for a file that a person put there
        _remove(fetched.downloaded)
        raise
    record = Record(
        address=origin.address,
        revision=fetched.revision,
        sha256=fetched.sha256,
        side_sha256=fetched.side_sha256,
        verified=verified,
        converted_sha256=file_sha256(folder / WEIGHTS),
        conversion=CONVERSION,
        densevit=__version__,
    )
    write_json(folder / RECORD, record.plain(), internal=True)
    _remove(fetched.downloaded)
    if verified == "unverified":
        _log.warning(
            "the weights of %s are unverified: nobody is known to publish a hash of %s; its SHA-256 %s is pinned in %s",
            row.name,
            origin.address,
            fetched.sha256,
            folder / RECORD,
        )


def _described(bundle: Bundle, row: Published, origin: Origin, fetched: Fetched, verified: Verified) -> Bundle:
    """The bundle with a card that says what the row knows."""
    compared = {
        "sha256": f"as published ({origin.hash_source})",
        "sha256_prefix": f"whose first {len(origin.sha256_prefix or '')} digits are published ({origin.hash_source})",
        "unverified": "of which none is published: unverified",
    }
    revision = f" at revision {fetched.revision}" if fetched.revision else ""
    (head,) = bundle.tasks
    metrics: dict[str, Any] = {**row.metrics, "protocol": row.protocol, "source": row.metrics_source}
    card = bundle.card.model_copy(
        update={
            "name": row.name,
            "licence": row.licence,
            "provenance": (
                *bundle.card.provenance,
                f"{origin.address}{revision}, SHA-256 {fetched.sha256}, {compared[verified]}",
                *(f"{origin.side_address(name)}, SHA-256 {sha256}" for name, sha256 in fetched.side_sha256.items()),
                f"licence of the weights: {row.licence_source}",
            ),
            "metrics": {head: metrics} if row.metrics else {},
        }
    )
    return replace(bundle, card=card)


def _remove(files: tuple[Path, ...]) -> None:
    for file in files:
        with suppress(OSError):
            file.unlink(missing_ok=True)
