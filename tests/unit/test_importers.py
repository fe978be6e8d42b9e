"""What importers read from files and from the files beside them, what they ask, and what they refuse."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from densevit.checkpoints.importers import IMPORTERS, Imported, ImportOverrides, Source, build
from densevit.checkpoints.open import import_file, open_model
from densevit.decoders.segmenter import SegmenterMaskConfig
from densevit.encoder.positions import LearnedPositions, positions_for
from densevit.errors import CheckpointError, ConfigError
from densevit.inference.protocols import forward, window_logits
from densevit.inference.tiled_logits import full
from densevit.inference_config import WindowProtocol
from densevit.tasks import Depth, Segmentation
from densevit_lab.parity.fixture import Fixture
from tests.parity.foreign import (
    DPT,
    FIXTURES,
    HF,
    MMSEG,
    MMSEG_NO_BIAS,
    SEGMENTER,
    state_of,
    write_mmseg,
    write_segmenter,
    write_transformers,
)
from tests.tolerances import EXACT


def refusal(source: Path | str, **options: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        import_file(str(source), **options)
    return str(error.value)


def test_segmenter__is_read_from_its_folder(tmp_path: Path) -> None:
    write_segmenter(tmp_path)

    imported = import_file(str(tmp_path), decoder_heads=2)

    encoder = imported.bundle.model.config.encoder
    assert imported.importer == "segmenter"
    assert (encoder.num_heads, encoder.norm_eps, encoder.dist_token, encoder.final_norm) == (2, 1e-5, True, True)
    assert imported.bundle.model.config.normalisation.mean[0] == pytest.approx(123.68 / 255)


def test_segmenter__has_the_protocol_of_its_published_numbers(tmp_path: Path) -> None:
    write_segmenter(tmp_path)

    protocol = import_file(str(tmp_path)).bundle.protocol

    assert protocol is not None
    assert protocol.plain() == {
        "kind": "segmenter",
        "base": [2048, 512],
        "window": [64, 64],
        "stride": [32, 32],
        "tta_scales": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75],
        "tta_of": "base",
    }


def test_segmenter__without_variant_asks_for_the_heads(tmp_path: Path) -> None:
    path = write_segmenter(tmp_path)
    (tmp_path / "variant.yml").unlink()

    assert refusal(path) == (
        f"{path} does not say num_heads (attention heads of the encoder), nor does a config file next to it; "
        "put the config of the model into the same folder, or give --num-heads to "
        "`densevit convert` (num_heads=... in Python)"
    )


def test_overrides__stand_for_the_config(tmp_path: Path) -> None:
    path = write_segmenter(tmp_path / "with")
    expected = import_file(str(path)).bundle.model.config
    (tmp_path / "with" / "variant.yml").unlink()

    given = import_file(str(path), num_heads=2, image_size=(64, 64)).bundle.model.config

    assert given.encoder.num_heads == expected.encoder.num_heads
    assert given.encoder.positions == expected.encoder.positions


def test_unknown_override__is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'num_heads'"):
        import_file(str(write_segmenter(tmp_path)), num_head=2)


def test_mmseg__is_read_with_the_config_inside(tmp_path: Path) -> None:
    imported = import_file(str(write_mmseg(tmp_path / "iter_160000.pth")))

    task = imported.bundle.tasks["labels"]
    assert imported.importer == "mmseg"
    assert imported.bundle.model.config.encoder.taps == (0, 1, 2, 3)
    assert isinstance(task, Segmentation)
    assert task.denominator == "all"


def test_mmseg__is_read_with_the_config_beside(tmp_path: Path) -> None:
    path = write_mmseg(tmp_path / "setr.pth", with_meta=False)
    (tmp_path / "setr.py").write_text(f"model = {MMSEG.description['mmseg_model_cfg']!r}\n")
    (tmp_path / "tool.py").write_text("import os\nprint(os.getcwd())\n")

    assert import_file(str(path)).bundle.model.config.encoder.num_heads == 2


def test_mmseg__with_two_configs_beside_asks_which(tmp_path: Path) -> None:
    path = write_mmseg(tmp_path / "setr.pth", with_meta=False)
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(f"model = {MMSEG.description['mmseg_model_cfg']!r}\n")

    assert "name it to `densevit convert` by --config" in refusal(path)
    assert import_file(str(path), config=tmp_path / "a.py").bundle.model.config.encoder.num_heads == 2


def test_mmseg__without_any_config_asks(tmp_path: Path) -> None:
    message = refusal(write_mmseg(tmp_path / "setr.pth", with_meta=False))

    assert "give --num-heads and --taps to `densevit convert` (num_heads=..., taps=... in Python)" in message


@pytest.mark.parametrize("bias", [True, False])
def test_mmseg__keeps_the_patch_bias_whatever_its_config_says(bias: bool, tmp_path: Path) -> None:
    """From 1.2 on mmsegmentation builds no patch bias by default and drops that of released weights."""
    fixture = MMSEG if bias else MMSEG_NO_BIAS
    model = json.loads(json.dumps(fixture.description["mmseg_model_cfg"]))
    del model["backbone"]["patch_bias"]
    described = Fixture(fixture.name, dict(fixture.description) | {"mmseg_model_cfg": model}, fixture.tensors)

    built = import_file(str(write_mmseg(tmp_path / "w.pth", described))).bundle.model

    stored = state_of(fixture).get("backbone.patch_embed.projection.bias")
    assert (stored is not None) == bias
    assert built.config.encoder.patch_bias == bias
    if stored is not None:
        assert stored.abs().sum() > 0
        torch.testing.assert_close(built.state_dict()["encoder.patch_embed.proj.bias"], stored, **EXACT)


def test_mmseg__with_a_setting_that_cannot_be_reproduced_is_refused(tmp_path: Path) -> None:
    model = json.loads(json.dumps(MMSEG.description["mmseg_model_cfg"]))
    model["decode_head"]["conv_cfg"] = {"type": "Conv2dAdaptivePadding"}
    described = Fixture(MMSEG.name, dict(MMSEG.description) | {"mmseg_model_cfg": model}, MMSEG.tensors)

    message = refusal(write_mmseg(tmp_path / "w.pth", described))

    assert "conv_cfg={'type': 'Conv2dAdaptivePadding'} in its decode_head, but only None can be reproduced" in message


def test_mmseg__with_aligned_corners_in_some_heads_only_is_refused(tmp_path: Path) -> None:
    model = json.loads(json.dumps(MMSEG.description["mmseg_model_cfg"]))
    model["decode_head"]["align_corners"] = True
    described = Fixture(MMSEG.name, dict(MMSEG.description) | {"mmseg_model_cfg": model}, MMSEG.tensors)

    message = refusal(write_mmseg(tmp_path / "w.pth", described))

    assert "align_corners=True in its decode_head and another value in an auxiliary_head" in message


@pytest.mark.parametrize("size", [(64, 96), (57, 45)])
@pytest.mark.parametrize("variant", ["setr-pup-aligned", "setr-mla-aligned", "dpt-aligned"])
def test_mmseg__aligns_the_corners_of_every_resize(variant: str, size: tuple[int, int]) -> None:
    """Also of the last one, to a photo of another size than what the network ran."""
    fixture = FIXTURES[f"mmseg-{variant}"]
    bundle = build("mmseg", IMPORTERS["mmseg"], fixture.source()).bundle
    network = forward("mmseg", bundle.model, "labels")
    image = fixture.outputs["case0.input"]

    with torch.no_grad():
        field = window_logits(WindowProtocol(kind="mmseg", base=None), network, image, size=size)
        inner = network(image)

    assert bundle.model.decoder("labels").align_corners
    expected = torch.nn.functional.interpolate(inner, size=size, mode="bilinear", align_corners=True)[0]
    torch.testing.assert_close(full(field), expected, rtol=1e-4, atol=1e-4)


def test_transformers__is_read_from_its_folder(tmp_path: Path) -> None:
    bundle = open_model(str(write_transformers(tmp_path / "dpt")))

    assert bundle.model.config.encoder.norm_eps == 1e-12
    assert bundle.protocol is not None
    assert bundle.protocol.plain()["net_size"] == [64, 64]


def test_transformers__takes_class_names_from_id2label(tmp_path: Path) -> None:
    config = dict(HF.description["hf_config"]) | {"id2label": {str(i): f"thing {i}" for i in range(6)}}
    folder = write_transformers(tmp_path, Fixture(HF.name, dict(HF.description) | {"hf_config": config}, HF.tensors))

    task = open_model(str(folder)).tasks["labels"]

    assert isinstance(task, Segmentation)
    assert task.classes == tuple(f"thing {i}" for i in range(6))


def test_transformers__without_config_asks(tmp_path: Path) -> None:
    folder = write_transformers(tmp_path)
    (folder / "config.json").unlink()

    assert "--num-heads and --taps and --norm-eps" in refusal(folder)


def test_transformers__with_another_activation_is_refused(tmp_path: Path) -> None:
    config = dict(HF.description["hf_config"]) | {"hidden_act": "relu"}
    folder = write_transformers(tmp_path, Fixture(HF.name, dict(HF.description) | {"hf_config": config}, HF.tensors))

    assert "hidden_act='relu' in its config.json, but only 'gelu' can be reproduced" in refusal(folder)


def test_dpt__asks_for_the_release_that_shapes_do_not_tell(tmp_path: Path) -> None:
    torch.save(state_of(DPT), tmp_path / "renamed.pt")

    message = refusal(tmp_path / "renamed.pt", num_heads=2, taps=(1, 2))

    assert "release (which of the releases with these shapes it is)" in message
    assert "--release" in message


@pytest.mark.parametrize(
    ("name", "quantity"), [("dpt_hybrid-midas-501f0c75.pt", "disparity"), ("dpt_hybrid_kitti-cb926ef4.pt", "depth")]
)
def test_dpt__knows_a_release_by_its_published_name(name: str, quantity: str, tmp_path: Path) -> None:
    torch.save(state_of(DPT), tmp_path / name)

    task = import_file(str(tmp_path / name), num_heads=2, taps=(1, 2)).bundle.tasks["depth"]

    assert isinstance(task, Depth)
    assert task.quantity == quantity


def test_native_checkpoint__is_opened_as_it_is(tmp_path: Path) -> None:
    from densevit.checkpoints.native import save_bundle

    first = open_model(str(write_mmseg(tmp_path / "w.pth")))
    save_bundle(first, tmp_path / "w.safetensors")

    again = open_model(str(tmp_path / "w.safetensors"))

    assert again.protocol == first.protocol
    assert again.model.config == first.model.config
    for name, tensor in first.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, **EXACT)


def test_native_checkpoint__is_not_converted_again(tmp_path: Path) -> None:
    from densevit.checkpoints.native import save_bundle

    save_bundle(open_model(str(write_mmseg(tmp_path / "w.pth"))), tmp_path / "w.safetensors")

    assert "is a densevit checkpoint already" in refusal(tmp_path / "w.safetensors")


def test_half_precision__becomes_float32(tmp_path: Path) -> None:
    state = {key: t.half() if t.is_floating_point() else t for key, t in state_of(SEGMENTER).items()}

    model = import_file(str(write_segmenter(tmp_path, state=state))).bundle.model

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_mixed_file__is_refused(tmp_path: Path) -> None:
    save_file(state_of(SEGMENTER) | state_of(DPT), tmp_path / "both.safetensors")

    assert "has the names of rstrudel/segmenter and isl-org/DPT in one file" in refusal(tmp_path / "both.safetensors")


def imported_as(fixture: Fixture, change: Callable[[torch.Tensor], torch.Tensor]) -> Imported:
    source = fixture.source()
    state = {key: change(t) if t.is_floating_point() else t for key, t in source.state.items()}
    return build(fixture.origin, IMPORTERS[fixture.origin], replace(source, state=state))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name, fixture in FIXTURES.items() if fixture.tensors])
def test_weights_of_16_bits__are_those_that_were_rounded_before(name: str, dtype: torch.dtype) -> None:
    """Of every program: what an importer folds or scales is computed in float32, and the report says so."""
    ours = imported_as(FIXTURES[name], lambda t: t.to(dtype))
    expected = imported_as(FIXTURES[name], lambda t: t.to(dtype).float())

    state = ours.bundle.model.state_dict()
    said = f"{str(dtype).removeprefix('torch.')} in the file, float32 here"
    assert all(torch.equal(state[key], t) for key, t in expected.bundle.model.state_dict().items())
    assert {key for key, t in state.items() if t.is_floating_point()} == {
        row.name for row in ours.report.rows if row.note.endswith(said)
    }


def test_half_match__is_refused_with_the_names(tmp_path: Path) -> None:
    state = state_of(SEGMENTER)
    del state["decoder.head.bias"]
    state["decoder.excess_entropy"] = torch.ones(3)

    message = refusal(write_segmenter(tmp_path, state=state))

    assert "nothing was loaded" in message
    assert "not understood: decoder.excess_entropy" in message
    assert "not in the file: heads.labels.head.bias" in message


def test_gap_in_the_blocks__is_refused(tmp_path: Path) -> None:
    state = {key: t for key, t in state_of(SEGMENTER).items() if not key.startswith("encoder.blocks.1.")}

    assert "must run from 0 without gaps" in refusal(write_segmenter(tmp_path, state=state))


def test_block_number_without_end__is_refused_at_once(tmp_path: Path) -> None:
    state = state_of(SEGMENTER) | {"encoder.blocks.999999999.norm1.weight": torch.ones(64)}

    assert "must run from 0 without gaps" in refusal(write_segmenter(tmp_path, state=state))


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_weights_of_another_kind__are_refused(dtype: torch.dtype, tmp_path: Path) -> None:
    state = state_of(SEGMENTER) | {"decoder.head.weight": state_of(SEGMENTER)["decoder.head.weight"].to(dtype)}

    message = refusal(write_segmenter(tmp_path, state=state))

    assert f"has decoder.head.weight as {str(dtype).removeprefix('torch.')}" in message


def test_shape_without_axes__is_refused(tmp_path: Path) -> None:
    state = state_of(SEGMENTER) | {"encoder.patch_embed.proj.weight": torch.ones(3)}

    assert "needs 4 axes" in refusal(write_segmenter(tmp_path, state=state))


def test_nan__is_refused(tmp_path: Path) -> None:
    state = state_of(SEGMENTER) | {"decoder.head.bias": torch.full((4,), float("nan"))}

    assert "has NaN or infinity in decoder.head.bias" in refusal(write_segmenter(tmp_path, state=state))


@pytest.mark.parametrize(
    "variant", ["net_kwargs: [1, 2", "net_kwargs: {n_heads: many}", "- 1", "net_kwargs: {n_heads: 7}"]
)
def test_config_that_makes_no_sense__is_refused(variant: str, tmp_path: Path) -> None:
    path = write_segmenter(tmp_path)
    (tmp_path / "variant.yml").write_text(variant)

    assert refusal(path)


def test_yaml__constructs_no_objects(tmp_path: Path) -> None:
    path = write_segmenter(tmp_path)
    mark = tmp_path / "ran"
    (tmp_path / "variant.yml").write_text(f"net_kwargs: !!python/object/apply:pathlib.Path.touch [{mark}]\n")

    assert "cannot be read" in refusal(path)
    assert not mark.exists()


def test_plain_encoder__is_pointed_to_training(tmp_path: Path) -> None:
    encoder = {key.removeprefix("encoder."): t for key, t in state_of(SEGMENTER).items() if key.startswith("encoder.")}
    save_file(encoder, tmp_path / "vit.safetensors")

    assert "plain encoder without a decoder" in refusal(tmp_path / "vit.safetensors")


def test_stranger__is_refused(tmp_path: Path) -> None:
    save_file({"layer1.0.conv1.weight": torch.ones(2)}, tmp_path / "resnet.safetensors")

    assert "has tensor names of no known program (layer1.0.conv1.weight, ...)" in refusal(
        tmp_path / "resnet.safetensors"
    )


def test_source_by_name__must_exist(tmp_path: Path) -> None:
    assert "did you mean 'segmenter'" in refusal(write_segmenter(tmp_path), as_source="segmentor")


def test_folder_with_several_files__asks_which(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        torch.save(state_of(SEGMENTER), tmp_path / name)

    assert "is a folder with 2 weights files (a.pth, b.pth)" in refusal(tmp_path)


def test_every_importer__recognises_its_own_alone() -> None:
    for fixture in FIXTURES.values():
        if fixture.tensors:
            found = [n for n, row in IMPORTERS.items() if row.recognises(Source(fixture.name, fixture.state))]
            assert found == [fixture.origin]


def mmseg_changed(change: Any, fixture: Fixture = MMSEG) -> Imported:
    """A fixture of mmsegmentation whose config was changed."""
    model = json.loads(json.dumps(fixture.description["mmseg_model_cfg"]))
    change(model)
    return build(
        "mmseg", IMPORTERS["mmseg"], Source("x", fixture.state, {"mmseg": {"model": model}}, ImportOverrides())
    )


def test_blocks_after_the_last_tap__are_ignored_with_a_reason() -> None:
    def change(model: dict[str, Any]) -> None:
        model["backbone"]["out_indices"] = [0, 1, 2]
        model["decode_head"]["in_index"] = 2

    imported = mmseg_changed(change)

    late = [row for row in imported.report.rows if row.name.startswith("backbone.layers.3.")]
    assert {(row.status, row.note) for row in late} == {("ignored", "after the last tap, 2")}
    assert imported.counts.source == imported.counts.built + imported.counts.ignored + imported.counts.absorbed


def test_mmseg__gives_blocks_in_their_own_order() -> None:
    """Its backbone collects them as it runs, however ``out_indices`` lists them."""
    imported = mmseg_changed(lambda model: model["backbone"].update(out_indices=[3, 2, 1, 0, 3]))

    assert imported.bundle.model.config.head_taps("labels") == (0, 1, 2, 3)


def test_mmseg__leaves_the_class_token_out_as_its_config_says() -> None:
    imported = mmseg_changed(lambda model: model["backbone"].update(with_cls_token=False))

    encoder = imported.bundle.model.config.encoder
    assert (encoder.cls_token, encoder.num_prefix) == (False, 0)
    assert imported.counts.source == imported.counts.built + imported.counts.ignored + imported.counts.absorbed


def test_mmseg__takes_the_epsilon_of_the_mask_transformer_from_its_config() -> None:
    def change(model: dict[str, Any]) -> None:
        model["decode_head"]["norm_cfg"] = {"type": "LN", "eps": 1e-3}

    imported = mmseg_changed(change, FIXTURES["mmseg-segmenter-mask-epsprobe"])

    decoder = imported.bundle.model.config.heads["labels"].decoder
    assert isinstance(decoder, SegmenterMaskConfig)
    assert decoder.norm_eps == 1e-3


@pytest.mark.parametrize(
    ("part", "setting", "message"),
    [
        ("backbone", {"out_origin": True}, "out_origin=True in its backbone, but only False"),
        ("backbone", {"act_cfg": {"type": "ReLU"}}, "act_cfg={'type': 'ReLU'} in its backbone, but only GELU"),
        ("decode_head", {"up_scale": 2}, "up_scale=2 in its decode_head, but only 4"),
        (
            "decode_head",
            {"norm_cfg": {"type": "BN", "eps": 1e-3}},
            "in its decode_head, but only BN or BN2d or SyncBN or MMSyncBN with eps 1e-05",
        ),
    ],
)
def test_mmseg__with_a_setting_without_counterpart_is_refused(part: str, setting: Any, message: str) -> None:
    with pytest.raises(CheckpointError) as error:
        mmseg_changed(lambda model: model[part].update(setting))

    assert message in str(error.value)


@pytest.mark.parametrize("name", ["segmenter-official-linear-p16-distilled", "mmseg-segmenter-linear"])
def test_positions__stay_for_a_grid_of_equal_count_where_the_source_compares_lengths(name: str) -> None:
    fixture = FIXTURES[name]
    built = build(fixture.origin, IMPORTERS[fixture.origin], fixture.source()).bundle.model
    stored = built.encoder.pos_embed[:, -16:]
    rule = built.config.encoder.positions
    assert isinstance(rule, LearnedPositions)

    assert positions_for(stored, rule, (2, 8)) is stored
    assert positions_for(stored, rule, (2, 9)).shape == (1, 18, stored.shape[2])


def hf_changed(fixture: Fixture = HF, **settings: Any) -> Imported:
    """A fixture of transformers whose config was changed."""
    config = dict(fixture.description["hf_config"]) | settings
    return build("transformers", IMPORTERS["transformers"], Source("x", fixture.state, {"config.json": config}))


def test_transformers__with_a_setting_that_shapes_do_not_show_is_refused() -> None:
    with pytest.raises(CheckpointError, match="can be reproduced; run the model with transformers"):
        hf_changed(head_in_index=0)


def test_transformers__takes_other_factors() -> None:
    imported = hf_changed(reassemble_factors=[4, 2, 1, 0.25])

    assert imported.bundle.model.config.heads["labels"].decoder.plain()["factors"] == [4, 2, 1, 0.25]


def test_transformers__takes_blocks_in_their_own_order() -> None:
    imported = hf_changed(backbone_out_indices=[4, 3, 2, 1])

    assert imported.bundle.model.config.encoder.taps == (1, 2, 3, 4)


def test_transformers__counts_negative_stages_from_the_last_block() -> None:
    fixture = FIXTURES["hf-depth-anything-metric"]
    backbone = dict(fixture.description["hf_config"]["backbone_config"]) | {"out_indices": [-4, -3, -2, -1]}

    imported = hf_changed(fixture, backbone_config=backbone)

    assert imported.bundle.model.config.encoder.taps == (1, 2, 3, 4)


def test_transformers__multiplies_relative_depth_by_its_factor_too() -> None:
    fixture = FIXTURES["hf-depth-anything-metric"]
    plain, scaled = (
        hf_changed(fixture, depth_estimation_type="relative", max_depth=factor).bundle.model.state_dict()
        for factor in (None, 7)
    )

    torch.testing.assert_close(
        scaled["heads.depth.head.conv3.weight"], plain["heads.depth.head.conv3.weight"] * 7, **EXACT
    )
