"""Models as the Hugging Face hub keeps them: weights with a model card and a config, in a folder or a repository.

Names and arguments are those of ``huggingface_hub.ModelHubMixin``.
"""

import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from densevit.checkpoints.card_file import CARD_FILE, is_sealed
from densevit.checkpoints.hub_errors import hub_errors, import_hub
from densevit.checkpoints.model_card import LIBRARY, WEIGHTS, config_json, model_card
from densevit.checkpoints.native import Bundle, Card, Storage, save_bundle
from densevit.errors import CheckpointError, ConfigError
from densevit.io import claim, file_sha256, make_folder, write_bytes_atomic, write_json
from densevit.plain_data import parse_json_config, read_text
from densevit_runtime.licences import in_words, is_stricter, terms, usual_form

CONFIG = "config.json"
FILES = (WEIGHTS, CONFIG, CARD_FILE)
_REPO = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
_log = logging.getLogger(__name__)


def save_folder(
    bundle: Bundle,
    folder: Path,
    *,
    repo_id: str | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write model.safetensors, config.json and README.md into a folder; returns it.

    The weights are a densevit checkpoint, which needs neither of the other files; tensors that came from int8 or
    float16 are stored so, and are restored to the bit. A README.md that a person wrote or changed is kept, unless
    ``overwrite``.

    Args:
        bundle: the model.
        folder: is created.
        repo_id: where it will be published, for the card.
        licence: of the weights, an SPDX identifier or words; by default that of the bundle's card.
        overwrite: replace files that densevit did not write, or that were changed since.

    Raises:
        ConfigError: if the licence allows more than that of weights which the model was made from.
        DataError: if a file cannot be written, or belongs to somebody else.
    """
    card = _with_licence(_without_places(bundle.card), licence)
    keeps_card = not overwrite and _has_own_card(folder)
    claim([folder / name for name in FILES if not (keeps_card and name == CARD_FILE)], overwrite=overwrite)
    make_folder(folder)
    if keeps_card:
        _log.warning("%s is kept, since a person wrote or changed it", folder / CARD_FILE)
    bundle = replace(bundle, card=card)
    save_bundle(bundle, folder / WEIGHTS, Storage(lossless=("*",)))
    write_json(folder / CONFIG, config_json(bundle))
    if not keeps_card:
        name = (repo_id or "").rpartition("/")[2] or card.name or folder.resolve().name
        weights = folder / WEIGHTS
        sha256, num_bytes = file_sha256(weights), weights.stat().st_size
        text = model_card(bundle, name=name, repo_id=repo_id, sha256=sha256, num_bytes=num_bytes)
        write_bytes_atomic(folder / CARD_FILE, text.encode())
    return folder


def push(
    bundle: Bundle,
    repo_id: str,
    *,
    licence: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    commit_message: str | None = None,
    create_pr: bool = False,
    overwrite: bool = False,
) -> str:
    """Publish a model on the hub in one commit; returns the address of the commit.

    The repository is created if it does not exist. A README.md there that a person wrote or changed is kept, and a
    repository with weights of another program is refused, unless ``overwrite``. The commit fails if somebody else
    commits in the meantime.

    Args:
        bundle: the model.
        repo_id: ``owner/name``, or a name in the account of the token.
        licence: as for ``save_folder``.
        private: whether a new repository is private; by default as the owner's account is set.
        token: of the hub; by default that of ``hf auth login`` or of HF_TOKEN.
        branch: to commit to; "main" by default. It has to exist.
        commit_message: first line of the commit.
        create_pr: open a pull request instead of committing.
        overwrite: replace a card that a person wrote, and weights of another program.

    Raises:
        ConfigError: if this is no name of a repository, or the licence is refused as ``save_folder`` does.
        CheckpointError: if the hub cannot be reached or refuses, or the repository holds something else.
        DataError: if there is no space for the files.
    """
    repo_id = repo_id.removeprefix("hf://")
    if not _REPO.fullmatch(repo_id):
        raise ConfigError(f"{repo_id!r:.200} is no repository of the hub; give OWNER/NAME of letters, digits and - . _")
    hub = import_hub()
    with hub_errors(repo_id):
        api = hub.HfApi(token=token)
        account = api.whoami()["name"]  # before any work, so that a missing token is told at once
    repo_id = repo_id if "/" in repo_id else f"{account}/{repo_id}"
    with tempfile.TemporaryDirectory(prefix="densevit-") as temporary:
        folder = save_folder(bundle, Path(temporary) / "new", repo_id=repo_id, licence=licence)
        with hub_errors(repo_id):
            api.create_repo(repo_id, private=private, exist_ok=True)
            info = api.repo_info(repo_id, revision=branch)
            present = {file.rfilename for file in info.siblings or ()} & {*FILES}
            known = _Known(api, repo_id, info.sha or branch, Path(temporary))
            theirs = sorted(present & {WEIGHTS, CONFIG})
            if not overwrite and theirs and not (CONFIG in present and _is_our_config(known.path(CONFIG))):
                raise CheckpointError(
                    f"{repo_id} holds a {theirs[-1]} that densevit did not write; choose another repository, or pass "
                    "--overwrite (overwrite=True); the hub keeps the old version in its history"
                )
            keeps_card = not overwrite and CARD_FILE in present and not is_sealed(_text_of(known.path(CARD_FILE)))
            if keeps_card:
                _log.warning("the %s of %s is kept, since a person wrote or changed it", CARD_FILE, repo_id)
            names = [name for name in FILES if not (keeps_card and name == CARD_FILE)]
            commit = api.create_commit(
                repo_id,
                [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names],
                commit_message=commit_message or f"Upload a model of {LIBRARY}",
                revision=branch,
                create_pr=create_pr,
                parent_commit=info.sha,
            )
    return str(commit.pr_url or commit.commit_url)


@dataclass(frozen=True)
class _Known:
    """A repository at one commit, whose small files are read into a temporary folder."""

    api: Any
    repo_id: str
    revision: str | None
    folder: Path

    def path(self, name: str) -> Path:
        return Path(self.api.hf_hub_download(self.repo_id, name, revision=self.revision, cache_dir=self.folder))


def _with_licence(card: Card, licence: str | None) -> Card:
    if licence is None:
        if terms(card.licence) == "unstated":
            _log.warning(
                "the card states no licence of the weights; say what others may do, with --licence MIT or such"
            )
        return card
    licence = usual_form(licence)
    if terms(card.licence) != "unstated" and is_stricter(card.licence, licence):
        raise ConfigError(
            f"licence {licence!r} allows more than that of these weights, {in_words(card.licence)}, which also binds "
            "what is made from them; leave it out"
        )
    return card.model_copy(update={"licence": licence})


def _without_places(card: Card) -> Card:
    """The card without paths of this machine: of data and model, which an evaluation notes, only the names remain."""
    return card.model_copy(update={"metrics": _names_only(card.metrics)})


def _names_only(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {name: _names_only(inner, name) for name, inner in value.items()}
    is_place = key in {"data", "model"} and isinstance(value, str) and "://" not in value
    return PurePath(value).name if is_place else value


def _has_own_card(folder: Path) -> bool:
    """Whether the folder has a card that densevit did not write as it is now."""
    path = folder / CARD_FILE
    return path.is_file() and not is_sealed(_text_of(path))


def _text_of(path: Path) -> str:
    """The text of a card; empty, which is no card of ours, if it cannot be read."""
    try:
        return read_text(path)
    except (OSError, ValueError):
        return ""


def _is_our_config(path: Path) -> bool:
    try:
        config = parse_json_config(read_text(path))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("library_name") == LIBRARY
