"""Convolutions by minimal filtering: equal up to rounding, and only where nothing else is asked for."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.kernels import convolution
from densevit.kernels.convolution import MIN_CHANNELS, Conv2d, Filter
from densevit.layers import ConvBnRelu
from densevit_lab.benchmark.flops import count_flops

needs_avx = pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="measured on x86 alone"
)
Size = tuple[int, int]


def maps(channels: int, size: Size, *, batch: int = 1) -> Tensor:
    """What a ReLU gives."""
    generator = torch.Generator().manual_seed(channels + size[0])
    return torch.randn(batch, channels, *size, generator=generator).relu()


def weights(num_out: int, channels: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_out)
    weight = torch.randn(num_out, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    return weight, torch.randn(num_out, generator=generator)


def error(found: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> float:
    """Relative L2 against float64."""
    exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=1)
    assert found.shape == exact.shape
    return float((found - exact).norm() / exact.norm())


@needs_avx
@pytest.mark.parametrize("size", [(45, 45), (44, 46), (47, 61), (160, 13), (3, 700), (1, 2001), (2001, 1), (64, 64)])
@pytest.mark.parametrize(("channels", "num_out"), [(64, 64), (70, 200), (256, 129)])
def test_filter__is_torchs_convolution_up_to_rounding(size: Size, channels: int, num_out: int) -> None:
    x, (weight, bias) = maps(channels, size, batch=2), weights(num_out, channels)

    with torch.inference_mode():
        run = Filter(weight, bias)
        found = run(x)

    assert run._points is not None
    assert error(found, x, weight, bias) < 1e-6


@needs_avx
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_filter__takes_maps_as_they_lie(form: torch.memory_format) -> None:
    x, (weight, bias) = maps(128, (50, 50)), weights(128, 128)

    with torch.inference_mode():
        given = Filter(weight, bias)(x.to(memory_format=form))
        part = Filter(weight, bias)(F.pad(x, (3, 2))[..., 3:-2])

    assert error(given, x, weight, bias) < 1e-6
    torch.testing.assert_close(part, given, rtol=0, atol=0)


@needs_avx
def test_filter__makes_bands_as_it_makes_whole_maps() -> None:
    x, (weight, bias) = maps(128, (60, 64)), weights(128, 128)

    with torch.inference_mode():
        run = Filter(weight, bias)
        whole, padded = run(x), F.pad(x, (0, 0, 1, 1))
        bands = [run(padded[:, :, top : top + 14], inner_rows=True) for top in range(0, 60, 12)]
        narrow = Filter(weight, bias)(padded[:, :, :14], inner_rows=True)

    torch.testing.assert_close(torch.cat(bands, dim=2), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(narrow, F.conv2d(padded[:, :, :14], weight, bias, padding=(0, 1)), rtol=0, atol=0)


@needs_avx
def test_filter__makes_each_image_as_if_it_were_alone() -> None:
    x, (weight, _) = maps(128, (48, 48), batch=3), weights(128, 128)

    with torch.inference_mode():
        together = Filter(weight, None)(x)
        alone = torch.cat([Filter(weight, None)(image[None]) for image in x])

    torch.testing.assert_close(together, alone, rtol=0, atol=0)


@needs_avx
def test_filter__needs_a_third_of_the_products() -> None:
    x, (weight, bias) = maps(128, (96, 96)), weights(128, 128)

    with torch.inference_mode():
        filtered = count_flops(lambda: Filter(weight, bias)(x))
        plain = count_flops(lambda: F.conv2d(x, weight, bias, padding=1))

    assert filtered < plain / 3


@pytest.mark.parametrize("case", ["gradients", "autocast", "another type", "few pixels", "few channels", "no AVX"])
def test_filter__stands_aside(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    channels = MIN_CHANNELS - 1 if case == "few channels" else MIN_CHANNELS
    x, (weight, bias) = maps(channels, (20, 20) if case == "few pixels" else (48, 48)), weights(128, channels)
    dtype = torch.float64 if case == "another type" else torch.float32
    conv = Conv2d(channels, 128, 3).to(dtype)
    conv.load_state_dict({"weight": weight, "bias": bias})
    if case == "no AVX":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")

    def never(*args: object, **kwargs: object) -> Tensor:
        raise AssertionError("minimal filtering")

    monkeypatch.setattr(convolution, "_convolve", never)
    with torch.set_grad_enabled(case == "gradients"), torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        found = conv(x.to(dtype))
        plain = F.conv2d(x.to(dtype), conv.weight, conv.bias, padding=1)

    torch.testing.assert_close(found, plain, rtol=0, atol=0)


@needs_avx
def test_batch_norm__is_part_of_the_filter() -> None:
    torch.manual_seed(0)
    layer = ConvBnRelu(128, 128, 3)
    layer[1].running_mean.normal_()
    layer[1].running_var.uniform_(0.5, 2)
    x = maps(128, (48, 48))

    plain = layer.eval()(x)  # with gradients
    with torch.inference_mode():
        found = layer(x)

    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


@needs_avx
def test_compiled_and_exported__convolutions_are_torchs() -> None:
    conv, x = Conv2d(128, 128, 3).eval(), maps(128, (48, 48))

    with torch.inference_mode():
        program = torch.export.export(conv, (x,)).graph
        found = conv(x)

    names = [str(node.target) for node in program.nodes if node.op == "call_function"]
    assert names == ["aten.conv2d.default"]
    assert error(found, x, *(p.detach() for p in conv.parameters())) < 1e-6


def test_vmap__goes_over_convolutions() -> None:
    conv, x = Conv2d(128, 128, 3).eval(), maps(128, (48, 48), batch=2)

    with torch.no_grad():
        found = torch.vmap(conv)(x[:, None])[:, 0]

    torch.testing.assert_close(found, conv(x).detach(), rtol=1e-4, atol=1e-5)
