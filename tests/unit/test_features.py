import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.encoder.vit import VisionTransformer
from densevit.errors import ConfigError
from densevit.model import DenseModel
from densevit.training.feature_cache import FeatureCache, encoder_key, to_taps
from tests.factories import tiny_encoder, tiny_model
from tests.tolerances import EXACT


@pytest.fixture
def model() -> DenseModel:
    torch.manual_seed(0)
    return tiny_model("segmenter_linear").eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_cache__is_named_by_weights_and_config_of_the_encoder(model: DenseModel) -> None:
    key = encoder_key(model, 4)
    with torch.no_grad():
        model.get_parameter(next(n for n, _ in model.named_parameters() if n.startswith("heads."))).add_(1)
    assert encoder_key(model, 4) == key
    with torch.no_grad():
        model.get_parameter("encoder.cls_token").add_(1e-3)
    assert encoder_key(model, 4) != key


def test_cache__refuses_an_encoder_with_a_stem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        FeatureCache(tmp_path, tiny_model("dpt/hybrid"))
    assert str(caught.value) == (
        "the feature cache only holds tokens, but this encoder has a convolutional stem; unset features"
    )


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("facts", [{}, {"taps": (1, 3), "final_norm": True}])
def test_encoder__in_two_parts_is_the_encoder(image: torch.Tensor, depth: int, facts: dict[str, object]) -> None:
    encoder = VisionTransformer(tiny_encoder(**facts)).eval()

    with torch.no_grad():
        whole = encoder(image[None])
        parts = encoder.other_blocks(encoder.first_blocks(image[None], depth), whole.grid, depth)

    torch.testing.assert_close(parts.tokens, whole.tokens, **EXACT)
    torch.testing.assert_close(parts.prefix, whole.prefix, **EXACT)


def test_cache__of_the_first_blocks_lets_the_others_learn(
    model: DenseModel, image: torch.Tensor, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path, model, depth=2)
    features = torch.tensor(cache.read(image))[None]

    taps = to_taps(features, model, (2, 3), 2)
    taps.tokens[-1].sum().backward()

    with torch.no_grad():
        expected = model.encode(image[None])
    torch.testing.assert_close(taps.tokens, expected.tokens, rtol=1e-3, atol=1e-3)
    learning = {
        n.split(".")[1] for n, p in model.encoder.blocks.named_parameters(prefix="blocks") if p.grad is not None
    }
    assert learning == {"2", "3"}


def test_cache__holds_a_sequence_once(model: DenseModel, image: torch.Tensor, tmp_path: Path) -> None:
    assert FeatureCache(tmp_path, model, depth=2).read(image).shape == (2, 7, 32)  # taps 0 and 1; 1 is also the last
    assert FeatureCache(tmp_path, model).num_bytes((32, 48)) == 4 * 7 * 32 * 2


def test_cache__of_the_first_blocks_does_not_depend_on_the_others(model: DenseModel) -> None:
    key = encoder_key(model, 2)
    with torch.no_grad():
        model.get_parameter("encoder.blocks.2.norm1.weight").add_(1)
    assert encoder_key(model, 2) == key
    assert encoder_key(model, 3) != key
    assert encoder_key(model, 2, bf16=True) != key


def test_room__more_than_the_bound_is_refused(model: DenseModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        FeatureCache(tmp_path, model).make_room(3_000_000_000, max_gb=2.5)
    assert str(caught.value) == (
        "the features need about 3.0 GB but features.max_gb is 2.5; raise it, take fewer features.views, or a smaller "
        "augment.crop"
    )


def test_room__more_than_the_disk_has_is_refused(model: DenseModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the features need another 1000000000.0 GB but the disk of .* free; name"):
        FeatureCache(tmp_path, model).make_room(10**18, max_gb=1e9)


def test_room__is_made_by_what_nobody_used_for_a_day(model: DenseModel, tmp_path: Path) -> None:
    for name, days in (("old", 3), ("older", 4), ("new", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.npy").write_bytes(bytes(1000))
        (tmp_path / name / "used").touch()
        stamp = (tmp_path / name / "used").stat().st_mtime - days * 86400
        os.utime(tmp_path / name / "used", (stamp, stamp))
    cache = FeatureCache(tmp_path, model)

    cache.make_room(1000, max_gb=3100e-9)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "new", cache.directory.name}

    cache.make_room(1000, max_gb=1000e-9)
    assert {path.name for path in tmp_path.iterdir()} == {"new", cache.directory.name}


@pytest.mark.parametrize("extra", [None, "used", "photo.jpg", "link"])
def test_room__is_never_made_by_folders_of_others(extra: str | None, model: DenseModel, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "depth.npy").write_bytes(bytes(1000))
    names = [] if extra is None else ["used"] if extra == "used" else ["used", extra]
    for name in names:
        (folder / name).mkdir() if extra == "used" else (folder / name).touch()
    if extra == "link":
        (folder / "link").unlink()
        folder.rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
        folder.symlink_to(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    for path in (*folder.iterdir(), folder):
        os.utime(path, (0, 0))

    FeatureCache(tmp_path, model).make_room(1000, max_gb=1000e-9)

    assert (folder / "depth.npy").exists()


def saved(array: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut in the header": lambda data: data[:40],
    "cut in the values": lambda data: data[:-1],
    "not numpy": lambda _: b"PK\3\4" + bytes(400),
    "odd header": lambda data: data.replace(b"'descr'", b"'desc(("),
    "huge shape": lambda data: data.replace(b"(4, 7, 32)", b"(1<<60,7,3"),
    "other shape": lambda _: saved(np.zeros((4, 32, 7), np.float16)),
    "other size": lambda _: saved(np.zeros((4, 6, 32), np.float16)),
    "other type": lambda _: saved(np.zeros((4, 7, 32), np.float32)),
    "objects": lambda _: saved(np.array([{}])),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("ahead", [True, False])
def test_damaged_features__are_encoded_again(
    damage: Callable[[bytes], bytes],
    ahead: bool,
    model: DenseModel,
    image: torch.Tensor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = FeatureCache(tmp_path, model)
    path = cache.ensure(image)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))

    if ahead:
        cache.ensure(image)
    assert cache.read(image).shape == (4, 7, 32)
    assert path.read_bytes() == whole
    assert "is damaged; encoding its image again" in caplog.text


def test_whole_features__are_not_encoded_again(
    model: DenseModel, image: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path, model)
    cache.ensure(image)
    monkeypatch.setattr(model, "encode_first", None)
    cache.ensure(image)
    cache.read(image)
