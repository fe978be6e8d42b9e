"""A fixture: a JSON file that describes a small random model of a reference program, and a file with its tensors.

Tensors are ``state_dict.<name in the source>``, ``caseN.input`` (normalised images), ``caseN.output[.x]``,
``caseN.tap.<name>``, ``augN.*`` and ``output`` of a multi-scale run, ``slide.*`` of a sliding one, ``loss.*``, and
``posembed.*``. What no state dict holds stands in the JSON, as it would in the config beside a real checkpoint.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from densevit.checkpoints.files import read_state_dict
from densevit.checkpoints.importers import ImportOverrides, Source
from densevit.errors import DataError

Plain = dict[str, Any]

# Where a fixture says it comes from -> the row of IMPORTERS that must recognise it.
ORIGINS = {
    "rstrudel/segmenter": "segmenter",
    "fudan-zvg/SETR": "setr",
    "isl-org/DPT": "dpt",
    "DepthAnything/Depth-Anything-V2": "depth_anything",
    "mmsegmentation": "mmseg",
    "transformers": "transformers",
}


@dataclass(frozen=True)
class Fixture:
    """One fixture.

    Attributes:
        name: stem of its files.
        description: the JSON file.
        tensors: none for a fixture of numbers alone.
    """

    name: str
    description: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def origin(self) -> str:
        """The row of ``IMPORTERS`` that it belongs to.

        Raises:
            DataError: if it comes from a program that has none.
        """
        stated = self.description.get("source")
        origin = str(stated.get("repo") or stated.get("package")) if isinstance(stated, Mapping) else str(stated)
        if origin not in ORIGINS:
            raise DataError(
                f"fixture {self.name} comes from {origin!r}, but known are {', '.join(ORIGINS)}; leave it out"
            )
        return ORIGINS[origin]

    @property
    def config(self) -> Plain:
        """The short config."""
        return dict(self.description.get("config") or {})

    @property
    def state(self) -> dict[str, Tensor]:
        """The state dict under the source's own names."""
        prefix = "state_dict."
        return {key.removeprefix(prefix): tensor for key, tensor in self.tensors.items() if key.startswith(prefix)}

    @property
    def outputs(self) -> dict[str, Tensor]:
        """Everything else."""
        return {key: tensor for key, tensor in self.tensors.items() if not key.startswith("state_dict.")}

    def source(self) -> Source:
        """What an importer gets: the raw state dict, and the facts that would lie beside it."""
        side, answers = _FACTS[self.origin](self)
        known = {name: value for name, value in answers.items() if value is not None}
        return Source(self.name, self.state, side, ImportOverrides.parse(known, source=f"the config of {self.name}"))


def read_fixtures(folder: Path) -> list[Fixture]:
    """All fixtures of a folder, by name.

    Raises:
        DataError: if there are none, or a file cannot be read.
        CheckpointError: if a tensor file is damaged.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise DataError(
            f"{folder} holds no fixtures; a fixture is NAME.json, with NAME.safetensors where it has tensors"
        )
    return [_read(path) for path in paths]


def _read(path: Path) -> Fixture:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the fixture {path} ({error}); mend it or remove it") from None
    if not isinstance(description, dict):
        raise DataError(f"{path} holds {type(description).__name__}, but a fixture is a mapping; mend it or remove it")
    tensors = path.with_suffix(".safetensors")
    return Fixture(path.stem, description, read_state_dict(tensors) if tensors.exists() else {})


Facts = tuple[dict[str, Mapping[str, Any]], Plain]


def _segmenter(fixture: Fixture) -> Facts:
    config = fixture.config
    net = {"n_heads": config["n_heads"], "image_size": config["image_size"]}
    return {"variant.yml": {"net_kwargs": net}}, {"decoder_heads": config.get("dec_heads")}


def _setr(fixture: Fixture) -> Facts:
    config = fixture.config
    return {}, {"num_heads": config["heads"], "taps": config.get("taps"), "aux_taps": config.get("aux_idx")}


def _mmseg(fixture: Fixture) -> Facts:
    return {"mmseg": {"model": fixture.description["mmseg_model_cfg"]}}, {}


def _dpt(fixture: Fixture) -> Facts:
    config = fixture.config
    is_hybrid = any(".patch_embed.backbone." in name for name in fixture.state)
    answers: Plain = {
        "num_heads": config["heads"],
        "taps": config["hooks"][2:] if is_hybrid else config["hooks"],
        "readout": config["readout"],
    }
    if config["task"] == "depth":  # with the defaults of the program's class
        defaults = {"scale": 1.0, "shift": 0.0, "invert": False}
        answers |= {key: config.get(key, default) for key, default in defaults.items()}
        answers["signed"] = not config.get("non_negative", True)
    return {}, answers


def _depth_anything(fixture: Fixture) -> Facts:
    config = fixture.config
    return {}, {
        "num_heads": config["heads"],
        "taps": config["taps"],
        "release": "v2",
        "max_depth_m": config.get("max_depth"),
    }


def _transformers(fixture: Fixture) -> Facts:
    return {"config.json": fixture.description["hf_config"]}, {}


_FACTS = {
    "segmenter": _segmenter,
    "setr": _setr,
    "mmseg": _mmseg,
    "dpt": _dpt,
    "depth_anything": _depth_anything,
    "transformers": _transformers,
}
