"""What kernels write is float32, whatever type torch gives to new tensors by default."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from densevit.kernels.attention import attend
from densevit.kernels.cpu_training import attention as training_attention
from densevit.upsampling import upsample_decoded, upsample_values
from densevit.upsampling.loss import upsample_cross_entropy

LOGITS = torch.randn(2, 5, 6, 4, generator=torch.Generator().manual_seed(0))
TARGET = torch.randint(5, (2, 30, 20), generator=torch.Generator().manual_seed(1))
QKV = torch.randn(3, 2, 2, 70, 64, generator=torch.Generator().manual_seed(2))


def attention() -> list[Tensor | None]:
    with torch.inference_mode():
        return [attend(*QKV.unbind(0))]


def attention_with_gradients() -> list[Tensor | None]:
    qkv = QKV.permute(1, 3, 0, 2, 4).flatten(2)  # (B, T, 3 C)
    out, sums = training_attention.forward(qkv, 2)
    return [out, sums, training_attention.backward(out, qkv, out, sums, 2)]


def decoding() -> list[Tensor | None]:
    found = upsample_decoded(LOGITS[0], (30, 20), align_corners=False, scores=True, entropy=True)
    return [found.labels, found.scores, found.entropy, upsample_values(LOGITS[0], (30, 20), align_corners=True)]


def cross_entropy() -> list[Tensor | None]:
    leaf = LOGITS.clone().requires_grad_()
    total = upsample_cross_entropy(leaf, TARGET, align_corners=False)
    total.backward()
    return [total.detach(), leaf.grad]


@pytest.fixture
def float64_by_default() -> Iterator[Callable[[], None]]:
    """Switch to float64; back at the end."""
    yield lambda: torch.set_default_dtype(torch.float64)
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("results", [attention, attention_with_gradients, decoding, cross_entropy])
def test_results__do_not_hang_on_the_default_type(
    results: Callable[[], list[Tensor | None]], float64_by_default: Callable[[], None]
) -> None:
    expected = results()
    float64_by_default()
    found = results()

    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
