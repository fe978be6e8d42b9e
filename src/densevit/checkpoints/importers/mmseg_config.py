"""The settings of an mmsegmentation config that the model and its evaluation need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densevit.checkpoints.importers.base import Plain
from densevit.errors import CheckpointError
from densevit.types import Size

BATCH_NORM_EPS = 1e-5

# Part of the model -> key -> the only supported value, which is mmsegmentation's default too; a dot leads to a key
# inside the value.
FIXED: dict[str, Plain] = {
    "backbone": {
        "patch_norm": False,
        "pre_norm": False,
        "out_origin": False,
        "patch_pad": "corner",
        "num_fcs": 2,
        "act_cfg.type": "GELU",
    },
    "neck": {"act_cfg.type": "ReLU", "norm_cfg.eps": BATCH_NORM_EPS},
    "decode_head": {"align_corners": False, "expand_channels": False},
}

# The same for heads with convolutions, batch norm and upsampling.
CONV_HEAD: Plain = {"act_cfg.type": "ReLU", "norm_cfg.eps": BATCH_NORM_EPS, "align_corners": False}

DATASETS = {"ADE20KDataset": "ade20k", "CityscapesDataset": "cityscapes", "PascalContextDataset": "pascal_context"}


@dataclass(frozen=True)
class MmsegConfig:
    """A config as plain data, of which everything may be missing.

    Attributes:
        data: the top level: ``model``, ``test_pipeline``, ``data_preprocessor`` or ``img_norm_cfg``, ``dataset_type``.
        meta: the checkpoint's ``meta``.
        source: what messages call it.
    """

    data: Mapping[str, Any]
    meta: Mapping[str, Any]
    source: str

    @property
    def model(self) -> Plain:
        """The segmentor."""
        return _mapping(self.data.get("model"))

    def part(self, name: str) -> Plain:
        """A part of the segmentor, such as ``backbone``, ``decode_head`` or ``test_cfg``."""
        return _mapping(self.model.get(name))

    @property
    def aux_heads(self) -> list[Plain]:
        """The auxiliary heads."""
        heads = self.model.get("auxiliary_head") or []
        return [_mapping(head) for head in (heads if isinstance(heads, list | tuple) else [heads])]

    def require(self, name: str, part: Plain, **only: Any) -> None:
        """Refuse a part of the model with other values; those not stated have these values.

        Raises:
            CheckpointError: naming the setting.
        """
        for key, value in only.items():
            outer, _, inner = key.partition(".")
            stated = _mapping(part.get(outer)).get(inner, value) if inner else part.get(outer, value)
            if (list(stated) if isinstance(stated, tuple) else stated) != value:
                raise CheckpointError(
                    f"{self.source} has {name}.{key}={stated!r}, but only {value!r} can be reproduced; "
                    "run the model with mmsegmentation"
                )

    def backbone(self, depth: int) -> Plain:
        """Settings of the backbone with mmsegmentation's defaults; empty if the config has no backbone."""
        if "backbone" not in self.model:
            return {}
        stated = self.part("backbone")
        indices = stated.get("out_indices", -1)
        if isinstance(indices, int):
            indices = [depth - 1 if indices == -1 else indices]
        return {
            # The backbone returns blocks in ascending order, each once, however they are listed.
            "taps": tuple(sorted({int(index) for index in indices})),
            "mode": str(stated.get("interpolate_mode", "bicubic")),
            "norm_eps": layer_norm_eps(stated.get("norm_cfg")),
            "cls_token": bool(stated.get("with_cls_token", True)),
        }

    @property
    def classes(self) -> Sequence[Any]:
        """Class names stored in the checkpoint."""
        dataset_meta = _mapping(self.meta.get("dataset_meta"))
        names = self.meta.get("CLASSES") or dataset_meta.get("classes") or dataset_meta.get("CLASSES")
        return names if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) else ()

    @property
    def dataset(self) -> str | None:
        """Our name of the data set."""
        return DATASETS.get(str(self.data.get("dataset_type")))

    @property
    def normalisation(self) -> Plain | None:
        """Mean and standard deviation of images in [0, 1]."""
        places = (self.data.get("data_preprocessor"), self.part("data_preprocessor"), self.data.get("img_norm_cfg"))
        for statistics in map(_mapping, places):
            if statistics.get("mean") and statistics.get("std"):
                return {key: tuple(value / 255 for value in statistics[key]) for key in ("mean", "std")}
        return None

    @property
    def window(self) -> tuple[Size | None, Size | None] | None:
        """Crop size and stride of sliding inference; a pair of None for whole images, None if not stated."""
        test = self.part("test_cfg")
        if "mode" not in test:
            return None
        if test["mode"] != "slide":
            return (None, None)
        return _pair(test["crop_size"]), _pair(test["stride"])

    @property
    def base(self) -> Size | None:
        """(long, short) to which the test pipeline resizes."""
        pipeline = self.data.get("test_pipeline")
        for step in pipeline if isinstance(pipeline, list | tuple) else ():
            stated = _mapping(step)
            scale = stated.get("img_scale") or (stated.get("scale") if stated.get("type") == "Resize" else None)
            if isinstance(scale, list | tuple) and len(scale) == 2 and all(isinstance(n, int) for n in scale):
                return max(scale), min(scale)
        return None


def layer_norm_eps(norm_cfg: Any) -> float:
    """The epsilon that a ``norm_cfg`` states, else PyTorch's default."""
    return float(_mapping(norm_cfg).get("eps", 1e-5))


def _mapping(value: Any) -> Plain:
    return dict(value) if isinstance(value, Mapping) else {}


def _pair(value: Any) -> Size:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
