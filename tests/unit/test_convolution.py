"""Convolutions by minimal filtering: equal up to rounding, and only where nothing else is asked for."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.kernels import convolution, filtering
from densevit.kernels.convolution import KERNEL_MIN_CHANNELS, MIN_CHANNELS, Conv2d, Filter
from densevit.layers import ConvBnRelu
from densevit_lab.benchmark.flops import count_flops
from tests.needs import needs_convolution

needs_avx = pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="measured on x86 alone"
)
Size = tuple[int, int]


@pytest.fixture(params=[pytest.param("kernel", marks=needs_convolution), "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both forms of minimal filtering, one after the other."""
    if request.param == "torch":
        monkeypatch.setattr(filtering, "load", lambda: None)
    return str(request.param)


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
def test_filter__is_torchs_convolution_up_to_rounding(form: str, size: Size, channels: int, num_out: int) -> None:
    x, (weight, bias) = maps(channels, size, batch=2), weights(num_out, channels)

    with torch.inference_mode():
        run = Filter(weight, bias)
        found = run(x)

    assert (run._panels is None, run._points is None) == (form == "torch", form == "kernel")
    assert error(found, x, weight, bias) < 1e-6


@needs_avx
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_filter__takes_maps_as_they_lie(form: str, layout: torch.memory_format) -> None:
    x, (weight, bias) = maps(128, (50, 50)), weights(128, 128)

    with torch.inference_mode():
        given = Filter(weight, bias)(x.to(memory_format=layout))
        part = Filter(weight, bias)(F.pad(x, (3, 2))[..., 3:-2])

    assert error(given, x, weight, bias) < 1e-6
    torch.testing.assert_close(part, given, rtol=0, atol=0)


@needs_avx
def test_filter__makes_bands_as_it_makes_whole_maps(form: str) -> None:
    x, (weight, bias) = maps(128, (60, 64)), weights(128, 128)

    with torch.inference_mode():
        run = Filter(weight, bias)
        whole, padded = run(x), F.pad(x, (0, 0, 1, 1))
        bands = [run(padded[:, :, top : top + 14], inner_rows=True) for top in range(0, 60, 12)]
        narrow = Filter(weight, bias)(padded[:, :, :5], inner_rows=True)

    torch.testing.assert_close(torch.cat(bands, dim=2), whole, rtol=1e-5, atol=1e-5)
    plain = F.conv2d(padded[:, :, :5], weight, bias, padding=(0, 1))
    torch.testing.assert_close(narrow, plain, rtol=0, atol=0 if form == "torch" else 1e-5)


@needs_avx
def test_filter__makes_each_image_as_if_it_were_alone(form: str) -> None:
    x, (weight, _) = maps(128, (48, 48), batch=3), weights(128, 128)

    with torch.inference_mode():
        together = Filter(weight, None)(x)
        alone = torch.cat([Filter(weight, None)(image[None]) for image in x])

    torch.testing.assert_close(together, alone, rtol=0, atol=0)


@needs_avx
def test_filter__needs_a_third_of_the_products(form: str) -> None:
    x, (weight, bias) = maps(128, (96, 96)), weights(128, 128)

    with torch.inference_mode():
        filtered = count_flops(lambda: Filter(weight, bias)(x))
        plain = count_flops(lambda: F.conv2d(x, weight, bias, padding=1))

    assert filtered < plain / 3


@needs_avx
@pytest.mark.parametrize("relu_first", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("inner_rows", [False, True])
@pytest.mark.parametrize("size", [(48, 50), (9, 7)])  # filtered and not
def test_filter__does_what_precedes_and_follows(
    form: str, relu_first: bool, relu: bool, inner_rows: bool, size: Size
) -> None:
    weight, bias = weights(96, 80)
    x = maps(80, size, batch=2) - 0.5
    residual = maps(96, (size[0] - 2 * inner_rows, size[1]), batch=2) - 1

    with torch.inference_mode():
        options = {"inner_rows": inner_rows, "relu_first": relu_first, "relu": relu}
        found = Filter(weight, bias)(x, residual=residual, **options)

    exact = F.conv2d((x.relu() if relu_first else x).double(), weight.double(), bias.double(), padding=1)
    exact = (exact[:, :, 1:-1] if inner_rows else exact) + residual
    torch.testing.assert_close(found.double(), exact.relu() if relu else exact, rtol=0, atol=2e-5)


@needs_convolution
@pytest.mark.parametrize("threads", [2, 3])
def test_filter__does_not_depend_on_threads(threads: int) -> None:
    x, (weight, bias) = maps(64, (70, 90)), weights(100, 64)
    before = torch.get_num_threads()

    with torch.inference_mode():
        one = Filter(weight, bias)(x)
        torch.set_num_threads(threads)
        try:
            several = Filter(weight, bias)(x)
        finally:
            torch.set_num_threads(before)

    torch.testing.assert_close(several, one, rtol=0, atol=0)


@needs_avx
def test_filter__passes_nan_on(form: str) -> None:
    x, (weight, bias) = maps(64, (48, 48)), weights(64, 64)
    x[0, 3, 20, 20] = float("nan")

    with torch.inference_mode():
        found = Filter(weight, bias)(x, relu_first=True, relu=True)

    assert found[0, :, 19:22, 19:22].isnan().all()
    assert found[0, :, :13].isfinite().all()


@pytest.mark.parametrize("size", [(9, 7), (1, 1), (30, 41)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pointwise_convolution__is_torchs_up_to_rounding(size: Size, layout: torch.memory_format) -> None:
    conv, x = Conv2d(40, 30, 1), maps(40, size, batch=2).to(memory_format=layout)

    with torch.inference_mode():
        found = conv(x)

    exact = F.conv2d(x.double(), conv.weight.double(), conv.bias.double())
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=5e-6)


@pytest.mark.parametrize("case", ["gradients", "autocast", "another type", "few pixels", "few channels", "no AVX"])
def test_filter__stands_aside(form: str, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    least = KERNEL_MIN_CHANNELS if form == "kernel" else MIN_CHANNELS
    channels = least - 1 if case == "few channels" else least
    x, (weight, bias) = maps(channels, (15, 17) if case == "few pixels" else (48, 48)), weights(128, channels)
    dtype = torch.float64 if case == "another type" else torch.float32
    conv = Conv2d(channels, 128, 3).to(dtype)
    conv.load_state_dict({"weight": weight, "bias": bias})
    if case == "no AVX":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")

    def never(*args: object, **kwargs: object) -> Tensor:
        raise AssertionError("minimal filtering")

    monkeypatch.setattr(convolution, "_convolve", never)
    monkeypatch.setattr(filtering, "convolve", never)
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
