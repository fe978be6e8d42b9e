import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densevit.checkpoints.native import Bundle, Card, save_bundle
from densevit.data.description import describe
from densevit.errors import ConfigError
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import Segmentation
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import SMALL_DECODERS, resolve_config
from tests.factories import tiny_encoder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny model for photos with a short side of 32 pixels."""
    heads = {"labels": {"decoder": {"kind": "segmenter_linear"}, "out_channels": 2}}
    model = DenseModel(ModelConfig.parse({"encoder": tiny_encoder(), "heads": heads}))
    path = tmp_path / "model.safetensors"
    save_bundle(
        Bundle(model, {"labels": Segmentation(classes=("a", "b"))}, InferenceConfig(short_side=32), Card()), path
    )
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of 40 x 60 with masks of three classes and depth."""
    root = tmp_path / "data"
    for split in ("train", "val"):
        for kind, pixels in (
            ("images", np.zeros((40, 60, 3), np.uint8)),
            ("masks", np.ones((40, 60), np.uint8)),
            ("depth", np.full((40, 60), 2000, np.uint16)),
        ):
            (root / kind / split).mkdir(parents=True)
            Image.fromarray(pixels).save(root / kind / split / "a.png")
    (root / "classes.json").write_text(json.dumps({"classes": ["x", "y", "z"]}))
    return root


def config(checkpoint: Path, photos: Path, *decoders: str, freeze: str | None = "encoder", **more: Any) -> TrainConfig:
    return resolve_config(
        None,
        [f"{key}={value}" for key, value in more.items()],
        data=describe(photos).config,
        init=str(checkpoint),
        freeze=freeze,
        decoders=decoders,
        features=photos / "features",
    )


@pytest.mark.parametrize("kind", SMALL_DECODERS)
def test_options__gives_every_decoder_the_classes_of_the_data(checkpoint: Path, photos: Path, kind: str) -> None:
    run = config(checkpoint, photos, kind)

    assert run.model.heads[kind].out_channels == 3
    assert run.tasks[kind].classes == ("x", "y", "z")
    DenseModel(run.model)


def test_options__takes_encoder_and_image_size_from_the_checkpoint(checkpoint: Path, photos: Path) -> None:
    run = config(checkpoint, photos, "segmenter_linear")

    assert run.model.encoder == tiny_encoder()
    assert run.fit.short_side == 32
    assert run.augment.crop == (32, 48)  # the whole of a photo of 40 x 60
    assert (run.freeze, run.features.directory) == ("encoder", photos / "features")


def test_options__an_image_size_of_ones_own_decides_the_crop(checkpoint: Path, photos: Path) -> None:
    assert config(checkpoint, photos, "segmenter_linear", **{"fit.short_side": 64}).augment.crop == (64, 96)


def test_options__keeps_a_number_of_blocks(checkpoint: Path, photos: Path) -> None:
    run = config(checkpoint, photos, "segmenter_linear", "dpt", freeze="2")

    assert run.freeze == run.frozen_depth == 2
    assert list(run.model.heads) == ["segmenter_linear", "dpt"]


def test_options__without_masks_learns_depth(checkpoint: Path, photos: Path) -> None:
    for path in (photos / "masks").rglob("*.png"):
        path.unlink()
    for split in ("train", "val"):
        (photos / "masks" / split).rmdir()
    (photos / "masks").rmdir()
    (photos / "classes.json").unlink()

    run = config(checkpoint, photos, "dpt")

    assert run.tasks["dpt"].kind == "depth"
    assert run.model.heads["dpt"].decoder.head.kind == "depth"


def test_options__an_unknown_decoder_is_refused(checkpoint: Path, photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no decoder 'setr_mlq'; did you mean 'setr_mla'\?"):
        config(checkpoint, photos, "setr_mlq")


def test_init__without_an_encoder_in_the_config_brings_its_own(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"init: {checkpoint}\niterations: 1\nmodel: {{heads: {{labels: {{decoder: {{kind: segmenter_linear}}}}}}}}\n"
        "tasks: {labels: {kind: segmentation}}\n"
    )

    run = resolve_config(tmp_path / "run.yaml", [], data=describe(photos).config)

    assert run.model.encoder == tiny_encoder()
    assert run.augment.crop == (32, 32)
