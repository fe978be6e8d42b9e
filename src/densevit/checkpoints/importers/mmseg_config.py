"""The settings of an mmsegmentation config that the model and its evaluation need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densevit.checkpoints.importers.base import Plain
from densevit.checkpoints.importers.keys import KeyTable, check_keys
from densevit.checkpoints.importers.mmseg_keys import (
    AUX_OF_MLA,
    BACKBONE,
    HEADS,
    NECK,
    NORMALISE,
    PREPROCESSOR,
    RESIZE_IN_AUGMENTATION,
    SEGMENTOR,
    STEPS,
    TEST_CFG,
    Kind,
)
from densevit.checkpoints.importers.python_config import Settings
from densevit.errors import CheckpointError
from densevit.types import Size

DATASETS = {"ADE20KDataset": "ade20k", "CityscapesDataset": "cityscapes", "PascalContextDataset": "pascal_context"}


@dataclass(frozen=True)
class MmsegConfig:
    """A config as plain data, of which everything may be missing.

    Attributes:
        data: the top level: ``model``, ``test_pipeline``, ``data_preprocessor`` or ``img_norm_cfg``, ``dataset_type``.
        meta: the checkpoint's ``meta``.
        source: what messages call it.
    """

    data: Settings
    meta: Mapping[str, Any]
    source: str

    @property
    def model(self) -> Mapping[str, Any]:
        """The segmentor."""
        return _mapping(self.data.get("model"))

    def part(self, name: str) -> Mapping[str, Any]:
        """A part of the segmentor, such as ``backbone``, ``decode_head`` or ``test_cfg``."""
        return _mapping(self.model.get(name))

    @property
    def aux_heads(self) -> list[Mapping[str, Any]]:
        """The auxiliary heads."""
        heads = self.model.get("auxiliary_head") or []
        return [_mapping(head) for head in (heads if isinstance(heads, list | tuple) else [heads])]

    @property
    def align_corners(self) -> bool:
        """Of the heads' upsampling and of the resizes to the image.

        Raises:
            CheckpointError: if an auxiliary head differs.
        """
        corners: bool = self.part("decode_head").get("align_corners", False)
        if any(head.get("align_corners", False) != corners for head in self.aux_heads):
            raise CheckpointError(
                f"{self.source} has align_corners={corners} in its decode_head and another value in an auxiliary_head, "
                "but only one for all heads can be reproduced; run the model with mmsegmentation"
            )
        return corners

    def check(self, name: str, part: Mapping[str, Any], table: KeyTable) -> None:
        """Refuse unknown keys of a part of the config, and values that cannot be reproduced.

        Raises:
            CheckpointError: naming the key.
        """
        check_keys(part, table, where=name, source=self.source, program="mmsegmentation")

    def check_model(self, kind: Kind) -> None:
        """Check all parts but the heads of SETR-Naive and PUP; without a config the released values hold."""
        if not self.model:
            return
        self.check("model", self.model, SEGMENTOR)
        for name, table in (("backbone", BACKBONE), ("neck", NECK), ("decode_head", HEADS[kind])):
            if self.model.get(name) is not None and (name, kind) != ("decode_head", "up"):
                self.check(name, self.part(name), table)
        if kind == "mla":
            for head in self.aux_heads:
                self.check("auxiliary_head", head, AUX_OF_MLA)
        self.check("test_cfg", self.part("test_cfg"), TEST_CFG)

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
        """Mean and standard deviation of images in [0, 1]; None if nothing is stated about them."""
        for place in (self.model.get("data_preprocessor"), self.data.get("data_preprocessor")):
            if place is not None:
                self.check("data_preprocessor", _mapping(place), PREPROCESSOR)
                return _statistics(_mapping(place))
        steps = [self.data.get("img_norm_cfg"), *self._steps("Normalize")]
        stated = [_mapping(step) for step in steps if _mapping(step).get("mean") is not None]
        if not stated:
            return None
        self.check("img_norm_cfg", stated[-1], NORMALISE)
        return _statistics(stated[-1])

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
    def pipeline(self) -> list[Settings] | None:
        """The steps of the test pipeline, those inside others too; None if it is not stated.

        Raises:
            CheckpointError: if a step cannot be reproduced.
        """
        stated = self.data.get("test_pipeline")
        if not isinstance(stated, list | tuple):
            return None
        steps = []
        queue = [(_mapping(step), False) for step in stated]
        for step, nested in queue:
            kind = str(step.get("type")).removeprefix("mmseg.")
            if kind not in STEPS:
                raise CheckpointError(
                    f"{self.source} has the step {kind} in its test_pipeline, but only {', '.join(STEPS)} can be "
                    "reproduced; run the model with mmsegmentation"
                )
            table = RESIZE_IN_AUGMENTATION if nested and kind == "Resize" else STEPS[kind]
            if table is not None:
                self.check(f"test_pipeline, step {kind}", step | {"type": kind}, table)
            inner = step.get("transforms") if kind == "MultiScaleFlipAug" else None
            queue += [(_mapping(one), True) for one in (inner or ())]
            steps.append(step | {"type": kind})
        return steps

    def _steps(self, kind: str) -> list[Settings]:
        return [step for step in self.pipeline or () if step["type"] == kind]

    @property
    def base(self) -> Size | None:
        """(long, short) to which the test pipeline resizes; None if it does not."""
        scales = [
            step.get("img_scale") or step.get("scale")
            for kind in ("MultiScaleFlipAug", "Resize")
            for step in self._steps(kind)
        ]
        stated = [(scale, scale) if isinstance(scale, int) else scale for scale in scales if scale is not None]
        if not stated:
            return None
        scale = stated[0]
        if len(stated) > 1 or len(scale) != 2 or not all(isinstance(n, int) and n > 0 for n in scale):
            raise CheckpointError(
                f"{self.source} resizes to {stated} in its test_pipeline, but only one (width, height) can be "
                "reproduced; run the model with mmsegmentation"
            )
        return max(scale), min(scale)


def _statistics(stated: Mapping[str, Any]) -> Plain:
    """Mean and deviation for images in [0, 1] of those for images in [0, 255], which may have none."""
    mean, std = stated.get("mean"), stated.get("std")
    if mean is None or std is None:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return {"mean": tuple(value / 255 for value in mean), "std": tuple(value / 255 for value in std)}


def layer_norm_eps(norm_cfg: Any) -> float:
    """The epsilon that a ``norm_cfg`` states, else PyTorch's default."""
    return float(_mapping(norm_cfg).get("eps", 1e-5))


def _mapping(value: Any) -> Settings:
    return value if isinstance(value, Settings) else Settings(value if isinstance(value, Mapping) else {}, "")


def _pair(value: Any) -> Size:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
