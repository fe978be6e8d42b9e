import dataclasses
import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from densevit.checkpoints.create import preset_bundle
from densevit.checkpoints.native import (
    METADATA_KEY,
    Bundle,
    Card,
    Storage,
    TrainedOn,
    check_tasks,
    load_bundle,
    read_header,
    save_bundle,
)
from densevit.checkpoints.native_tensors import SCALE_SUFFIX, dequantise_rows, quantise_rows
from densevit.errors import CheckpointError, ConfigError, DataError
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import parse_task
from densevit_runtime.io.outputs import MANIFEST
from tests.disks import files_up_to
from tests.factories import EVA, VARIANTS, random_images, tiny_encoder
from tests.tolerances import EXACT

CLASSES = ("sky", "road", "tree", "car", "sign")


def bundle(seed: int = 0, **facts: Any) -> Bundle:
    """A model with labels and depth; ``facts`` go to the encoder. Buffers, too, hold values of their own."""
    names = {"labels": "setr_naive/mmseg", "depth": "dpt/project, depth"}
    heads = {n: {"decoder": VARIANTS[v].decoder, "out_channels": VARIANTS[v].out_channels} for n, v in names.items()}
    normalisation = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    data = {"encoder": tiny_encoder(**facts), "heads": heads, "normalisation": normalisation}
    torch.manual_seed(seed)
    model = DenseModel(ModelConfig.parse(data, source="tiny")).train()
    with torch.no_grad():
        model(random_images((2, 2)))  # moves the running statistics of batch norm
    tasks = {
        "labels": parse_task({"kind": "segmentation", "classes": CLASSES}),
        "depth": parse_task({"kind": "depth", "max_depth_m": 20.0}),
    }
    card = Card(name="tiny", licence="Apache-2.0", provenance=("random",), metrics={"labels": {"mIoU": 0.25}})
    return Bundle(model.eval(), tasks, InferenceConfig(short_side=64), card)


def rewrite(path: Path, *, drop: str = "", **header: Any) -> Path:
    """The file without the tensors whose names match ``drop``, and with other entries in its header."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()[METADATA_KEY]) | header
    tensors = {name: tensor for name, tensor in load_file(path).items() if not fnmatch(name, drop)}
    save_file(tensors, path, metadata={METADATA_KEY: json.dumps(metadata)})
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of ``bundle()``."""
    path = tmp_path / "model.safetensors"
    save_bundle(bundle(), path)
    return path


def test_round_trip__gives_every_tensor_back_bit_for_bit(saved: Path) -> None:
    expected = bundle().model.state_dict()

    state = load_bundle(saved).model.state_dict()

    assert {n: v.dtype for n, v in state.items()} == {n: v.dtype for n, v in expected.items()}
    assert [n for n in expected if not torch.equal(state[n], expected[n])] == []


@pytest.mark.parametrize(
    "positions",
    [{"kind": "learned", "grid": (3, 3), "num_prefix": 1}, {"kind": "rotary"}, {"kind": "rotary", **EVA}],
    ids=["learned", "rotary", "rotary indices"],
)
def test_round_trip__gives_the_same_outputs(tmp_path: Path, positions: dict[str, Any]) -> None:
    original = bundle(positions=positions)
    save_bundle(original, tmp_path / "model.safetensors")
    images = random_images((2, 3))

    model = load_bundle(tmp_path / "model.safetensors").model

    with torch.inference_mode():
        torch.testing.assert_close(model(images), original.model(images), **EXACT)


def test_round_trip__gives_back_all_that_the_numbers_mean(saved: Path) -> None:
    loaded, original = load_bundle(saved), bundle()

    assert loaded.model.config == original.model.config
    assert (loaded.tasks, loaded.fit, loaded.card) == (original.tasks, original.fit, original.card)


def test_load__gives_a_model_in_evaluation_mode_that_can_be_trained(saved: Path) -> None:
    model = load_bundle(saved).model
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_header__is_read_without_the_weights(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densevit.checkpoints.native.DenseModel", None)

    header = read_header(saved)

    assert header.tasks["labels"].classes == CLASSES
    assert (header.card.name, header.fit.short_side) == ("tiny", 64)


def test_save__on_a_full_disk_is_an_error_and_leaves_the_old_file(saved: Path) -> None:
    before = saved.read_bytes()

    refusal = r"cannot be written \(.*File too large.*; choose another place"
    with files_up_to(len(before) // 2), pytest.raises(DataError, match=refusal):
        save_bundle(bundle(seed=1), saved)

    assert saved.read_bytes() == before
    assert [path for path in saved.parent.iterdir() if path.name != MANIFEST] == [saved]


@pytest.mark.parametrize("shape", [(40, 17), (8, 5, 3, 3)])
def test_quantise__loses_nothing_of_weights_that_came_from_int8(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        weight = torch.randint(-127, 128, shape, generator=generator).to(torch.int8)
        weight.flatten(1)[:, 0] = 127
        scale = torch.rand(shape[0], generator=generator) * 0.01 + 1e-5
        original = dequantise_rows(weight, scale)

        again = dequantise_rows(*quantise_rows(original))

        torch.testing.assert_close(again, original, **EXACT)


def test_quantise__errs_by_at_most_half_a_step_elsewhere() -> None:
    weight = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0))

    stored, scale = quantise_rows(weight)

    error = (dequantise_rows(stored, scale) - weight).abs().flatten(1).amax(dim=1)
    assert (error <= 0.5001 * weight.abs().flatten(1).amax(dim=1) / 127).all()


def test_quantise__keeps_rows_of_zeros_and_tiny_rows() -> None:
    weight = torch.tensor([[0.0, 0.0], [1e-30, -1e-30]])
    torch.testing.assert_close(dequantise_rows(*quantise_rows(weight)), weight, rtol=0.01, atol=0.0)


def test_int8_file__gives_the_dequantised_weights_back_exactly(tmp_path: Path) -> None:
    original = bundle()
    names = [n for n, p in original.model.named_parameters() if n.startswith("encoder.blocks") and p.ndim == 2]
    with torch.no_grad():
        for name in names:
            weight = original.model.get_parameter(name)
            weight.copy_(dequantise_rows(*quantise_rows(weight)))
    expected = {name: value.clone() for name, value in original.model.state_dict().items()}

    save_bundle(original, tmp_path / "m.safetensors", Storage(int8=("encoder.blocks.*.weight",)))

    state = load_bundle(tmp_path / "m.safetensors").model.state_dict()
    assert [n for n in expected if not torch.equal(state[n], expected[n])] == []
    stored = load_file(tmp_path / "m.safetensors")
    assert {n for n, v in stored.items() if v.dtype == torch.int8} == set(names)
    assert {n for n in stored if n.endswith(SCALE_SUFFIX)} == {n + SCALE_SUFFIX for n in names}


def test_int8_file__rounds_other_weights_to_half_a_step_and_no_vector(tmp_path: Path) -> None:
    original = bundle().model.state_dict()

    save_bundle(bundle(), tmp_path / "m.safetensors", Storage(int8=("*",)))

    state = load_bundle(tmp_path / "m.safetensors").model.state_dict()
    for name, value in original.items():
        if value.ndim < 2 or not value.is_floating_point():
            assert torch.equal(state[name], value), name
        else:
            step = value.flatten(1).abs().amax(dim=1, keepdim=True) / 127
            assert ((state[name] - value).flatten(1).abs() <= 0.501 * step).all(), name


def test_float16_file__rounds_what_the_patterns_name(tmp_path: Path) -> None:
    original = bundle().model.state_dict()

    save_bundle(bundle(), tmp_path / "m.safetensors", Storage(float16=("heads.*",)))

    state = load_bundle(tmp_path / "m.safetensors").model.state_dict()
    for name, value in original.items():
        rounded = value.half().float() if name.startswith("heads.") and value.is_floating_point() else value
        assert state[name].dtype == rounded.dtype
        assert torch.equal(state[name], rounded), name


def test_storage__prefers_int8_where_both_fit() -> None:
    storage = Storage(int8=("encoder.*",), float16=("*",))
    kinds = [storage.kind(f"{room}.weight", torch.zeros(2, 2)) for room in ("encoder", "heads")]
    assert kinds == ["int8", "float16"]
    assert storage.kind("encoder.norm.bias", torch.zeros(2)) == "float16"
    assert storage.kind("encoder.count", torch.zeros((), dtype=torch.int64)) == "plain"


def test_load__refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_bundle(tmp_path / "m.safetensors")
    assert str(caught.value) == (
        f"there is no checkpoint {tmp_path / 'm.safetensors'}; give the path of a .safetensors file"
    )


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_load__refuses_the_safetensors_file_of_another_program(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "m.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError) as caught:
        load_bundle(tmp_path / "m.safetensors")
    assert str(caught.value) == (
        f"{tmp_path / 'm.safetensors'} is a safetensors file of another program; a densevit checkpoint has its "
        "config inside; for pre-trained encoder weights set encoder_weights in a training config"
    )


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_load__refuses_a_truncated_file(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"is not a complete safetensors file \(.*\); download it again"):
        load_bundle(saved)


def test_load__refuses_a_newer_format_even_with_unknown_entries(saved: Path) -> None:
    rewrite(saved, format=4, novelty=1)
    with pytest.raises(CheckpointError) as caught:
        load_bundle(saved)
    assert str(caught.value) == f"{saved} has format 4 but this densevit reads up to 3; update densevit"


def test_save__writes_what_the_heads_learnt_from_as_format_2(saved: Path) -> None:
    data = TrainedOn(heads=("labels",), train={"kind": "folder", "background": "sky"}, val={"split": "val"})

    save_bundle(dataclasses.replace(bundle(), trained_on=(data,)), saved)

    assert (read_header(saved).format, read_header(saved).trained_on) == (2, (data,))
    assert load_bundle(saved).trained_on == (data,)


def test_save__without_it_writes_format_1_which_older_programs_read(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        metadata = json.loads(file.metadata()[METADATA_KEY])
    assert (metadata["format"], list(metadata)) == (1, ["format", "model", "tasks", "fit", "card"])


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "one"}'])
def test_load__refuses_damaged_metadata(tmp_path: Path, text: str) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "m.safetensors", metadata={METADATA_KEY: text})
    with pytest.raises(CheckpointError, match=r"the metadata of .* are damaged \(.*\); download the file again"):
        load_bundle(tmp_path / "m.safetensors")


def test_load__refuses_an_unknown_entry_of_its_own_format(saved: Path) -> None:
    rewrite(saved, crad={})
    with pytest.raises(CheckpointError, match="crad: unknown key; did you mean 'card'"):
        load_bundle(saved)


def test_load__refuses_tasks_that_are_not_those_of_the_heads(saved: Path) -> None:
    rewrite(saved, tasks={"labels": {"kind": "segmentation", "classes": CLASSES}})
    with pytest.raises(CheckpointError, match=r"heads are \['depth', 'labels'\] but tasks are \['labels'\]"):
        load_bundle(saved)


def test_load__refuses_missing_tensors(saved: Path) -> None:
    rewrite(saved, drop="encoder.blocks.0.attn.qkv.*")
    with pytest.raises(CheckpointError) as caught:
        load_bundle(saved)
    assert str(caught.value) == (
        f"{saved} does not fit its own config: 2 tensors missing (encoder.blocks.0.attn.qkv.bias, "
        "encoder.blocks.0.attn.qkv.weight), 0 unknown (), 0 of another shape (); download the file again"
    )


def test_load__refuses_tensors_of_another_shape_and_unknown_ones(saved: Path) -> None:
    narrower = bundle().model.config.plain()
    narrower["encoder"]["positions"]["grid"] = (2, 3)
    del narrower["heads"]["depth"]
    rewrite(saved, model=narrower, tasks={"labels": {"kind": "segmentation", "classes": CLASSES}})
    with pytest.raises(CheckpointError, match=r"[1-9]\d* unknown \(heads.depth.* 1 of another shape \(encoder.pos_em"):
        load_bundle(saved)


def test_bundle__refuses_a_task_of_another_width() -> None:
    original = bundle()
    tasks = original.tasks | {"labels": parse_task({"kind": "segmentation", "classes": ("sky", "road")})}
    with pytest.raises(ConfigError) as caught:
        Bundle(original.model, tasks, original.fit, original.card)
    assert str(caught.value) == "head 'labels' has 5 output channels but its task needs 2"


def test_bundle__refuses_a_size_for_a_head_that_is_not_there() -> None:
    original = bundle()
    with pytest.raises(ConfigError, match=r"fit\.heads names 'label'; did you mean 'labels'"):
        Bundle(original.model, original.tasks, InferenceConfig(heads={"label": 64}), original.card)


def test_check_tasks__refuses_a_head_without_a_task() -> None:
    with pytest.raises(ConfigError) as caught:
        check_tasks(bundle().model.config, {}, InferenceConfig())
    assert str(caught.value) == "heads are ['depth', 'labels'] but tasks are []; give one task for each head"


@pytest.mark.parametrize(
    ("name", "head", "kind", "channels", "short_side"),
    [("segmenter-ti-mask", "labels", "segmentation", 150, 512), ("depth-anything-s", "depth", "depth", 1, 518)],
)
def test_preset_bundle__has_the_presets_facts(name: str, head: str, kind: str, channels: int, short_side: int) -> None:
    with torch.device("meta"):
        made = preset_bundle(name)

    assert (made.card.name, made.fit.short_side) == (name, short_side)
    assert {n: (task.kind, task.out_channels) for n, task in made.tasks.items()} == {head: (kind, channels)}
    assert not made.model.training


def test_preset_bundle__refuses_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match="there is no preset 'segmenter-s-mesk'; did you mean 'segmenter-s-mask'"):
        preset_bundle("segmenter-s-mesk")


def test_save__metadata_are_strict_json_even_with_a_figure_that_is_not_a_number(tmp_path: Path) -> None:
    bundle = preset_bundle("segmenter-ti-mask")
    path = tmp_path / "m.safetensors"
    save_bundle(dataclasses.replace(bundle, card=Card(metrics={"labels": {"IoU": float("nan")}})), path)
    assert read_header(path).card.metrics == {"labels": {"IoU": None}}


WEIGHT = "encoder.blocks.0.mlp.fc1.weight"


def restored(path: Path, metadata: dict[str, Any] | None = None, **tensors: torch.Tensor | None) -> Path:
    """The file with other tensors, or without those that are None, and other metadata."""
    with safe_open(path, framework="pt") as file:
        stored = json.loads(file.metadata()[METADATA_KEY])
    state = {name: t for name, t in (load_file(path) | tensors).items() if t is not None}
    save_file(state, path, metadata={METADATA_KEY: json.dumps(stored if metadata is None else metadata)})
    return path


def claimed(path: Path, keys: str, value: Any) -> Path:
    """The file with another value in the config of its model."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()[METADATA_KEY])
    *parents, last = keys.split(".")
    inner = metadata["model"]
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return restored(path, metadata)


REFUSED = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64)


@pytest.mark.parametrize("dtype", [*REFUSED, torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_load__refuses_weights_of_another_dtype(saved: Path, dtype: torch.dtype) -> None:
    restored(saved, **{WEIGHT: load_file(saved)[WEIGHT].to(dtype)})

    with pytest.raises(CheckpointError, match=rf"has {WEIGHT} .* dtype {str(dtype).removeprefix('torch.')}; float16"):
        load_bundle(saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_load__converts_other_floats(saved: Path, dtype: torch.dtype) -> None:
    weight = load_file(saved)[WEIGHT].to(dtype)

    loaded = load_bundle(restored(saved, **{WEIGHT: weight})).model.state_dict()[WEIGHT]

    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, weight.float())


def test_load__refuses_counts_that_are_no_integers(saved: Path) -> None:
    (name, *_) = (name for name in load_file(saved) if name.endswith("num_batches_tracked"))

    with pytest.raises(CheckpointError, match=f"has {name} .* dtype float32; int64 is accepted"):
        load_bundle(restored(saved, **{name: torch.tensor(1.0)}))


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.int8, torch.ones(3)),
        (torch.int8, torch.ones(64, dtype=torch.int32)),
        (torch.float32, torch.ones(64)),
    ],
    ids=["another length", "integers", "of floats"],
)
def test_load__refuses_scales_that_do_not_fit(saved: Path, dtype: torch.dtype, scale: torch.Tensor) -> None:
    weight = load_file(saved)[WEIGHT].to(dtype)

    with pytest.raises(CheckpointError, match=f"has {WEIGHT} .* with scales of shape"):
        load_bundle(restored(saved, **{WEIGHT: weight, WEIGHT + SCALE_SUFFIX: scale}))


def test_load__refuses_a_scale_of_nothing(saved: Path) -> None:
    with pytest.raises(CheckpointError, match=f"1 unknown .encoder.none{SCALE_SUFFIX}."):
        load_bundle(restored(saved, **{f"encoder.none{SCALE_SUFFIX}": torch.ones(2)}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_load__refuses_weights_that_are_not_finite(saved: Path, value: float) -> None:
    weight = load_file(saved)[WEIGHT]
    weight[3, 5] = value

    with pytest.raises(CheckpointError, match=f"has NaN or infinity in {WEIGHT}; weights must be finite"):
        load_bundle(restored(saved, **{WEIGHT: weight}))


def test_load__refuses_scales_that_are_not_finite(saved: Path) -> None:
    scale = torch.full((64,), float("nan"))

    with pytest.raises(CheckpointError, match=f"has NaN or infinity in {WEIGHT}"):
        load_bundle(restored(saved, **{WEIGHT: torch.ones(64, 32, dtype=torch.int8), WEIGHT + SCALE_SUFFIX: scale}))


def test_load__takes_finite_weights_whose_sum_overflows(saved: Path) -> None:
    weight = torch.full((64, 32), 3e38)

    assert torch.equal(load_bundle(restored(saved, **{WEIGHT: weight})).model.state_dict()[WEIGHT], weight)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        *(
            (f"encoder.{key}", value)
            for key in ("embed_dim", "patch_size", "num_registers", "in_channels", "depth", "num_heads")
            for value in (10**9, 2**62, 10**30)
        ),
        ("encoder.positions.grid", [10**9, 10**9]),
        ("encoder.positions.grid", [10**6, 10**6]),
        ("encoder.positions.num_prefix", 2**62),
        ("encoder.positions.offset", 1e9),
        ("encoder.mlp_ratio", 1e300),
        ("encoder.mlp_ratio", 1e6),
        ("encoder.taps", list(range(10**5))),
        ("heads.depth.out_channels", 2**62),
        ("heads.depth.taps", [0] * 10**5),
        ("heads.depth.decoder.fusion_channels", 2**62),
        ("heads.depth.decoder.channels", [10**6] * 4),
        ("heads.depth.decoder.factors", [1e300, 2, 1, 0.5]),
        ("heads.depth.decoder.factors", [1e-320, 2, 1, 0.5]),
        ("heads.depth.decoder.pool", 10**12),
        ("heads.depth.decoder.head.hidden_channels", 10**12),
        ("heads.labels.decoder.channels", 10**12),
        ("heads.labels.decoder.aux_taps", [0] * 10**5),
        ("heads.labels.decoder", {"kind": "setr_pup", "aux_taps": [0], "aux_convs": 10**7}),
        ("heads.labels.decoder", {"kind": "segmenter_mask", "depth": 10**7}),
        ("heads.labels.decoder", {"kind": "segmenter_mask", "depth": 900}),
        ("encoder.stem", {"layers": [10**7, 1, 1]}),
        ("encoder.stem", {"layers": [1, 1, 1], "channels": [33, 33, 33]}),
        ("normalisation.std", [1e-300, 1, 1]),
        ("normalisation.mean", [1e300, 1, 1]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_load__refuses_what_a_config_claims_beyond_its_file(saved: Path, keys: str, value: Any) -> None:
    with pytest.raises(CheckpointError):
        load_bundle(claimed(saved, keys, value))


def test_load__compares_the_number_of_blocks_before_any_is_made(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = {
        f"head{i}": {"decoder": {"kind": "segmenter_mask", "depth": 90}, "out_channels": 5, "taps": [3]}
        for i in range(9)
    }
    claimed(saved, "heads", heads)
    with safe_open(saved, framework="pt") as file:
        metadata = json.loads(file.metadata()[METADATA_KEY])
    restored(saved, metadata | {"tasks": dict.fromkeys(heads, metadata["tasks"]["labels"])})
    monkeypatch.setattr(DenseModel, "__init__", lambda *args: pytest.fail("a model is built"))

    with pytest.raises(CheckpointError, match=r"its config claims 823 blocks and branches"):
        load_bundle(saved)


@pytest.mark.parametrize(
    "text",
    [
        '{"format": Infinity}',
        '{"format": 1e999}',
        f'{{"format": {"9" * 5000}}}',
        "[" * 10**5 + "]" * 10**5,
        '{"format": -1}',
    ],
)
def test_load__refuses_metadata_of_impossible_numbers_and_depth(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "m.safetensors", metadata={METADATA_KEY: text})

    with pytest.raises(CheckpointError):
        read_header(tmp_path / "m.safetensors")


def test_model__that_torch_cannot_build_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEVIT_LIMITS", "width=1e12")
    encoder = tiny_encoder(embed_dim=10**10, num_heads=1)
    heads = {"labels": {"decoder": {"kind": "segmenter_linear"}, "out_channels": 2}}

    with torch.device("meta"), pytest.raises(ConfigError, match="no model can be built of this config"):
        DenseModel(ModelConfig.parse({"encoder": encoder, "heads": heads}))
