import re
from typing import Any

import pytest
import torch

from densevit.errors import ConfigError, ShapeError
from densevit.model import DenseModel, ModelConfig
from tests.factories import STEM, VARIANTS, random_images, tiny_encoder, tiny_model
from tests.tolerances import EXACT, SAME_MATHS

LINEAR: dict[str, Any] = {"decoder": {"kind": "segmenter_linear"}, "out_channels": 5}


def config(heads: dict[str, Any], **facts: Any) -> ModelConfig:
    """A model config around a tiny encoder with taps 0 to 3."""
    normalisation = facts.pop("normalisation", {})
    return ModelConfig.parse({"encoder": tiny_encoder(**facts), "heads": heads, "normalisation": normalisation})


def build(heads: dict[str, Any], **facts: Any) -> DenseModel:
    """The model of such a config, in evaluation mode."""
    torch.manual_seed(0)
    return DenseModel(config(heads, **facts)).eval()


def test_encode__normalises_with_the_configs_mean_and_std() -> None:
    model = build({"main": LINEAR}, normalisation={"mean": (0.1, 0.2, 0.3), "std": (0.5, 1.0, 2.0)})
    images = random_images((2, 3))

    expected = model.encoder((images - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / model.std)

    torch.testing.assert_close(model.encode(images).tokens, expected.tokens, **SAME_MATHS)


def test_state_dict__holds_no_normalisation() -> None:
    assert not {"mean", "std"} & set(build({"main": LINEAR}).state_dict())


def test_heads__give_together_what_each_gives_alone() -> None:
    model = build({"labels": LINEAR, "depth": {"decoder": VARIANTS["dpt/project, depth"].decoder, "out_channels": 1}})
    images = random_images((2, 3))

    together = model(images)

    for name in ("labels", "depth"):
        torch.testing.assert_close(model(images, (name,)), {name: together[name]}, **EXACT)


def test_heads__read_the_taps_they_name_in_their_order() -> None:
    model = build({"main": LINEAR | {"taps": (2, 0)}})
    images = random_images((2, 3))

    tokens = model.encode(images).tokens[0]  # the linear decoder reads the last of its taps

    expected = model.heads["main"].head(tokens).transpose(1, 2).unflatten(2, (2, 3))
    torch.testing.assert_close(model(images)["main"].logits, expected, **EXACT)


def test_blocks__that_no_head_reads_are_not_run() -> None:
    model = build({"early": LINEAR | {"taps": (0, 1)}, "late": LINEAR})
    ran: list[torch.nn.Module] = []
    for block in model.encoder.blocks:
        block.register_forward_hook(lambda module, *_: ran.append(module))

    model(random_images((2, 3)), ("early",))

    assert ran == list(model.encoder.blocks[:2])
    assert model.needed_blocks() == (1, 3)
    taps = model.encoder(random_images((2, 3)), (1,))
    assert [t.shape[1] for t in taps.tokens] == [0, 6, 0, 0]
    assert model.train().needed_blocks(("early",)) == (0, 1)  # for auxiliary heads


def test_dpt__without_stem_levels_ignores_the_stem_of_its_encoder() -> None:
    dpt = {"decoder": VARIANTS["dpt/ignore, segmentation"].decoder, "out_channels": 5}

    assert build({"main": dpt}, stem=STEM)(random_images((2, 2)))["main"].logits.shape == (2, 5, 16, 16)


@pytest.mark.parametrize("seed", range(8))
def test_depth__is_not_dead_at_the_start(seed: int) -> None:
    model = tiny_model("dpt/ignore, depth", seed=seed)

    with torch.no_grad():
        assert bool((model(random_images((2, 2)))["main"].logits > 0).any())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (3, 32, 32),
            "images have shape (3, 32, 32) but must be (B, 3, H, W); add the batch dimension or put channels first",
        ),
        (
            (2, 32, 32, 3),
            "images have shape (2, 32, 32, 3) but must be (B, 3, H, W); add the batch dimension or put channels first",
        ),
        (
            (1, 3, 32, 40),
            "image is 32 x 40 but both sides must be multiples of patch size 16; "
            "pad to 32 x 48 or use Predictor, which does it",
        ),
    ],
)
def test_images__of_a_wrong_shape_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        build({"main": LINEAR})(torch.zeros(shape))


def test_images__of_integers_are_refused() -> None:
    message = "images are torch.uint8 but must be float in [0, 1]; divide uint8 images by 255"

    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        build({"main": LINEAR})(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("heads", "facts", "message"),
    [
        ({}, {}, "heads: Dictionary should have at least 1 item"),
        ({"a.b": LINEAR}, {}, "head name 'a.b' cannot name a module; use a plain word such as 'depth' or 'streets'"),
        ({"pop": LINEAR}, {}, "head name 'pop' cannot name a module"),
        ({"main": LINEAR | {"taps": (1, 9)}}, {}, "head 'main' reads taps [9] but the encoder gives (0, 1, 2, 3)"),
        ({"main": LINEAR | {"taps": ()}}, {}, "heads.main.taps: Tuple should have at least 1 item"),
        ({"main": LINEAR | {"out_channels": 0}}, {}, "heads.main.out_channels: Input should be greater than 0"),
        (
            {"main": {"decoder": {"kind": "setr_pup", "aux_taps": (0, 4)}, "out_channels": 5}},
            {},
            "head 'main' has aux_taps (0, 4) but they are positions in 0..3",
        ),
        (
            {"main": {"decoder": VARIANTS["dpt/ignore, depth"].decoder, "out_channels": 1, "taps": (1, 3)}},
            {},
            "head 'main' reads 2 taps but dpt takes 4",
        ),
        (
            {"main": {"decoder": VARIANTS["dpt/hybrid"].decoder, "out_channels": 5, "taps": (1, 3)}},
            {},
            "head 'main' expects stem maps (128, 128), the encoder gives ()",
        ),
        (
            {"main": LINEAR},
            {"in_channels": 4},
            "mean, std and encoder.in_channels have (3, 3, 4) channels but must agree",
        ),
        (
            {"main": LINEAR},
            {"normalisation": {"std": (0.2, 0.0, 0.2)}},
            "std.1: Input should be greater than or equal to 0.000001",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_config__refuses(heads: dict[str, Any], facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        config(heads, **facts)


def test_segmenter__refuses_heads_that_do_not_divide_the_width() -> None:
    message = "segmenter_mask has 5 heads but embed_dim 32 is no multiple of that; set num_heads"

    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build({"main": {"decoder": {"kind": "segmenter_mask", "num_heads": 5}, "out_channels": 2}})
