"""Transformer blocks in CPU inference: as with gradients up to rounding, and nothing a caller keeps is overwritten."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from densevit.blocks import Block
from densevit.encoder import VisionTransformer
from densevit.encoder.config import EncoderConfig
from densevit.kernels import block_inference, product
from densevit.kernels.activations import ACTIVATIONS, Activation

needs_kernel = pytest.mark.skipif(product.load() is None, reason="no C compiler, no AVX-512, or an Intel")


def block(activation: Activation = "gelu", layer_scale: float | None = None, mlp: str = "mlp") -> Block:
    torch.manual_seed(0)
    made = Block(48, 3, mlp_hidden_dim=100, mlp=mlp, activation=activation, layer_scale=layer_scale)  # type: ignore[arg-type]
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made.eval()


def tokens(seed: int = 1) -> Tensor:
    return torch.randn(2, 37, 48, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The branches that ran as one."""
    seen: list[str] = []
    for name in ("attention_branch", "mlp_branch"):
        monkeypatch.setattr(block_inference, name, _noting(getattr(block_inference, name), name, seen))
    return seen


def _noting(call: Callable[..., Tensor], name: str, seen: list[str]) -> Callable[..., Tensor]:
    def noting(*args: object, **kwargs: object) -> Tensor:
        seen.append(name)
        return call(*args, **kwargs)

    return noting


@needs_kernel
@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_block__is_the_same_with_and_without_gradients(
    activation: Activation, layer_scale: float | None, fused: list[str]
) -> None:
    layer, x = block(activation, layer_scale), tokens()
    expected, before = layer(x).detach(), x.clone()
    assert fused == []

    with torch.inference_mode():
        found = layer(x)

    assert fused == ["attention_branch", "mlp_branch"]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert torch.equal(x, before)


@needs_kernel
@torch.inference_mode()
def test_halves__leave_their_arguments_alone(fused: list[str]) -> None:
    layer, x = block(), tokens()

    half = layer.attend(x)
    kept = half.clone()
    whole = layer.feed_forward(half)

    assert len(fused) == 2
    assert torch.equal(half, kept)
    assert torch.equal(whole, layer(x))


@torch.inference_mode()
def test_taps__are_not_changed_by_later_blocks_and_images() -> None:
    torch.manual_seed(0)
    positions = {"kind": "learned", "grid": (6, 6)}
    facts = {"embed_dim": 48, "depth": 3, "num_heads": 3, "patch_size": 4, "positions": positions}
    first, every = (
        VisionTransformer(EncoderConfig.parse(facts | {"taps": taps}, source="a test")).eval()
        for taps in ((0,), (0, 1, 2))
    )
    first.load_state_dict(every.state_dict(), strict=False)
    image = torch.rand(1, 3, 24, 24)

    taps = every(image)
    kept = [t.clone() for t in taps.tokens]
    every(torch.rand(1, 3, 24, 24))

    assert all(torch.equal(a, b) for a, b in zip(taps.tokens, kept, strict=True))
    assert torch.equal(taps.tokens[0], first(image).tokens[0])


@torch.inference_mode()
def test_threads__may_share_a_block() -> None:
    layer, inputs = block(), [tokens(seed) for seed in range(8)]
    expected = [layer(x) for x in inputs]

    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return [layer(x) for _ in range(20)][-1]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, inputs))

    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    "name", ["attn", "attn.qkv", "attn.proj", "mlp", "mlp.fc1", "mlp.fc2", "norm1", "norm2", "ls1"]
)
@torch.inference_mode()
def test_hooks__see_what_passes_through_their_module(name: str) -> None:
    layer, x = block("quick_gelu", 0.1), tokens()
    plain = layer(x)
    seen: list[Tensor] = []
    layer.get_submodule(name).register_forward_hook(lambda module, args, output: seen.append(output))

    found = layer(x)

    assert len(seen) == 1
    torch.testing.assert_close(found, plain, atol=2e-5, rtol=0)
    if name == "mlp.fc1":
        fc1, y = layer.mlp.fc1, layer.norm2(layer.attend(x))
        torch.testing.assert_close(seen[0], nn.functional.linear(y, fc1.weight, fc1.bias), atol=2e-5, rtol=0)


class Twice(nn.Linear):
    """Stands for an adapter."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("name", ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"])
@torch.inference_mode()
def test_layers__of_other_classes_are_called(name: str) -> None:
    layer, x = block(), tokens()
    parent, _, child = name.rpartition(".")
    old = layer.get_submodule(name)
    new = Twice(old.in_features, old.out_features)
    new.load_state_dict(old.state_dict())
    setattr(layer.get_submodule(parent), child, new)

    found = layer(x)

    for parameter in old.parameters():
        parameter *= 2
    setattr(layer.get_submodule(parent), child, old)
    torch.testing.assert_close(found, layer(x), atol=2e-5, rtol=0)


@torch.no_grad()
def test_training_mode__keeps_its_randomness() -> None:
    layer, x = Block(48, 3, mlp_hidden_dim=100, drop_path=0.5, dropout=0.3).train(), tokens()

    torch.manual_seed(0)
    first = layer(x)
    second = layer(x)

    assert not torch.equal(first, second)


@torch.inference_mode()
def test_swiglu__runs_in_steps(fused: list[str]) -> None:
    layer, x = block(mlp="swiglu"), tokens()

    assert layer(x).shape == x.shape
    assert "mlp_branch" not in fused
