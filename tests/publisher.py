"""A publisher of tiny weights: every layout of the table of published weights, on a server of this machine."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import torch
from safetensors.torch import save_file

from densevit.checkpoints import published
from densevit.checkpoints.published import PUBLISHED, Published
from densevit.io import write_json
from densevit_lab.parity.fixture import Fixture
from tests.parity.foreign import FIXTURES, state_of, write_mmseg, write_segmenter, write_transformers
from tests.web_server import COMMIT, Served, Server, put_on_hub


class Layout(NamedTuple):
    """What distinguishes how rows are published."""

    source: str
    family: str
    task: str
    on_hub: bool
    side_files: tuple[str, ...]


def layout_of(row: Published) -> Layout:
    origin = row.sources[0]
    return Layout(row.import_options["as_source"], row.family, row.task, origin.url is None, origin.side_files)


LAYOUTS = {layout_of(row): row for row in reversed(PUBLISHED.values())}


def _mmseg(folder: Path, fixture: Fixture) -> Path:
    return write_mmseg(folder / "w.pth", fixture)


def _torch(folder: Path, fixture: Fixture) -> Path:
    torch.save(state_of(fixture), folder / "w.pt")
    return folder / "w.pt"


def _transformers(folder: Path, fixture: Fixture) -> Path:
    return write_transformers(folder, fixture) / "model.safetensors"


def _depth_anything_3(folder: Path, fixture: Fixture) -> Path:
    write_json(folder / "config.json", {"model_name": f"da3{fixture.config['release']}-large"})
    save_file({f"model.{name}": tensor for name, tensor in state_of(fixture).items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def _dinov2(folder: Path, fixture: Fixture) -> Path:
    """The file of a head, and its encoder under the names of all sizes."""
    state = state_of(fixture)
    encoder = {name.removeprefix("backbone."): state.pop(name) for name in [*state] if name.startswith("backbone.")}
    for letter in "sblg":
        torch.save(encoder, folder / f"dinov2_vit{letter}14_pretrain.pth")
    path = folder / "dinov2_vits14_nyu_dpt_head.pth"
    torch.save({"state_dict": state}, path)
    return path


# By importer, family and task: a tiny checkpoint, and how it is written.
TINY: dict[tuple[str, str, str], tuple[str, Callable[[Path, Fixture], Path]]] = {
    ("mmseg", "SETR", "segmentation"): ("mmseg-setr-naive-aux2convs", _mmseg),
    ("mmseg", "Segmenter", "segmentation"): ("mmseg-segmenter-mask-epsprobe", _mmseg),
    ("mmseg", "DPT", "segmentation"): ("mmseg-dpt-project-epsprobe", _mmseg),
    ("segmenter", "Segmenter", "segmentation"): ("segmenter-official-linear-p16-distilled", write_segmenter),
    ("dpt", "DPT", "segmentation"): ("dpt-official-seg-deit-distilled-add", _torch),
    ("dpt", "DPT", "depth"): ("dpt-official-depth-hybrid-kitti", _torch),
    ("depth_anything", "Depth Anything", "depth"): ("dav2-official-clstoken-bn", _torch),
    ("depth_anything_3", "Depth Anything", "depth"): ("da3-mono", _depth_anything_3),
    ("dinov2", "DINOv2", "segmentation"): ("dinov2-labels-linear", _dinov2),
    ("dinov2", "DINOv2", "depth"): ("dinov2-depth-linear", _dinov2),
    ("dinov2", "DPT", "depth"): ("dinov2-depth-dpt", _dinov2),
    ("transformers", "DPT", "segmentation"): ("hf-dpt-seg-project", _transformers),
    ("transformers", "DPT", "depth"): ("hf-depth-anything-metric", _transformers),
}


class Place(NamedTuple):
    """A fake release server that is the hub, too, and an empty cache."""

    server: Server
    cache: Path
    monkeypatch: pytest.MonkeyPatch

    def publish(self, row: Published, folder: Path, *, hashed: bool = True) -> Published:
        """Serve a tiny checkpoint of a row's layout where the row says, with its hash if the row has one."""
        name, write = TINY[row.import_options["as_source"], row.family, row.task]
        folder.mkdir(exist_ok=True)
        path = write(folder, FIXTURES[name])
        # What the shapes tell of a published size, they do not of a tiny one.
        stated = FIXTURES[name].source().overrides.model_dump(exclude_none=True, exclude={"release"})
        origin = row.sources[0]
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        tiny = replace(
            origin,
            bytes=len(data) if origin.bytes else None,
            sha256=sha256 if origin.sha256 and hashed else None,
            sha256_prefix=sha256[:8] if origin.sha256_prefix and hashed else None,
            revision=COMMIT if origin.revision else None,
        )
        files = {tiny.address: data}
        files |= {tiny.side_address(name): (folder / name).read_bytes() for name in tiny.side_files}
        for address, content in files.items():
            if tiny.url is None:
                put_on_hub(self.server, str(tiny.repo), address.rpartition("/")[2], content)
            else:
                self.server.paths["/" + urlsplit(address).netloc + urlsplit(address).path] = Served(content)
        row = replace(row, sources=(tiny,), import_options={**stated, **row.import_options})
        self.use(row)
        return row

    def use(self, row: Published) -> None:
        """Put a row into the table, in place of the one of its name."""
        self.monkeypatch.setitem(published._SPELLINGS, row.name, row)

    def folder(self, name: str) -> Path:
        return self.cache / "published" / name
