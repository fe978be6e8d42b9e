"""Every key of a config beside a checkpoint is used, checked, or ignored for a reason; others are refused by name."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from densevit.checkpoints.importers import IMPORTERS, Imported, Source, build
from densevit.checkpoints.importers.keys import check_keys, checked, ignored, used
from densevit.checkpoints.importers.python_config import WHOLE, Unknown
from densevit.checkpoints.importers.transformers_processor import preprocessing
from densevit.checkpoints.open import import_file
from densevit.errors import CheckpointError, DensevitError
from densevit.inference_config import WindowProtocol
from densevit_lab.parity.fixture import Fixture
from densevit_lab.reference_importers import SECTIONS, importer_keys_page
from tests.parity.foreign import FIXTURES, HF, MMSEG, write_segmenter, write_transformers


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
        ("preprocessor_config.json", {"image_std": [0.5, 0.5, 0.0]}),
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


def mmseg_with(fixture: Fixture = MMSEG, *, drop: str = "", **places: Any) -> Imported:
    """A checkpoint of mmsegmentation with other settings, by place; a dot leads to a part of the model."""
    config: dict[str, Any] = {"model": json.loads(json.dumps(fixture.description["mmseg_model_cfg"]))}
    for place, settings in places.items():
        part = config["model"] if place == "model" else config["model"].get(place)
        if isinstance(part, dict):
            part.update(settings)
        else:
            config[place] = settings
    if drop:
        place, _, key = drop.partition(".")
        del config["model"][place][key]
    return build("mmseg", IMPORTERS["mmseg"], Source("x", fixture.state, {"mmseg": config}))


MLA = FIXTURES["mmseg-setr-mla"]
STATISTICS = {"mean": [123.0, 116.0, 103.0], "std": [58.0, 57.0, 57.0]}


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("bgr_to_rgb", {"data_preprocessor": STATISTICS}),
        ("bgr_to_rgb", {"data_preprocessor": {**STATISTICS, "bgr_to_rgb": False}}),
        ("rgb_to_bgr", {"data_preprocessor": {"bgr_to_rgb": True, "rgb_to_bgr": True}}),
        ("test_cfg", {"data_preprocessor": {"bgr_to_rgb": True, "test_cfg": {"size_divisor": 32}}}),
        ("to_rgb", {"img_norm_cfg": {**STATISTICS, "to_rgb": False}}),
        ("act_cfg", {"decode_head": {"act_cfg": None}}),
        ("norm_layer", {"decode_head": {"norm_layer": {"type": "LN"}}}),
        ("norm_layer", {"decode_head": {"norm_layer": {"type": "LN", "eps": 1e-2}}}),
        ("norm_cfg", {"decode_head": {"norm_cfg": {"type": "GN", "num_groups": 4}}}),
        ("norm_cfg", {"backbone": {"norm_cfg": {"type": "RMSNorm"}}}),
        ("squeeze", {"backbone": {"squeeze": 1}}),
        ("type", {"decode_head": {"type": "SETRUPHeadPlus"}}),
        ("type", {"model": {"type": "CascadeEncoderDecoder"}}),
        ("num_stages", {"model": {"num_stages": 2}}),
        ("overlap", {"test_cfg": {"mode": "whole", "overlap": 3}}),
        ("keep_ratio", {"test_pipeline": [{"type": "Resize", "scale": (64, 32)}]}),
        ("keep_ratio", {"test_pipeline": [{"type": "Resize", "scale": (64, 32), "keep_ratio": False}]}),
        ("scale_factor", {"test_pipeline": [{"type": "Resize", "scale_factor": 0.5, "keep_ratio": True}]}),
        ("interpolation", {"test_pipeline": [{"type": "Resize", "keep_ratio": True, "interpolation": "bicubic"}]}),
        ("ResizeToMultiple", {"test_pipeline": [{"type": "ResizeToMultiple", "size_divisor": 32}]}),
        ("color_type", {"test_pipeline": [{"type": "LoadImageFromFile", "color_type": "grayscale"}]}),
    ],
)
def test_mmseg__is_refused_by_the_name_of_the_key(key: str, change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=key):
        mmseg_with(**change)


COMPUTED = Unknown(ast.parse("make(1)").body[0])


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("model", {"model": {WHOLE: COMPUTED}}),
        ("model.backbone", {"model": {"backbone": COMPUTED}}),
        ("model.backbone.num_heads", {"backbone": {"num_heads": COMPUTED}}),
        ("model.backbone.out_indices[1]", {"backbone": {"out_indices": [0, COMPUTED]}}),
        ("model.backbone.norm_cfg.eps", {"backbone": {"norm_cfg": {"type": "LN", "eps": COMPUTED}}}),
        ("model.backbone.act_cfg", {"backbone": {"act_cfg": COMPUTED}}),
        ("model.backbone", {"backbone": {WHOLE: COMPUTED}}),
        ("model.decode_head.act_cfg", {"decode_head": {"act_cfg": COMPUTED}}),
        ("model.decode_head.norm_cfg.type", {"decode_head": {"norm_cfg": {"type": COMPUTED}}}),
        ("model.decode_head.in_index", {"decode_head": {"in_index": COMPUTED}}),
        ("model.auxiliary_head[0]", {"model": {"auxiliary_head": [COMPUTED]}}),
        ("model.test_cfg.stride", {"test_cfg": {"mode": "slide", "crop_size": (32, 32), "stride": COMPUTED}}),
        ("data_preprocessor.mean[0]", {"data_preprocessor": {"bgr_to_rgb": True, "mean": [COMPUTED] * 3, "std": [1]}}),
        ("img_norm_cfg.to_rgb", {"img_norm_cfg": {**STATISTICS, "to_rgb": COMPUTED}}),
        ("test_pipeline", {"test_pipeline": COMPUTED}),
        ("test_pipeline[0].scale", {"test_pipeline": [{"type": "Resize", "scale": COMPUTED, "keep_ratio": True}]}),
        ("dataset_type", {"dataset_type": COMPUTED}),
    ],
)
def test_mmseg__is_refused_where_a_value_that_is_read_is_computed(place: str, change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError) as error:
        mmseg_with(**change)

    assert str(error.value).startswith(f"x: {place} is computed in the config (make(1)), and nothing in it is run;")


def test_mmseg__may_compute_what_is_not_read() -> None:
    unread = {"optimizer": COMPUTED, "train_pipeline": [COMPUTED], "hooks": {WHOLE: COMPUTED}}
    step = {"type": "Collect", "meta_keys": COMPUTED}
    parts = {"model": {"train_cfg": COMPUTED, "init_cfg": {WHOLE: COMPUTED}}, "decode_head": {"loss_decode": COMPUTED}}

    plain, computed = mmseg_with(), mmseg_with(**unread, **parts, test_pipeline=[step])

    assert computed.bundle.model.config == plain.bundle.model.config


def test_mmseg__without_an_activation_in_the_neck_has_none() -> None:
    mmseg_with(MLA)  # states ReLU

    with pytest.raises(CheckpointError, match="no act_cfg, which is None by default, in its neck"):
        mmseg_with(MLA, drop="neck.act_cfg")


@pytest.mark.parametrize(
    ("pipeline", "base"),
    [
        ([{"type": "LoadImageFromFile"}, {"type": "PackSegInputs"}], None),
        ([{"type": "Resize", "scale": (40, 90), "keep_ratio": True}], (90, 40)),
        ([{"type": "Resize", "scale": 40, "keep_ratio": True}], (40, 40)),
        ([{"type": "MultiScaleFlipAug", "img_scale": (90, 40), "transforms": [{"type": "Resize"}]}], (90, 40)),
    ],
)
def test_mmseg__resizes_as_its_test_pipeline_says(pipeline: list[Any], base: tuple[int, int] | None) -> None:
    protocol = mmseg_with(test_pipeline=pipeline).bundle.protocol

    assert isinstance(protocol, WindowProtocol)
    assert protocol.base == base


def test_mmseg__without_a_mean_does_not_normalise() -> None:
    config = mmseg_with(data_preprocessor={"bgr_to_rgb": True, "size": (32, 32)}).bundle.model.config

    assert config.normalisation.mean == (0, 0, 0)
    assert config.normalisation.std == pytest.approx((1 / 255,) * 3)


def test_mmseg__with_one_output_channel_is_refused() -> None:
    state = MMSEG.state | {
        f"{head}.conv_seg.{p}": MMSEG.state[f"{head}.conv_seg.{p}"][:1]
        for head in ("decode_head", "auxiliary_head.0", "auxiliary_head.1", "auxiliary_head.2")
        for p in ("weight", "bias")
    }

    with pytest.raises(CheckpointError, match="one output channel"):
        build(
            "mmseg", IMPORTERS["mmseg"], Source("x", state, {"mmseg": {"model": MMSEG.description["mmseg_model_cfg"]}})
        )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("net_kwargs:\n  rotary: true", "keys in its variant.yml, net_kwargs that are not known: rotary"),
        ("net_kwargs:\n  n_heads: 2\n  decoder:\n    gate: 1", "variant.yml, decoder that are not known: gate"),
        ("dataset_kwargs:\n  normalization: half", "normalization='half' in its variant.yml, dataset_kwargs"),
        ("ema_kwargs: {}", "keys in its variant.yml that are not known: ema_kwargs"),
    ],
)
def test_segmenter__is_refused_by_the_name_of_the_key(line: str, words: str, tmp_path: Path) -> None:
    path = write_segmenter(tmp_path)
    (tmp_path / "variant.yml").write_text(line + "\n")

    with pytest.raises(CheckpointError, match=words):
        import_file(str(path), num_heads=2, decoder_heads=2, image_size=(64, 64))


def test_page_of_keys__has_every_table() -> None:
    page = importer_keys_page()

    for tables in SECTIONS.values():
        for title, keys in tables.items():
            section = page.split(f"### {title}\n")[1].split("\n#")[0]
            assert all(f"`{key}`" in section for key in keys), title
