"""Linear layers on 8-bit tokens: close to those in float32, in C as in torch, and for any shapes and values."""

import copy
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.blocks import ACTIVATIONS
from densevit.errors import ShapeError
from densevit.kernels import buffers
from densevit.kernels.buffers import buffer
from densevit.kernels.int8 import linear, processor
from densevit.kernels.int8.linear import Int8Linear, Preparation, quantise_tokens, rotated, run_layers
from tests.needs import needs_int8

FORMS = [pytest.param("c", marks=needs_int8), "torch"]
ERROR = 2e-2
"""Of a layer for normal noise, relative in L2."""
SAME_INTEGERS = 4e-3
"""Between C and torch, relative to the largest value: a value near the middle of two integers may become either."""

PREPARATIONS = ["plain", "norm", "gelu", "gelu_tanh", "quick_gelu", "relu", "swiglu"]
WIDTHS = [(1, 1), (4, 1), (5, 150), (63, 64), (64, 65), (100, 37), (192, 576), (257, 16)]
"""Of inputs and outputs: whole vectors, panels and groups, and others."""


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    form: str = request.param
    if form == "torch":
        monkeypatch.setattr(linear, "load", lambda: None)
    return form


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(depth: int, width: int, *, bias: bool = True) -> nn.Linear:
    made = nn.Linear(depth, width, bias=bias)
    with torch.no_grad():
        made.weight.copy_(noise(width, depth, seed=1) / depth**0.5)
        if bias:
            made.bias.copy_(noise(width, seed=2))
    return made


def norm(depth: int) -> nn.LayerNorm:
    made = nn.LayerNorm(depth)
    with torch.no_grad():
        made.weight.copy_(1 + 0.3 * noise(depth, seed=3))
        made.bias.copy_(0.3 * noise(depth, seed=4))
    return made


def preparation(name: str, depth: int) -> Preparation:
    return norm(depth) if name == "norm" else name  # type: ignore[return-value]


def exact(x: Tensor, name: str, given: nn.Linear) -> Tensor:
    if name == "norm":
        x = norm(given.in_features)(x)
    elif name == "swiglu":
        gate, value = x.chunk(2, dim=-1)
        x = F.silu(gate) * value
    elif name != "plain":
        x = ACTIVATIONS[name](x)  # type: ignore[index]
    return given(x)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach() - expected).norm() / expected.norm())


@torch.inference_mode()
def in_torch(x: Tensor, steps: list[linear.Step], residual: Tensor | None = None) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "load", lambda: None)
        return run_layers(x, steps, residual=residual)


@pytest.mark.parametrize(("depth", "width"), WIDTHS)
@pytest.mark.parametrize("name", PREPARATIONS)
def test_layer__is_close_to_float32(depth: int, width: int, name: str, form: str) -> None:
    given = layer(depth, width)
    x = 2 * noise(13, depth * (2 if name == "swiglu" else 1))

    with torch.inference_mode():
        found = run_layers(x, [(preparation(name, depth), Int8Linear.of(given.weight, given.bias))])
        expected = exact(x, name, given)

    assert found.shape == (13, width)
    assert error(found, expected) < ERROR


@needs_int8
@pytest.mark.parametrize("rows", [1, 5, 6, 7, 241, 500])
@pytest.mark.parametrize(("depth", "width"), WIDTHS)
@pytest.mark.parametrize("name", PREPARATIONS)
def test_kernel__computes_what_torch_does(rows: int, depth: int, width: int, name: str) -> None:
    given = layer(depth, width)
    steps: list[linear.Step] = [(preparation(name, depth), Int8Linear.of(given.weight, given.bias))]
    x, residual = noise(rows, depth * (2 if name == "swiglu" else 1)), noise(rows, width, seed=5)

    with torch.inference_mode():
        found = run_layers(x, steps, residual=residual)
    expected = in_torch(x, steps, residual)

    assert (found - expected).abs().max() <= SAME_INTEGERS * expected.abs().max()


@pytest.mark.parametrize("threads", [1, 3])
def test_chain_of_layers__is_close_to_float32(threads: int, form: str) -> None:
    first, second, x = layer(96, 200), layer(200, 96), noise(2, 70, 96)
    steps: list[linear.Step] = [
        (norm(96), Int8Linear.of(first.weight, first.bias)),
        ("gelu", Int8Linear.of(second.weight, second.bias)),
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            found, expected = run_layers(x, steps, residual=x), x + second(F.gelu(first(norm(96)(x))))
    finally:
        torch.set_num_threads(before)

    assert error(found - x, expected - x) < ERROR


def test_rows_of_any_strides__are_taken(form: str) -> None:
    given = layer(32, 16)
    int8 = Int8Linear.of(given.weight, given.bias)
    cases = [
        noise(2, 9, 64)[:, 1:, ::2],
        noise(3, 32, 5).transpose(1, 2),
        noise(1, 32).expand(4, 32),
        noise(8, 40)[::2, :32],
    ]

    with torch.inference_mode():
        for x in cases:
            torch.testing.assert_close(int8(x), int8(x.contiguous()))


def test_no_rows__give_none(form: str) -> None:
    with torch.inference_mode():
        assert Int8Linear.of(layer(8, 4).weight, None)(torch.empty(2, 0, 8)).shape == (2, 0, 4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 3e38])
@pytest.mark.parametrize("name", ["plain", "norm", "gelu", "quick_gelu", "relu"])
def test_row_with_a_value_that_is_not_finite__is_nan_and_no_other(value: float, name: str, form: str) -> None:
    given = layer(80, 8)
    x = noise(9, 80)
    x[4, 3], x[4, 70] = value, -3e38 if value == 3e38 else 0

    with torch.inference_mode():
        found = run_layers(x, [(preparation(name, 80), Int8Linear.of(given.weight, given.bias))])

    huge = value == 3e38 or (value == float("-inf") and name == "relu")  # may fit into float32 after all
    assert found[torch.arange(9) != 4].isfinite().all()
    assert huge or found[4].isnan().all()


def test_rows_of_zeros__give_the_bias(form: str) -> None:
    given = layer(100, 7)

    with torch.inference_mode():
        found = Int8Linear.of(given.weight, given.bias)(torch.zeros(3, 100))

    torch.testing.assert_close(found, given.bias.detach().expand(3, 7))


@pytest.mark.parametrize("size", [1e-20, 1e20])
def test_scale_of_the_tokens__does_not_matter(size: float, form: str) -> None:
    given, x = layer(64, 32, bias=False), noise(5, 64)

    with torch.inference_mode():
        found = Int8Linear.of(given.weight, None)(x * size) / size

        assert error(found, given(x)) < ERROR


def test_token__does_not_depend_on_the_others(form: str) -> None:
    int8, x = Int8Linear.of(layer(64, 32).weight, None), noise(20, 64)
    mixed = torch.cat((1000 * x[:7], x[7:]))

    with torch.inference_mode():
        torch.testing.assert_close(int8(mixed)[7:], int8(x[7:]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("depth", [64, 100])
def test_channel_much_larger_than_others__costs_little(depth: int, form: str) -> None:
    given, x = layer(depth, 32), noise(30, depth)
    x[:, 5] *= 30

    with torch.inference_mode():
        found = Int8Linear.of(given.weight, given.bias)(x)

        assert error(found, given(x)) < ERROR


def test_factor__multiplies_outputs(form: str) -> None:
    given, factor, x = layer(64, 32), noise(32, seed=6), noise(5, 64)

    with torch.inference_mode():
        found = Int8Linear.of(given.weight, given.bias, factor)(x)

        assert error(found, given(x) * factor) < ERROR


def test_output_of_zero_weights__is_its_bias(form: str) -> None:
    weight = noise(4, 64)
    weight[2] = 0

    with torch.inference_mode():
        found = Int8Linear.of(weight, torch.arange(4.0))(noise(3, 64))

    assert (found[:, 2] == 2).all()


@needs_int8
def test_result_of_another_shape__is_refused() -> None:
    int8 = Int8Linear.of(layer(8, 4).weight, None)

    with torch.inference_mode(), pytest.raises(ShapeError, match=r"was given torch.float32 \(3, 5\)"):
        run_layers(noise(3, 8), [("plain", int8)], out=torch.empty(3, 5))
    with torch.inference_mode(), pytest.raises(ShapeError, match=r"takes torch.float32 \(3, 8\)"):
        int8(noise(3, 9))


def test_gradients__take_the_form_of_torch() -> None:
    given, x = layer(64, 32), noise(5, 64).requires_grad_()

    found = Int8Linear.of(given.weight, given.bias)(x)

    assert error(found, given(x).detach()) < ERROR


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_layer_that_has_run__can_be_copied(again: object, form: str) -> None:
    int8, x = Int8Linear.of(layer(64, 32).weight, None), noise(5, 64)

    with torch.inference_mode():
        expected = int8(x)
        torch.testing.assert_close(again(int8)(x), expected)  # type: ignore[operator]


def test_rotation__keeps_products() -> None:
    x, weight = noise(5, 150), noise(7, 150, seed=1)

    torch.testing.assert_close(rotated(x) @ rotated(weight).T / 64, x @ weight.T, rtol=1e-4, atol=1e-4)


def test_tokens__are_integers_with_a_scale_and_a_zero_point_each() -> None:
    x = noise(6, 50) + torch.tensor([0.0, 5, -5, 0, 1, 2])[:, None]

    integers, scale, zero = quantise_tokens(x)

    assert integers.min() >= 0
    assert integers.max() <= 255
    assert (zero == zero.round()).all()
    assert ((integers - zero) * scale - x).abs().max() <= 0.51 * scale.max()


def test_processor_without_vnni__has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    linear.load.cache_clear()

    assert not processor.has_vnni()
    assert linear.load() is None
    linear.load.cache_clear()


def test_buffer__is_reused_by_its_thread_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    first = buffer("test", 4, 6)
    found: list[Tensor] = []
    thread = threading.Thread(target=lambda: found.append(buffer("test", 4, 6)))
    thread.start()
    thread.join()

    assert first.shape == (4, 6)
    assert buffer("test", 3, 2).data_ptr() == first.data_ptr()
    assert found[0].data_ptr() != first.data_ptr()
    monkeypatch.setattr(buffers, "_LARGEST", 8)
    assert buffer("test", 4).data_ptr() != first.data_ptr()
