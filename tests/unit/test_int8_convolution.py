"""Convolutions with 8-bit integers: close to the float ones, and only where they are faster."""

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels.convolution import Conv2d
from densevit.kernels.int8 import convolution, linear
from densevit.kernels.int8.convolution import Int8Filter
from densevit.layers import ConvBnRelu, ResidualUnit, use_int8
from densevit_lab.benchmark.flops import count_flops

needs_operator = pytest.mark.skipif(
    convolution.operator() is None or linear.load() is None, reason="no AVX-512 VNNI, oneDNN or C compiler here"
)
ERROR = 0.012
"""Of results for normal noise, relative in L2."""


def maps(channels: int, size: tuple[int, int], *, batch: int = 1, mean: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(channels + size[0])
    return torch.randn(batch, channels, *size, generator=generator) + mean


def weights(num_out: int, channels: int, kernel_size: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_out)
    weight = torch.randn(num_out, channels, kernel_size, kernel_size, generator=generator)
    return weight / (kernel_size**2 * channels) ** 0.5, torch.randn(num_out, generator=generator)


def error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


def never(*args: object, **kwargs: object) -> Tensor:
    raise AssertionError("integers")


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "MIN_PRODUCTS", {1: 0, 3: 0})
    monkeypatch.setattr(convolution, "MIN_CHANNELS", {1: 24, 3: 24})


@needs_operator
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("mean", [0.0, 5.0, -5.0])
@pytest.mark.parametrize(("channels", "num_out", "size"), [(32, 32, (1, 1)), (64, 33, (9, 14)), (70, 128, (17, 3))])
def test_integers__are_close(
    channels: int, num_out: int, size: tuple[int, int], mean: float, kernel_size: int, any_size: None
) -> None:
    x, (weight, bias) = maps(channels, size, mean=mean), weights(num_out, channels, kernel_size)

    with torch.inference_mode():
        found = Int8Filter(weight, bias)(x)

    expected = F.conv2d(x, weight, bias, padding=kernel_size // 2)
    assert 0 < error(found, expected) < ERROR
    assert error(found[..., 0, :], expected[..., 0, :]) < ERROR  # the padding is zero, whatever integer that is


@needs_operator
@pytest.mark.parametrize("relu_first", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_relu__is_part_of_the_convolution(relu_first: bool, relu: bool, any_size: None) -> None:
    x, (weight, bias) = maps(64, (20, 21)), weights(48, 64)

    with torch.inference_mode():
        found = Int8Filter(weight, bias)(x, relu_first=relu_first, relu=relu)

    expected = F.conv2d(x.relu() if relu_first else x, weight, bias, padding=1)
    assert error(found, expected.relu() if relu else expected) < ERROR


@needs_operator
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_residual__is_added_before_relu(kernel_size: int, relu: bool, any_size: None) -> None:
    x, (weight, bias) = maps(64, (20, 21), batch=2), weights(64, 64, kernel_size)

    with torch.inference_mode():
        found = Int8Filter(weight, bias)(x, residual=x, relu=relu)

    expected = F.conv2d(x, weight, bias, padding=kernel_size // 2) + x
    assert error(found, expected.relu() if relu else expected) < ERROR


@needs_operator
def test_inner_rows__need_no_padding(any_size: None) -> None:
    x, (weight, bias) = maps(64, (20, 21)), weights(64, 64)

    with torch.inference_mode():
        found = Int8Filter(weight, bias)(x, inner_rows=True)

    assert error(found, F.conv2d(x, weight, bias, padding=(0, 1))) < ERROR


@needs_operator
def test_images__have_scales_of_their_own(any_size: None) -> None:
    x, (weight, bias) = maps(64, (16, 16), batch=3), weights(64, 64)
    x[1] *= 1000

    with torch.inference_mode():
        run = Int8Filter(weight, bias)
        together, one_by_one = run(x), torch.cat([Int8Filter(weight, bias)(image[None]) for image in x])
        other_strides = run(x.to(memory_format=torch.channels_last))

    torch.testing.assert_close(together, one_by_one, rtol=0, atol=0)
    torch.testing.assert_close(together, other_strides, rtol=0, atol=0)


@needs_operator
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_map__that_has_no_scale_stays_float(value: float, any_size: None) -> None:
    x, (weight, bias) = maps(64, (12, 12)), weights(64, 64)
    x[0, 3, 5, 5], x[0, 3, 5, 6] = value, -value

    with torch.inference_mode():
        found = Int8Filter(weight, bias)(x)

    torch.testing.assert_close(found, F.conv2d(x, weight, bias, padding=1), equal_nan=True)


@needs_operator
@pytest.mark.parametrize("value", [0.0, 1e-38, -7.0])
def test_map__of_one_value_is_close(value: float, any_size: None) -> None:
    x, (weight, bias) = torch.full((1, 64, 16, 16), value), weights(64, 64)

    with torch.inference_mode():
        found = Int8Filter(weight, bias)(x)

    torch.testing.assert_close(found, F.conv2d(x, weight, bias, padding=1), rtol=0, atol=0.05 * max(1, abs(value)))


@needs_operator
def test_weights__of_any_size_are_exact_zero_or_close(any_size: None) -> None:
    x, (weight, _) = maps(64, (16, 16)), weights(64, 64)
    weight[3], weight[5] = 0, weight[5] * 1e6

    with torch.inference_mode():
        found = Int8Filter(weight, None)(x)

    assert not found[:, 3].any()
    expected = F.conv2d(x, weight, padding=1)
    assert all(error(found[:, i], expected[:, i]) < 2 * ERROR for i in (0, 1, 5))


@pytest.mark.parametrize("case", ["gradients", "autocast", "few pixels", "few channels", "5x5", "no operator", "empty"])
def test_integers__stand_aside(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = 23 if case == "few channels" else 128
    weight, bias = weights(128, channels, 5 if case == "5x5" else 3)
    size = (4, 4) if case == "few pixels" else (40, 40)
    x = maps(channels, size, batch=0 if case == "empty" else 1)
    monkeypatch.setattr(Int8Filter, "_convolve", never)
    if case == "no operator":
        monkeypatch.setattr(convolution, "operator", lambda: None)

    with torch.set_grad_enabled(case == "gradients"), torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        found = Int8Filter(weight, bias)(x, relu_first=True, relu=True)
        expected = F.conv2d(x.relu(), weight, bias, padding="same").relu()

    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("zero", [0, 1, 130, 255])
@pytest.mark.parametrize("size", [1, 63, 200_001])
def test_quantise__is_the_same_with_and_without_the_kernel(
    size: int, zero: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = 0.37
    low, high = -scale * zero, scale * (255 - zero)
    x = torch.rand(size, generator=torch.Generator().manual_seed(size)) * (high - low) + low
    x[-1], x[0] = low, high
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = convolution.quantise(x, scale, zero)
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(convolution, "load", lambda: None)
    plain = convolution.quantise(x, scale, zero)

    assert found[0] == 255
    assert found[-1] == 0 or size == 1
    assert (found.int() - plain.int()).abs().max() <= 1  # one rounds once where the other rounds twice
    assert (found.float() - (x / scale + zero)).abs().max() < 0.501


def test_quantise__takes_what_is_too_low_for_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([-3e38, -1.0, -0.1, 0.0, 0.1, 255.0])

    found = convolution.quantise(x, 1.0, 0)
    monkeypatch.setattr(convolution, "load", lambda: None)

    assert found.tolist() == convolution.quantise(x, 1.0, 0).tolist() == [0, 0, 0, 0, 0, 255]


@pytest.fixture
def another_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    convolution.operator.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    convolution.operator.cache_clear()


@pytest.mark.parametrize("lack", ["VNNI", "AVX-512", "oneDNN"])
def test_operator__needs_the_processor_and_the_build(lack: str, another_machine: pytest.MonkeyPatch) -> None:
    match lack:
        case "VNNI":
            another_machine.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
        case "AVX-512":
            another_machine.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        case _:
            another_machine.setattr(torch.backends.mkldnn, "is_available", lambda: False)

    assert convolution.operator() is None


def drawn(layer: nn.Module) -> nn.Module:
    """The layer in evaluation, with batch norms that have seen data."""
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
    return layer.eval()


LAYERS = {
    "convolution": lambda: Conv2d(64, 64, 3),
    "projection": lambda: Conv2d(64, 64, 1),
    "with batch norm": lambda: ConvBnRelu(64, 64, 3),
    "unit": lambda: ResidualUnit(64, batch_norm=False, bias=True),
    "unit with batch norm": lambda: ResidualUnit(64, batch_norm=True, bias=False),
    "unit with both": lambda: ResidualUnit(64, batch_norm=True, bias=True),
}


@needs_operator
@pytest.mark.parametrize("name", LAYERS)
def test_layer__runs_with_integers_after_the_switch(name: str, any_size: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = drawn(LAYERS[name]()), maps(64, (15, 17), batch=2)
    with torch.inference_mode():
        expected, flops = layer(x), count_flops(lambda: layer(x))
        before = x.clone()
        use_int8(nn.Sequential(layer))
        found = layer(x)
        assert count_flops(lambda: layer(x)) == (0 if name == "projection" else flops)  # linear layers are no operators
        again = copy.deepcopy(layer)(x)

    assert 0 < error(found, expected) < 1.5 * ERROR
    assert torch.equal(found, again)
    assert torch.equal(x, before)
    with_gradients = layer(x)  # integers have none
    assert with_gradients.requires_grad
    torch.testing.assert_close(with_gradients.detach(), expected, rtol=1e-4, atol=1e-4)


def test_narrow_layers__stay_float() -> None:
    layers = nn.Sequential(Conv2d(16, 64, 3), ConvBnRelu(64, 16, 3), ResidualUnit(8, batch_norm=True, bias=True))

    use_int8(layers)

    assert all(layer.int8 is None for layer in layers)
