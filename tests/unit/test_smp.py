"""DPT of segmentation_models.pytorch, from its golden fixture, with changes that its users make."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from densevit.checkpoints.importers import Imported
from densevit.checkpoints.open import import_file
from densevit.errors import CheckpointError
from densevit.inference.protocols import forward
from tests.parity.foreign import FIXTURES
from tests.tolerances import EXACT, SAME_MATHS

State = dict[str, Tensor]
FIXTURE = FIXTURES["smp-dpt-cat"]
CONFIG: dict[str, Any] = dict(FIXTURE.description["smp_config"])


def written(folder: Path, state: State | None = None, config: dict[str, Any] | None = None, **changes: Any) -> str:
    """A folder as ``save_pretrained`` writes it; an empty config leaves the file out."""
    tensors = {name: tensor.contiguous() for name, tensor in (state or dict(FIXTURE.state)).items()}
    save_file(tensors, folder / "model.safetensors")
    stated = (CONFIG if config is None else config) | changes
    if stated:
        (folder / "config.json").write_text(json.dumps(stated))
    return str(folder)


def logits(imported: Imported) -> Tensor:
    with torch.inference_mode():
        return forward("dpt", imported.bundle.model, "labels")(FIXTURE.outputs["case0.input"])


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        import_file(written(folder, **changes))
    return str(error.value)


def test_config__names_the_encoder_and_its_statistics(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = import_file(written(tmp_path)).bundle.model

    assert model.config.encoder.taps == (0, 2, 3, 5)
    assert model.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert "does not say by which mean and deviation images were normalised; those of test_vit are taken" in caplog.text


def test_statistics__are_those_of_the_named_weights(tmp_path: Path) -> None:
    model = import_file(written(tmp_path, encoder_name="tu-vit_small_patch8_224.dino", num_heads=2)).bundle.model

    assert model.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_prefix_of_lightning__is_taken_off(tmp_path: Path) -> None:
    plain, wrapped = tmp_path / "plain", tmp_path / "wrapped"
    plain.mkdir()
    wrapped.mkdir()
    state = {f"model.{name}": tensor for name, tensor in FIXTURE.state.items()}

    ours = logits(import_file(written(wrapped, state)))

    torch.testing.assert_close(ours, logits(import_file(written(plain))), **EXACT)


def test_file_without_a_config__asks_for_what_no_tensor_tells(tmp_path: Path) -> None:
    folder = written(tmp_path, config={})

    with pytest.raises(CheckpointError, match=r"does not say num_heads .* taps .* norm_eps"):
        import_file(folder)
    told = import_file(folder, num_heads=2, taps=(0, 2, 3, 5), norm_eps=1e-6)

    torch.testing.assert_close(logits(told), FIXTURE.outputs["case0.output"], **SAME_MATHS)


def test_one_channel__becomes_two_classes(tmp_path: Path) -> None:
    state = dict(FIXTURE.state)
    for param in ("weight", "bias"):
        state[f"segmentation_head.head.4.{param}"] = state[f"segmentation_head.head.4.{param}"][1:]

    imported = import_file(written(tmp_path, state, classes=1, activation="sigmoid"))

    ours = logits(imported)
    assert not ours[:, 0].any()
    torch.testing.assert_close(ours[:, 1], FIXTURE.outputs["case0.output"][:, 1], **SAME_MATHS)
    counts = imported.counts
    assert counts.source == counts.built + counts.ignored + counts.absorbed


def test_another_width__asks_for_the_heads(tmp_path: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "num_heads"}

    assert "does not say num_heads" in refusal(tmp_path, config=config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder_depth": 3}, "encoder_depth=3"),
        ({"activation": "sigmoid"}, "activation='sigmoid' on 2 channels"),
        ({"_model_class": "Unet"}, "_model_class='Unet'"),
        ({"act_layer": "relu"}, "act_layer='relu'"),
        ({"decoder_window": 3}, "not known: decoder_window"),
        ({"encoder_name": "tu-swin_tiny_patch4_window7_224"}, "another model"),
        ({"encoder_name": "tu-vit_small_patch16_rope_mixed_224"}, "rotary frequencies are learned"),
        ({"encoder_output_indices": [0, 1, 1, 5]}, "a decoder of 4 levels on 3 blocks"),
        ({"encoder_output_indices": "all"}, "unexpected value"),
    ],
)
def test_settings_that_cannot_be_reproduced__are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in refusal(tmp_path, **changes)


def test_encoder_of_clip__needs_its_config(tmp_path: Path) -> None:
    norms = {f"encoder.model.norm_pre.{param}": torch.ones(8) for param in ("weight", "bias")}

    assert "whose activation no tensor tells" in refusal(tmp_path, state=dict(FIXTURE.state) | norms, config={})


def test_encoder_without_positions__is_refused_where_none_are_named(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in FIXTURE.state.items() if not name.endswith("pos_embed")}

    assert "an encoder without position embeddings" in refusal(tmp_path, state=state)
