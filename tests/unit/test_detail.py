"""The branch on the image: what it reads, and that cached features and images come to the same."""

from typing import Any

import pytest
import torch

from densevit.checkpoints.adapt import change_classes
from densevit.decoders import parse_decoder
from densevit.model import DenseModel, ModelConfig
from densevit.training.feature_cache import to_taps
from densevit.types import Taps
from tests.factories import VARIANTS, tiny_encoder, tiny_model


def with_detail(patch_size: int = 16, *, in_channels: int = 3) -> DenseModel:
    encoder = tiny_encoder(patch_size=patch_size, in_channels=in_channels)
    head: dict[str, Any] = {"decoder": VARIANTS["dpt/detail, segmentation"].decoder, "out_channels": 5}
    statistics = {"mean": (0.5,) * in_channels, "std": (0.2,) * in_channels}
    torch.manual_seed(0)
    return DenseModel(ModelConfig(encoder=encoder, heads={"main": head}, normalisation=statistics)).eval()


@pytest.mark.parametrize("patch_size", [7, 14, 16])
@torch.inference_mode()
def test_detail__sees_a_line_that_the_tokens_do_not(patch_size: int) -> None:
    model = with_detail(patch_size)
    images = torch.rand(1, 3, 12 * patch_size, 3 * patch_size)
    taps = model.encode(images)
    assert taps.image is not None
    scratched = taps.image.clone()
    scratched[:, :, 10] = 3.0

    plain, changed = (
        model.decode(Taps(taps.tokens, taps.prefix, taps.grid, taps.patch_size, image=image))["main"].logits
        for image in (taps.image, scratched)
    )

    rows = (plain - changed).abs().amax(dim=(0, 1, 3)).nonzero()[:, 0]
    height = plain.shape[2]
    assert rows.min() <= 10 * height / images.shape[2] <= rows.max()
    assert len(rows) < height / 2  # near the line, not everywhere


def test_detail__takes_images_of_the_encoders_channels() -> None:
    model = with_detail(in_channels=5)

    assert model(torch.rand(1, 5, 32, 48))["main"].logits.shape == (1, 5, 16, 24)


def test_detail__keeps_its_weights_when_the_classes_change() -> None:
    model = with_detail(in_channels=4)
    before = {name: tensor.clone() for name, tensor in model.decoder("main").state_dict().items()}

    new = change_classes(model, "main", 7)

    after = model.decoder("main").state_dict()
    assert model(torch.rand(1, 4, 32, 48))["main"].logits.shape[1] == 7
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if f"heads.main.{name}" not in new)


@torch.inference_mode()
def test_cached_features_and_images__give_the_logits_of_the_whole_model() -> None:
    model = with_detail()
    images = torch.rand(2, 3, 48, 64)
    features = torch.stack(model.encode_first(images, len(model.encoder.blocks)), dim=1)

    taps = to_taps(features, model, (3, 4), len(model.encoder.blocks), images)

    torch.testing.assert_close(model.decode(taps)["main"].logits, model(images)["main"].logits)


def test_other_heads__get_no_image() -> None:
    model = tiny_model("dpt/ignore, segmentation")
    seen: list[Taps] = []
    model.decoder("main").register_forward_pre_hook(lambda module, given: seen.append(given[0]))

    model(torch.rand(1, 3, 32, 32))

    assert seen[0].image is None


def test_width_of_the_branch__must_not_be_negative() -> None:
    with pytest.raises(ValueError, match="detail_channels"):
        parse_decoder(VARIANTS["dpt/detail, segmentation"].decoder | {"detail_channels": -1})
