"""Attention with products of fewer bits: close to the exact one, the same as its form in torch, and never required."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.blocks import Attention
from densevit.errors import ShapeError
from densevit.kernels import mixed_attention
from densevit.kernels.mixed_attention import HEAD_DIMS, QueryKeyType, attend_mixed, attention_in_torch
from densevit_lab.benchmark.flops import count_flops

needs_kernel = pytest.mark.skipif(mixed_attention.load() is None, reason="no AVX-512 BF16 or no C compiler here")
FORMS: tuple[QueryKeyType, ...] = ("int8", "bfloat16")
ERRORS = {"int8": 1.2e-2, "bfloat16": 4e-3}
"""Of results for normal noise, relative in L2. Noise is harder than a ViT's tokens: its weights are nearly equal, so
that the values average out and their rounding does not."""


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> QueryKeyType:
    form: QueryKeyType = request.param
    return form


def qkv(tokens: int, width: int, *, batch: int = 1, heads: int = 2, size: float = 1.0) -> tuple[Tensor, ...]:
    """Views of one projection, as ``Attention`` has them."""
    generator = torch.Generator().manual_seed(tokens + width)
    x = size * torch.randn(batch, tokens, 3, heads, width, generator=generator)
    return x.permute(2, 0, 3, 1, 4).unbind(0)


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q.double(), k.double(), v.double()).transpose(1, 2).flatten(2)


def run(q: Tensor, k: Tensor, v: Tensor, form: QueryKeyType) -> Tensor:
    with torch.inference_mode():
        found = attend_mixed(q, k, v, form)
    assert found is not None
    return found


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@needs_kernel
@pytest.mark.parametrize("tokens", [1, 2, 5, 31, 33, 64, 65, 239, 241, 256, 257, 290, 515])
@pytest.mark.parametrize("width", HEAD_DIMS)
def test_mixed_attention__is_close_to_the_exact_one(tokens: int, width: int, form: QueryKeyType) -> None:
    q, k, v = qkv(tokens, width, batch=2)

    assert error(run(q, k, v, form), exact(q, k, v)) < ERRORS[form]


@needs_kernel
@pytest.mark.parametrize("tokens", [5, 65, 600])
@pytest.mark.parametrize("width", [16, 64, 112])
def test_mixed_attention__is_that_of_its_form_in_torch(tokens: int, width: int, form: QueryKeyType) -> None:
    q, k, v = qkv(tokens, width)
    k = k + 3 * torch.randn(width, generator=torch.Generator().manual_seed(1))  # what all keys share

    # Weights that are all but half-way between two bfloat16 are rounded either way; other blocks, other maxima.
    tolerance = 1.5e-3 if tokens <= 256 else 2e-3
    assert error(run(q, k, v, form), attention_in_torch(q, k, v, form)) < tolerance


@needs_kernel
@pytest.mark.parametrize(("logits", "values"), [(1.0, 1e12), (8.0, 1.0)], ids=["large values", "large logits"])
@pytest.mark.parametrize("width", [32, 64])
def test_mixed_attention__subtracts_maxima_where_sums_could_overflow(
    logits: float, values: float, width: int, form: QueryKeyType
) -> None:
    q, k, v = qkv(290, width)
    q, v = logits * q, values * v

    assert error(run(q, k, v, form), attention_in_torch(q, k, v, form)) < 2e-3


@needs_kernel
def test_outlying_queries__do_not_touch_the_other_tiles(form: QueryKeyType) -> None:
    q, k, v = qkv(40, 64)
    outlying = q.clone()
    outlying[:, :, 12:14] *= 100

    before, after = run(q, k, v, form), run(outlying, k, v, form)

    assert torch.equal(before[:, :12], after[:, :12])
    assert torch.equal(before[:, 18:], after[:, 18:])


@needs_kernel
def test_integers__ignore_what_all_keys_share() -> None:
    q, k, v = qkv(200, 64)
    shared = 50 * torch.randn(64, generator=torch.Generator().manual_seed(1))

    assert error(run(q, k + shared, v, "int8"), run(q, k, v, "int8")) < 1e-3


@needs_kernel
@pytest.mark.parametrize("size", [0.0, 1e-35, 1e-3, 30.0, 1e15])
def test_mixed_attention__stands_numbers_of_any_size(size: float, form: QueryKeyType) -> None:
    q, k, v = qkv(300, 64)

    found = run(size * q, size * k, v, form)

    assert found.isfinite().all()
    if size < 1:
        torch.testing.assert_close(found, v.mean(dim=2).flatten(1)[:, None].expand_as(found), atol=4e-3, rtol=0)
    else:  # the largest logit takes all
        assert found.abs().max() <= v.abs().max() * 1.01


@needs_kernel
@pytest.mark.parametrize("outlier", [1e4, -1e4])
def test_outlier__of_one_token_leaves_the_others_exact(outlier: float, form: QueryKeyType) -> None:
    q, k, v = (x.clone() for x in qkv(100, 64))
    q[:, :, 7, 3] = outlier
    v[:, :, 7] *= 100

    found, expected = run(q, k, v, form), exact(q, k, v)
    keep = torch.arange(100) != 7

    assert error(found[:, keep], expected[:, keep]) < ERRORS[form]


@needs_kernel
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["query", "key", "value"])
@pytest.mark.parametrize("token", [3, 299])
def test_mixed_attention__passes_on_what_is_not_finite(
    place: str, value: float, token: int, form: QueryKeyType
) -> None:
    q, k, v = (x.clone() for x in qkv(300, 32))
    {"query": q, "key": k, "value": v}[place][0, 0, token, 5] = value

    found = run(q, k, v, form)

    spoilt = ~exact(q, k, v).isfinite()
    if place == "key" and form == "int8":  # bfloat16 knows minus infinity, which gives a key no weight
        spoilt[..., :32] = True
    assert torch.equal(~found.isfinite(), spoilt)


@needs_kernel
def test_mixed_attention__does_not_depend_on_threads_or_batch(form: QueryKeyType) -> None:
    q, k, v = qkv(130, 64, batch=3)
    before = torch.get_num_threads()
    one, alone = run(q, k, v, form), run(q[1:2], k[1:2], v[1:2], form)
    torch.set_num_threads(3)
    try:
        several = run(q, k, v, form)
    finally:
        torch.set_num_threads(before)

    assert torch.equal(one, several)
    assert torch.equal(one[1:2], alone)


@needs_kernel
def test_mixed_attention__takes_any_strides(form: QueryKeyType) -> None:
    q, k, v = qkv(40, 64)
    odd = torch.empty(1, 2, 64, 40).copy_(k.transpose(2, 3)).transpose(2, 3)
    sparse = torch.zeros(1, 2, 80, 64)
    sparse[:, :, ::2] = v

    assert torch.equal(run(q.contiguous(), odd, sparse[:, :, ::2], form), run(q, k, v, form))


def test_mixed_attention__leaves_other_cases_to_float32(form: QueryKeyType) -> None:
    q, k, v = qkv(40, 64)

    assert attend_mixed(q, k, v, form) is None  # gradients may be wanted
    with torch.inference_mode():
        assert attend_mixed(*(x.bfloat16() for x in (q, k, v)), form) is None
        assert attend_mixed(*qkv(40, 24), form) is None
        assert attend_mixed(*qkv(40, 144), form) is None
        assert attend_mixed(*qkv(0, 64), form) is None
        assert attend_mixed(q, k[:, :, :30], v[:, :, :30], form) is None
        with torch.autocast("cpu", torch.bfloat16):
            assert attend_mixed(q, k, v, form) is None


@needs_kernel
def test_mixed_attention_operator__refuses_other_arguments() -> None:
    q, k, _ = qkv(9, 16)
    for arguments in ((q, k, k[:, :1], "int8"), (q, k, k, "int4"), (q.double(), k.double(), k.double(), "int8")):
        with pytest.raises(ShapeError):
            torch.ops.densevit.mixed_attention(*arguments)


@needs_kernel
def test_flops__are_those_of_attention(form: QueryKeyType) -> None:
    q, k, v = qkv(52, 64)

    assert count_flops(lambda: run(q, k, v, form)) == 2 * 2 * 2 * 52 * 52 * 64


@pytest.fixture
def another_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    mixed_attention.load.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    mixed_attention.load.cache_clear()


@pytest.mark.parametrize("lack", ["compiler", "AVX-512", "VNNI", "BF16"])
def test_kernel__is_not_required(lack: str, another_machine: pytest.MonkeyPatch, form: QueryKeyType) -> None:
    match lack:
        case "compiler":
            another_machine.setenv("DENSEVIT_NATIVE", "0")
        case "AVX-512":
            another_machine.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        case "VNNI":
            another_machine.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
        case _:
            another_machine.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)

    with torch.inference_mode():
        assert attend_mixed(*qkv(40, 64), form) is None
    assert mixed_attention.load() is None


@needs_kernel
def test_block__takes_mixed_attention_where_it_applies(form: QueryKeyType) -> None:
    torch.manual_seed(0)
    layer, x = Attention(128, 2), torch.randn(2, 70, 128)
    with torch.inference_mode():
        exactly = layer(x)
        layer.precision = form
        found = layer(x)
        biased = layer(x, bias=torch.zeros(1, 1, 70, 70))  # as token merging has it

    assert 0 < error(found, exactly) < ERRORS[form]
    torch.testing.assert_close(biased, exactly, atol=1e-6, rtol=0)
    torch.testing.assert_close(layer(x).detach(), exactly, atol=1e-6, rtol=0)


def test_block__of_another_width_stays_float32(form: QueryKeyType) -> None:
    torch.manual_seed(0)
    layer, x = Attention(48, 2), torch.randn(2, 70, 48)
    with torch.inference_mode():
        exactly = layer(x)
        layer.precision = form
        assert torch.equal(layer(x), exactly)
