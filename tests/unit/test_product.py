"""Linear layers with what follows them, and LayerNorm: the C kernels against torch's forms in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels import product
from densevit.kernels.activations import ACTIVATIONS, Activation
from tests.needs import needs_product


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def expected(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation | None = None) -> Tensor:
    out = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    return out if activation is None else ACTIVATIONS[activation](out)


@needs_product
@pytest.mark.parametrize("rows", [24, 25, 29, 1537])
@pytest.mark.parametrize(("depth", "width"), [(1, 1), (7, 70), (16, 16), (33, 130), (513, 64), (1030, 48), (192, 192)])
@torch.no_grad()
def test_linear__is_torchs_up_to_rounding(rows: int, depth: int, width: int) -> None:
    x, weight, bias = random(rows, depth), random(width, depth, seed=1) / depth**0.5, random(width)

    found = product.linear(x, weight, bias)

    assert found is not None
    torch.testing.assert_close(found.double(), expected(x, weight, bias), atol=5e-6, rtol=0)


@needs_product
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@torch.no_grad()
def test_linear__goes_on_with_activation_factor_and_sum(activation: Activation | None) -> None:
    x, weight, bias, gamma = 4 * random(3, 17, 40), random(70, 40, seed=2) / 6, random(70), random(70, seed=1)
    residual = random(3, 19, 70)[:, 1:-1]  # as of tokens without prefix tokens

    found = product.linear(x, weight, bias, activation=activation, gamma=gamma, residual=residual)

    assert found is not None
    exact = expected(x, weight, bias, activation) * gamma.double() + residual.double()
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)


@needs_product
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@torch.no_grad()
def test_activations__are_torchs_for_values_of_any_size(activation: Activation) -> None:
    special = torch.tensor([0.0, -0.0, 1e-30, 1e30, -1e30, float("inf"), float("-inf"), float("nan")])
    x = torch.cat((torch.linspace(-30, 30, 5000), special))[:, None]

    found = product.linear(x, torch.ones(1, 1), None, activation=activation)

    assert found is not None
    exact = ACTIVATIONS[activation](x.double())
    torch.testing.assert_close(found.double(), exact, atol=1e-6, rtol=1e-6, equal_nan=True)


@needs_product
@torch.no_grad()
def test_linear__may_add_to_its_residual_in_place() -> None:
    x, weight, total = random(50, 600), random(70, 600), random(50, 70)
    fresh = product.linear(x, weight, None, residual=total)

    found = product.linear(x, weight, None, residual=total, out=total)

    assert found is total
    assert fresh is not None
    assert torch.equal(fresh, total)


@needs_product
@pytest.mark.parametrize("width", [64, 320, 1100])
@torch.no_grad()
def test_linear__does_not_depend_on_threads_or_other_rows(width: int) -> None:
    x, weight, bias = random(131, 60), random(width, 60), random(width)
    before = torch.get_num_threads()
    one = product.linear(x, weight, bias)
    part = product.linear(x[:40], weight, bias)
    torch.set_num_threads(3)
    try:
        several = product.linear(x, weight, bias)
    finally:
        torch.set_num_threads(before)

    assert one is not None
    assert part is not None
    assert several is not None
    assert torch.equal(one, several)
    assert torch.equal(one[:40], part)


@needs_product
@torch.no_grad()
def test_linear__takes_any_strides() -> None:
    x, weight, bias = random(40, 30), random(50, 30), random(50)
    plain = product.linear(x, weight, bias)

    found = product.linear(x.t().contiguous().t(), weight.t().contiguous().t(), torch.stack((bias, bias), 1)[:, 0])

    assert found is not None
    assert plain is not None
    assert torch.equal(found, plain)


@torch.no_grad()
def test_linear__leaves_other_cases_to_torch() -> None:
    x, weight = random(40, 30), random(50, 30)

    with torch.enable_grad():
        assert product.linear(x, weight, None) is None
    assert product.linear(x[:5], weight, None) is None
    assert product.linear(x[:0], weight, None) is None
    assert product.linear(x.double(), weight.double(), None) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert product.linear(x, weight, None) is None


@needs_product
@pytest.mark.parametrize("width", [1, 15, 64, 197])
@torch.no_grad()
def test_layer_norm__is_torchs_up_to_rounding(width: int) -> None:
    norm = nn.LayerNorm(width, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = 3 * random(2, 9, width)[:, 1:] + 5

    found = product.layer_norm(x, norm, torch.empty(x.shape))

    exact = F.layer_norm(x.double(), (width,), norm.weight.double(), norm.bias.double(), norm.eps)
    assert found is not None
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)


@needs_product
@torch.no_grad()
def test_layer_norm__passes_nan_on() -> None:
    x = random(3, 40)
    x[1, 39] = float("nan")

    found = product.layer_norm(x, nn.LayerNorm(40), torch.empty(3, 40))

    assert found is not None
    assert found.isnan().any(dim=1).tolist() == [False, True, False]
    assert found[1].isnan().all()


@needs_product
def test_kernel__writes_in_both_modes_without_gradients() -> None:
    x, weight, out = random(40, 30), random(50, 30), torch.empty(40, 50)

    with torch.inference_mode():
        kept = torch.empty(40, 50)
        assert product.linear(x, weight, None, out=out) is out
    with torch.no_grad():
        assert product.linear(x, weight, None, out=kept) is kept
    assert torch.equal(out, kept)
