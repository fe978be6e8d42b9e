"""Linear layers in training: C kernels and torch's form agree with float64, whatever the sizes and the threads."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.kernels.cpu_training import linear
from densevit.kernels.cpu_training.linear import gelu_gradient, product, weight_gradients
from tests.needs import needs_training_linear


@pytest.fixture(params=[pytest.param("kernel", marks=needs_training_linear), "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The C kernels and torch, one after the other."""
    if request.param == "torch":
        monkeypatch.setattr(linear, "load", lambda: None)
    return str(request.param)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor, *, within: float = 2e-6) -> None:
    """Equal to a few roundings of the largest value."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.double() / scale, expected / scale, rtol=0, atol=within)


@pytest.mark.parametrize("rows", [(1, 1), (3, 85), (2, 128), (1, 257), (2, 331)])
@pytest.mark.parametrize(("ins", "outs"), [(1, 16), (48, 16), (64, 64), (33, 80), (80, 33), (192, 208), (400, 192)])
def test_products__are_those_of_float64(rows: tuple[int, int], ins: int, outs: int, form: str) -> None:
    x, weight, bias = random(*rows, ins), random(outs, ins, seed=1), random(outs, seed=2)
    with_bias = F.linear(x.double(), weight.double(), bias.double())

    close(product(x, weight, bias), with_bias)
    close(product(x, weight.t(), None, transposed=False), F.linear(x.double(), weight.double()))
    close(product(x, weight.t().contiguous(), bias, transposed=False), with_bias)


@pytest.mark.parametrize("rows", [(1, 1), (3, 85), (2, 128), (1, 129), (2, 331)])
@pytest.mark.parametrize(("ins", "outs"), [(16, 1), (48, 5), (64, 6), (80, 33), (33, 80), (400, 200), (192, 385)])
def test_weight_gradients__are_those_of_float64(rows: tuple[int, int], ins: int, outs: int, form: str) -> None:
    g, x = random(*rows, outs), random(*rows, ins, seed=1)

    weight, bias = weight_gradients(g, x, (True, True))

    assert weight is not None
    assert bias is not None
    close(weight, g.flatten(0, 1).double().t() @ x.flatten(0, 1).double())
    close(bias, g.double().sum((0, 1)))
    assert [part is not None for part in weight_gradients(g, x, (False, True))] == [False, True]
    assert [part is not None for part in weight_gradients(g, x, (True, False))] == [True, False]


@pytest.mark.parametrize("shape", [(1, 1, 16), (2, 5, 24), (3, 7, 64)])
def test_gelu__and_its_gradient_are_those_of_float64(shape: tuple[int, ...], form: str) -> None:
    x, g = 4 * random(*shape), random(*shape, seed=1)
    leaf = x.double().requires_grad_()
    expected = F.gelu(leaf)
    expected.backward(g.double())

    values = gelu_gradient(x, g)

    assert leaf.grad is not None
    close(values, expected.detach())
    close(g, leaf.grad)


def test_gelu__stands_values_of_any_size(form: str) -> None:
    x = torch.tensor([-1e30, -200.0, -15.0, -0.0, 0.0, 15.0, 200.0, 1e30]).repeat(2)
    g = torch.ones(16)

    values = gelu_gradient(x, g)

    assert torch.equal(values, x.clamp(min=0))
    assert torch.equal(g, (x > 0).float() + 0.5 * (x == 0))


def test_gelu__passes_nan_on(form: str) -> None:
    x, g = torch.full((16,), torch.nan), torch.ones(16)
    assert gelu_gradient(x, g).isnan().all()
    assert g.isnan().all()


@needs_training_linear
def test_kernels__give_the_same_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias, g = random(2, 331, 80), random(96, 80, seed=1), random(96, seed=2), random(2, 331, 96, seed=3)
    found = []
    for threads in (1, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        slope = g.clone()
        found.append([product(x, weight, bias), *weight_gradients(g, x, (True, True)), gelu_gradient(g, slope), slope])

    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_results__are_float32_whatever_the_default_type(form: str) -> None:
    x, weight, g = random(2, 331, 80), random(96, 80, seed=1), random(2, 331, 96, seed=2)
    torch.set_default_dtype(torch.float64)
    try:
        found = [product(x, weight, None), *weight_gradients(g, x, (True, True))]
    finally:
        torch.set_default_dtype(torch.float32)

    expected = [product(x, weight, None), *weight_gradients(g, x, (True, True))]
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
