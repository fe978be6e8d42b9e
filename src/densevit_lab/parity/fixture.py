"""A fixture: a JSON file that describes a small random model of a reference program, and a file with its tensors.

Tensors are ``state_dict.<name in the source>``, ``caseN.input`` (normalised images), ``caseN.output[.x]``,
``caseN.tap.<name>``, ``augN.*`` and ``output`` of a multi-scale run, ``slide.*`` of a sliding one, ``loss.*``, and
``posembed.*``. The JSON holds what would be in the config next to a real checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from densevit.checkpoints.files import read_state_dict
from densevit.checkpoints.importers import ImportOverrides, Source
from densevit.errors import DataError
from densevit.io import read_json

Plain = dict[str, Any]

# What a fixture names as its source -> the key of the importer that must recognise it.
ORIGINS = {
    "rstrudel/segmenter": "segmenter",
    "fudan-zvg/SETR": "setr",
    "isl-org/DPT": "dpt",
    "DepthAnything/Depth-Anything-V2": "depth_anything",
    "ByteDance-Seed/Depth-Anything-3": "depth_anything_3",
    "mmsegmentation": "mmseg",
    "transformers": "transformers",
    "segmentation_models_pytorch": "smp",
    "facebookresearch/dinov2": "dinov2",
}


@dataclass(frozen=True)
class Fixture:
    """One fixture: the content of its two files. It has no tensors if it holds only numbers."""

    name: str
    description: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def origin(self) -> str:
        """The key of its importer.

        Raises:
            DataError: if it comes from a program without an importer.
        """
        source = self.description.get("source")
        origin = str(source.get("repo") or source.get("package")) if isinstance(source, Mapping) else str(source)
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
        """All tensors except those of the state dict."""
        return {key: tensor for key, tensor in self.tensors.items() if not key.startswith("state_dict.")}

    def source(self) -> Source:
        """The input of an importer: the raw state dict with its side files, and what a user would have to state."""
        config = self.config
        side_files: dict[str, Mapping[str, Any]] = {}
        overrides: Plain = {}
        match self.origin:
            case "segmenter":
                net = {"n_heads": config["n_heads"], "image_size": config["image_size"]}
                side_files = {"variant.yml": {"net_kwargs": net}}
                overrides = {"decoder_heads": config.get("dec_heads")}
            case "mmseg":
                side_files = {"mmseg": {"model": self.description["mmseg_model_cfg"]}}
            case "transformers":
                side_files = {"config.json": self.description["hf_config"]}
            case "smp":
                side_files = {"config.json": self.description["smp_config"]}
            case "setr":
                overrides = {"num_heads": config["heads"], "taps": config.get("taps")}
                overrides["aux_taps"] = config.get("aux_idx")
            case "depth_anything":
                overrides = {"num_heads": config["heads"], "taps": config["taps"], "release": "v2"}
                overrides["max_depth_m"] = config.get("max_depth")
            case "depth_anything_3":
                overrides = {"num_heads": config["heads"], "taps": config["taps"], "release": config["release"]}
            case "dinov2":
                overrides = {"num_heads": config["heads"], "taps": config["taps"]}
                overrides |= {"release": config.get("release"), "max_depth_m": config.get("max_depth")}
            case "dpt":
                overrides = self._dpt_overrides(config)
        known = {name: value for name, value in overrides.items() if value is not None}
        parsed = ImportOverrides.parse(known, source=f"the config of {self.name}")
        return Source(self.name, self.state, side_files, parsed)

    def _dpt_overrides(self, config: Plain) -> Plain:
        is_hybrid = any(".patch_embed.backbone." in name for name in self.state)
        taps = config["hooks"][2:] if is_hybrid else config["hooks"]
        known: Plain = {"num_heads": config["heads"], "taps": taps, "readout": config["readout"]}
        if config["task"] == "depth":  # with the defaults of the program's class
            known |= {"scale": config.get("scale", 1.0), "shift": config.get("shift", 0.0)}
            known |= {"invert": config.get("invert", False), "signed": not config.get("non_negative", True)}
        return known


def read_fixtures(folder: Path) -> list[Fixture]:
    """Read all fixtures of a folder, sorted by name.

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
    description = read_json(path, "the description of a fixture")
    if not isinstance(description, dict):
        raise DataError(f"{path} holds {type(description).__name__}, but a fixture is a mapping; fix or remove it")
    tensors = path.with_suffix(".safetensors")
    return Fixture(path.stem, description, read_state_dict(tensors) if tensors.exists() else {})
