"""Every key of a config beside a checkpoint is used, checked, or ignored for a reason; others are refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from densevit.checkpoints.importers.keys import check_keys, checked, ignored, used
from densevit.checkpoints.importers.transformers_processor import preprocessing
from densevit.checkpoints.open import import_file
from densevit.errors import CheckpointError, DensevitError
from tests.parity.foreign import HF, write_transformers


def refusal(source: Path, **options: Any) -> str:
    with pytest.raises(DensevitError) as error:
        import_file(str(source), **options)
    return str(error.value)


TABLE = {
    **used("the model", "width"),
    **ignored("of training", "seed"),
    "act": checked("gelu", default="relu"),
    "factors": checked([1, 2]),
}


@pytest.mark.parametrize("data", [{"act": "GELU"}, {"width": 3, "seed": None, "act": "gelu", "factors": (1, 2)}])
def test_known_keys__pass(data: dict[str, Any]) -> None:
    check_keys(data, TABLE, where="c.json", source="m", program="P")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"act": "gelu", "depth": 1, "rate": 2}, "keys in its c.json that are not known: depth, rate;"),
        ({"act": "tanh"}, "m has act='tanh' in its c.json, but only 'gelu' can be reproduced; run the model with P"),
        ({}, "m has no act, which is 'relu' by default, in its c.json"),
        ({"act": None}, "act=None"),
        ({"act": "gelu", "factors": [2, 1]}, "factors=[2, 1]"),
    ],
)
def test_other_keys_and_values__are_refused_by_name(data: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        check_keys(data, TABLE, where="c.json", source="m", program="P")

    assert words in str(error.value)


def changed(folder: Path, name: str, **changes: Any) -> Path:
    """A checkpoint of transformers with other values in a config."""
    write_transformers(folder, HF)
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("config.json", {"quantization_config": {"bits": 4}}),
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"pruned_heads": {"1": [0]}}),
        ("config.json", {"use_timm_backbone": True}),
        ("preprocessor_config.json", {"image_processor_type": "ViTImageProcessor"}),
        ("preprocessor_config.json", {"do_center_crop": True}),
        ("preprocessor_config.json", {"resample": 6}),
        ("preprocessor_config.json", {"resample": "bilinear"}),
        ("preprocessor_config.json", {"size": {"shortest_edge": 64}}),
        ("preprocessor_config.json", {"rescale_factor": 0}),
        ("preprocessor_config.json", {"image_std": [0.5, 0.5, float("inf")]}),
        ("preprocessor_config.json", {"sharpen": True}),
    ],
)
def test_transformers__is_refused_by_the_name_of_the_key(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    (key,) = changes

    assert key in refusal(changed(tmp_path, name, **changes))


@pytest.mark.parametrize(
    ("stated", "mean", "std"),
    [
        ({"size": 32}, 0.5, 0.5),
        ({"size": 32, "image_mean": [0.3] * 3, "image_std": [0.2] * 3}, 0.3, 0.2),
        ({"size": 32, "do_rescale": False}, 0.5 / 255, 0.5 / 255),
        ({"size": 32, "rescale_factor": 2 / 255}, 0.25, 0.25),
        ({"size": 32, "do_normalize": False}, 0, 1),
        ({"size": 32, "do_normalize": False, "do_rescale": False}, 0, 1 / 255),
    ],
)
def test_processor__becomes_mean_and_deviation(stated: dict[str, Any], mean: float, std: float) -> None:
    normalisation, protocol = preprocessing(stated, "m", {})

    assert normalisation["mean"] == pytest.approx([mean] * 3)
    assert normalisation["std"] == pytest.approx([std] * 3)
    assert protocol.net_size == (32, 32)
    assert protocol.resample == "bicubic"  # the default of the class


def test_processor__without_a_file_is_that_of_the_published_models() -> None:
    assert preprocessing({}, "m", {"size": 480, "resample": 2})[1].resample == "bilinear"
