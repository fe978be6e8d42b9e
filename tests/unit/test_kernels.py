"""Kernels that take the place of torch's forms: equal up to rounding, and only where nothing is lost by them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.blocks import Attention
from densevit.kernels import attention, build, dispatch, linear, product
from densevit.kernels.dispatch import use_kernel
from densevit.kernels.linear import Linear
from densevit.layers import ConvBnRelu
from densevit_lab.benchmark.flops import count_flops
from tests.needs import needs_attention

needs_onednn = pytest.mark.skipif(linear.onednn_product() is None, reason="oneDNN's product is not taken here")


def qkv(tokens: int, width: int, *, batch: int = 1, heads: int = 2, size: float = 1.0) -> tuple[Tensor, ...]:
    """Views of one projection, as ``Attention`` has them."""
    generator = torch.Generator().manual_seed(tokens + width)
    x = size * torch.randn(batch, tokens, 3, heads, width, generator=generator)
    return x.permute(2, 0, 3, 1, 4).unbind(0)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double()).transpose(1, 2).flatten(2).float()


@needs_attention
@pytest.mark.parametrize("tokens", [1, 5, 63, 64, 65, 239, 241, 256, 257, 1025])
@pytest.mark.parametrize("width", attention.HEAD_DIMS)
def test_attention__is_torchs_up_to_rounding(tokens: int, width: int) -> None:
    q, k, v = qkv(tokens, width, batch=2)

    with torch.inference_mode():
        found = attention.attend(q, k, v)

    assert found is not None
    torch.testing.assert_close(found, plain(q, k, v), atol=2e-6, rtol=0)


@needs_attention
def test_attention__stands_logits_of_any_size() -> None:
    q, k, v = qkv(300, 64, size=30.0)

    with torch.inference_mode():
        found = attention.attend(q, k, v)
        nothing = attention.attend(q * 0, k, v)

    assert found is not None
    assert nothing is not None
    single = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # the logits' own rounding shows here
    worst = [float((x - plain(q, k, v)).abs().max()) for x in (found, single)]
    assert worst[0] < 3 * worst[1]
    torch.testing.assert_close(nothing, plain(q * 0, k, v), atol=1e-5, rtol=0)


@needs_attention
def test_attention__passes_nan_on() -> None:
    q, k, v = qkv(70, 32)
    k = k.clone()
    k[0, 0, 3] = float("nan")

    with torch.inference_mode():
        found = attention.attend(q, k, v)

    assert found is not None
    assert found[..., :32].isnan().all()
    assert found[..., 32:].isfinite().all()


@needs_attention
@pytest.mark.parametrize("threads", [2, 3])
def test_attention__does_not_depend_on_threads_or_batch(threads: int) -> None:
    q, k, v = qkv(130, 64, batch=3)
    before = torch.get_num_threads()
    with torch.inference_mode():
        one = attention.attend(q, k, v)
        alone = attention.attend(q[1:2], k[1:2], v[1:2])
        torch.set_num_threads(threads)
        try:
            several = attention.attend(q, k, v)
        finally:
            torch.set_num_threads(before)

    assert one is not None
    assert several is not None
    assert alone is not None
    assert torch.equal(one, several)
    assert torch.equal(one[1:2], alone)


@needs_attention
def test_attention__takes_any_strides() -> None:
    q, k, v = qkv(40, 64)
    odd = torch.empty(1, 2, 64, 40).copy_(k.transpose(2, 3)).transpose(2, 3)

    with torch.inference_mode():
        found, expected = attention.attend(q.contiguous(), odd, v), attention.attend(q, k, v)

    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected)


def test_attention__leaves_other_cases_to_torch() -> None:
    q, k, v = qkv(40, 64)

    assert attention.attend(q, k, v) is None  # gradients may be wanted
    with torch.inference_mode():
        assert attention.attend(*(x.bfloat16() for x in (q, k, v))) is None
        assert attention.attend(*qkv(40, 24)) is None
        assert attention.attend(*qkv(0, 64)) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert attention.attend(q, k, v) is None


def test_block__is_the_same_with_and_without_gradients() -> None:
    torch.manual_seed(0)
    layer, x = Attention(128, 2), torch.randn(2, 70, 128)

    with torch.inference_mode():
        found = layer(x)

    torch.testing.assert_close(found, layer(x).detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 40), (2, 5, 40), (1, 0, 40), (1, 40), (2, 502, 40), (8, 40)])
def test_linear__is_torchs_up_to_rounding(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer, x = Linear(40, 24, bias=bias), torch.randn(shape)
    expected = F.linear(x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double()).float()

    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)
        wide = torch.randn(*shape[:-1], 80)[..., :40].copy_(x)
        torch.testing.assert_close(layer(wide), expected, atol=1e-5, rtol=0)
    assert layer(x).requires_grad


def test_linear__goes_through_gelu_on_request() -> None:
    torch.manual_seed(0)
    layer, x = Linear(40, 24), 3 * torch.randn(5, 40)
    expected = F.gelu(F.linear(x.double(), layer.weight.double(), layer.bias.double())).float()

    with torch.inference_mode():
        torch.testing.assert_close(layer(x, activation="gelu"), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(layer(x, activation="gelu"), expected, atol=1e-5, rtol=0)


def test_linear__has_the_names_and_the_start_of_torchs() -> None:
    torch.manual_seed(0)
    ours = Linear(4, 3).state_dict()
    torch.manual_seed(0)
    theirs = nn.Linear(4, 3).state_dict()

    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_linear__follows_autocast() -> None:
    layer, x = Linear(8, 8), torch.randn(2, 8)

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_norm__is_folded_into_the_convolution_in_inference() -> None:
    torch.manual_seed(0)
    layer, x = ConvBnRelu(6, 5, 3), torch.randn(2, 6, 9, 7)
    norm = layer[1]
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.2, 1.5)
    layer.eval()

    expected = layer(x).detach()
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), expected, atol=2e-6, rtol=0)
        layer.train()
        assert not torch.allclose(layer(x), expected, atol=1e-2)


@pytest.fixture
def another_processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    cached = (dispatch.mkl_is_slow, linear.onednn_product, attention.load, product.load)
    for function in cached:
        function.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    for function in cached:
        function.cache_clear()


def test_kernels__are_for_avx512_and_onednn_not_for_intel(another_processor: pytest.MonkeyPatch) -> None:
    another_processor.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    another_processor.setattr(dispatch, "_vendor", lambda: "vendor_id : GenuineIntel")
    assert linear.onednn_product() is None
    assert product.load() is None

    for function in (dispatch.mkl_is_slow, linear.onednn_product, product.load):
        function.cache_clear()
    another_processor.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    another_processor.setattr(dispatch, "_vendor", lambda: "vendor_id : AuthenticAMD")
    assert linear.onednn_product() is None
    assert product.load() is None
    assert attention.load() is None


def test_library__is_not_required(another_processor: pytest.MonkeyPatch) -> None:
    another_processor.setenv("DENSEVIT_NATIVE", "0")
    assert build.library(Path(attention.__file__).with_name("attention.c"), "nothing is lost", {}) is None
    assert attention.load() is None

    layer = Attention(64, 1)
    with torch.inference_mode():
        assert layer(torch.randn(1, 9, 64)).shape == (1, 9, 64)


def test_kernels__stand_aside_for_compilers() -> None:
    seen: list[bool] = []

    def ask(x: Tensor) -> Tensor:
        seen.append(use_kernel(x))
        return x + 1

    with torch.no_grad():
        ask(torch.ones(2))
        torch.export.export(_Module(ask), (torch.ones(2),))

    assert seen[0] is True
    assert not any(seen[1:])
    assert len(seen) > 1


class _Module(nn.Module):
    def __init__(self, call: object) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.call(x)  # type: ignore[operator]
        return result


def test_flops__see_the_kernels() -> None:
    layer, x = Attention(64, 1), torch.ones(1, 52, 64)
    with torch.no_grad():
        found = count_flops(lambda: layer(x))

    assert found == 2 * 52 * 64 * 192 + 2 * 2 * 52 * 52 * 64 + 2 * 52 * 64 * 64
