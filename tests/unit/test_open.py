"""``open_model``: which file a source names, and options that do not belong to it."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import densevit
from densevit.checkpoints.files import read_state_dict
from densevit.checkpoints.native import save_bundle
from densevit.checkpoints.open import model_facts, open_model
from densevit.errors import CheckpointError, ConfigError
from tests.parity.foreign import write_mmseg, write_segmenter

ACCEPTED = (
    "accepted: heads, device, speed, engine, quality, and for checkpoints of other programs config, as_source, "
    "num_heads, decoder_heads, taps, aux_taps, image_size, norm_eps, readout, release, scale, shift, invert, signed, "
    "max_depth_m, dataset, licence, encoder_weights"
)


@pytest.fixture
def native(tmp_path: Path) -> Path:
    path = tmp_path / "native.safetensors"
    save_bundle(open_model(write_mmseg(tmp_path / "w.pth")), path)
    return path


@pytest.mark.parametrize("source", ["default", "segmenter-ti-mask", "no/such/file.pth", "hf://owner/name"])
def test_unknown_option__is_refused_before_a_file_is_opened(source: str) -> None:
    with pytest.raises(ConfigError) as caught:
        densevit.load(source, hedas=["depth"])
    assert str(caught.value) == f"load() got an unknown option 'hedas'; did you mean 'heads'?; {ACCEPTED}"


@pytest.mark.parametrize(
    ("name", "hint"),
    [("num_head", "; did you mean 'num_heads'?"), ("as_sourec", "; did you mean 'as_source'?"), ("x", "")],
)
def test_unknown_option__is_compared_with_all_that_are_accepted(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_model("default", **{name: 1})
    assert str(caught.value) == f"load() got an unknown option {name!r}{hint}; {ACCEPTED}"


@pytest.mark.parametrize("option", [{"num_heads": 2}, {"as_source": "mmseg"}, {"config": "variant.yml"}])
def test_native_checkpoint__takes_no_import_overrides(option: dict[str, Any], native: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_model(native, **option)
    assert str(caught.value) == (
        f"{native} is a densevit checkpoint and takes no import overrides, but {next(iter(option))} was given; "
        "leave it out"
    )


def test_override__with_a_wrong_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"num_heads: Input should be greater than 0 \(got -1\)"):
        open_model(write_segmenter(tmp_path), num_heads=-1)


def test_importer_by_name__is_checked_before_the_weights_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("no weights")
    with pytest.raises(CheckpointError, match="there is no importer 'mmsegg'; did you mean 'mmseg'"):
        open_model(tmp_path / "w.pth", as_source="mmsegg")


@pytest.mark.parametrize("name", ["native", "foreign"])
def test_model_facts__are_those_of_the_opened_model(name: str, native: Path, tmp_path: Path) -> None:
    source = {"native": native, "foreign": tmp_path / "w.pth"}[name]
    bundle = open_model(source)
    assert model_facts(source) == (bundle.model.config, bundle.tasks, bundle.fit)


def test_folder__is_opened_by_the_weights_inside(native: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    native.rename(folder / "model.safetensors")
    assert open_model(folder).model.config == model_facts(folder).model


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["model.safetensors", "other.pth"])
def test_pipe__is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)

    for source in (tmp_path, tmp_path / name):
        with pytest.raises(CheckpointError, match="is a device or a pipe"):
            open_model(source)


@pytest.mark.parametrize(
    "source", ["/dev/zero", "a\0b", "x" * 5000, "~no-such-user/m.pth", "dangling.pth"], ids=lambda s: s[:12]
)
def test_source__that_is_no_file_is_refused(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dangling.pth").symlink_to("nowhere")

    with pytest.raises(CheckpointError):
        open_model(source)
    with pytest.raises(CheckpointError):
        model_facts(source)


def test_prefixes__of_endless_names_are_taken_off_a_few_times(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"module." * 5000 + "a": torch.ones(1)}, path)

    assert next(iter(read_state_dict(path))).startswith("module.")
