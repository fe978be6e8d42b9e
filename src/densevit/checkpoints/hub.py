"""Find weights: those shipped with the package, a local file, or a file on the Hugging Face hub."""

import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from errno import EACCES, EDQUOT, ENOSPC, EROFS
from pathlib import Path
from typing import Any, Literal

from densevit.checkpoints.hub_errors import no_connection
from densevit.checkpoints.shards import is_index, tensors_by_shard
from densevit.checkpoints.web import HUB_ENDPOINT, mirror_in
from densevit.errors import CheckpointError, OutputError
from densevit_runtime.io.decode import reason

SCHEME = "hf://"
DEFAULT_NAME = "default"
DEFAULT = Path(__file__).parent.parent / "weights" / "default.safetensors"
_HUB = re.compile(r"hf://(?P<repo>[^/@\s]+/[^/@\s]+)(?:/(?P<file>[^@\s]+))?(?:@(?P<revision>\S+))?")

_NOT_WRITTEN = {EACCES, EDQUOT, ENOSPC, EROFS}

# Tried in this order where no file is named; safetensors first, because it cannot hold code.
HUB_FILES = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)


@dataclass(frozen=True)
class HubAccess:
    """How the hub is reached.

    Attributes:
        token: None for that of ``hf auth login`` or HF_TOKEN, False for none.
        cache_dir: None for the hub's own, in HF_HOME.
    """

    token: str | bool | None = None
    cache_dir: Path | None = None

    def download(self, repo: str, name: str, revision: str | None, *, offline: bool = False) -> Path:
        """One file of a repository, downloaded or from the cache; raises what ``huggingface_hub`` does.

        Args:
            repo: ``owner/name``.
            name: of the file.
            revision: None for the main branch.
            offline: only look into the cache.
        """
        from huggingface_hub import hf_hub_download

        mirror_in(HUB_ENDPOINT)  # refuses what is no address
        wanted = {"token": self.token, "cache_dir": self.cache_dir, "local_files_only": offline or None}
        options: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
        return Path(hf_hub_download(repo, name, revision=revision, **options))


def resolve(source: str, access: HubAccess | None = None) -> Path:
    """The local path of a weights file, downloaded or taken from the hub's cache if necessary.

    Args:
        source: "default", a path, or ``hf://owner/name``, ``hf://owner/name/file``, either with ``@revision``.
        access: to the hub; by default with the user's token and cache.

    Raises:
        CheckpointError: if there is no such file, or the hub cannot be reached or refuses.
        OutputError: if the hub's cache cannot be written.
    """
    if source == DEFAULT_NAME:
        return DEFAULT
    if source.startswith(SCHEME):
        return _from_hub(source, access or HubAccess())
    path = local_path(source)
    if (kind := kind_of(path)) == "file":
        return path
    if kind == "folder":
        raise CheckpointError(f"{source} is a folder, but weights are one file; name the file inside it")
    if kind == "special":
        raise CheckpointError(f"{source} is a device or a pipe, but weights are one file; save it to a file first")
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not path.suffix
    hint = f"for the hub write {SCHEME}{source}" if on_hub else "check the path"
    raise CheckpointError(f"{source} does not exist; give a file or {SCHEME}owner/name[/file][@revision]; {hint}")


def local_path(source: str) -> Path:
    """The path that a source names, with the home folder filled in where there is one."""
    try:
        return Path(source).expanduser()
    except RuntimeError:  # no such user
        return Path(source)


def kind_of(path: Path) -> Literal["file", "folder", "special", "none"]:
    """What a path leads to; "special" is a device or a pipe.

    Raises:
        CheckpointError: if the system does not tell.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        return "none"
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from None
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "special"


def fetch_side_files(source: str, names: Sequence[str], access: HubAccess | None = None) -> None:
    """Download files next to weights on the hub, such as config.json, into the folder of the weights.

    Files that do not exist or cannot be reached are skipped; whoever needs them reports it.
    """
    match = _HUB.fullmatch(source)
    if match is None:
        return
    from huggingface_hub import errors

    access = access or HubAccess()
    folder = match["file"].rpartition("/")[0] if match["file"] else ""
    for name in names:
        with suppress(errors.EntryNotFoundError, *no_connection()):
            access.download(match["repo"], f"{folder}/{name}" if folder else name, match["revision"])


def _from_hub(source: str, access: HubAccess) -> Path:
    match = _HUB.fullmatch(source)
    if match is None:
        raise CheckpointError(f"{source} is no hub address; give one of the form {SCHEME}owner/name[/file][@revision]")
    try:
        from huggingface_hub import errors
    except ImportError:
        raise CheckpointError(
            f"{source} is on the hub and huggingface_hub is not installed; "
            "run `pip install huggingface_hub`, or download the file and give its path"
        ) from None
    repo, revision = match["repo"], match["revision"]
    files = (match["file"],) if match["file"] else HUB_FILES
    offline = False
    for name in files:
        try:
            # Once offline, the other names do not wait for the network again.
            path = access.download(repo, name, revision, offline=offline)
            _fetch_shards(path, repo, name, revision, access)
            return path
        except errors.LocalEntryNotFoundError:
            offline = True
        except errors.EntryNotFoundError:
            continue
        except errors.GatedRepoError:
            raise CheckpointError(
                f"{source} is gated; accept its licence on https://huggingface.co/{repo} and run `hf auth login`"
            ) from None
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
            at = f" at revision {revision}" if revision else ""
            raise CheckpointError(
                f"{source}: the hub has no repository {repo}{at} that you may read; "
                "check the name, or run `hf auth login`"
            ) from None
        except no_connection() as error:
            if isinstance(error, OSError) and error.errno in _NOT_WRITTEN:
                raise OutputError(
                    f"{source} cannot be kept in the hub's cache ({reason(error)}); free some space, or name another "
                    "folder in HF_HOME",
                    everywhere=True,
                ) from error
            raise _unreachable(source, reason(error).splitlines()[0]) from None
    if offline:
        raise _unreachable(source, "no connection, and not in the local cache")
    usual = match["file"] or "model.safetensors or pytorch_model.bin"
    raise CheckpointError(f"{source}: the repository has no {usual}; name one of its files: {SCHEME}{repo}/FILE")


def _fetch_shards(path: Path, repo: str, name: str, revision: str | None, access: HubAccess) -> None:
    """Download the shards of an index next to it; nothing for any other file."""
    from huggingface_hub import errors

    folder = name.rpartition("/")[0]
    for shard in sorted(tensors_by_shard(path)) if is_index(path.name) else ():
        try:
            access.download(repo, f"{folder}/{shard}" if folder else shard, revision)
        except errors.LocalEntryNotFoundError:
            raise
        except errors.EntryNotFoundError:
            raise CheckpointError(
                f"{SCHEME}{repo}: {name} names the shard {shard}, which the repository does not have; its owner must "
                "upload it"
            ) from None


def _unreachable(source: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{source} could not be downloaded ({why}); "
        "go online (and unset HF_HUB_OFFLINE), or download the file elsewhere and give its path"
    )
