"""Inference settings of checkpoints and callers stay within the budget."""

from typing import Any

import pytest

from densevit.device import pick_device
from densevit.errors import ConfigError
from densevit.inference.pipeline import InferenceOptions, plans
from densevit.inference.sliding_window import SlidingWindow
from densevit.inference.speed import SpeedConfig
from densevit.inference_config import InferenceConfig, checked_input_size, parse_protocol
from densevit.limits import VARIABLE
from densevit.tasks import parse_task

DEPTH = {"depth": parse_task({"kind": "depth", "max_depth_m": 8.0})}
WINDOWS: dict[str, Any] = {"kind": "mmseg", "base": (2048, 512), "window": (512, 512), "stride": (341, 341)}
WHOLE: dict[str, Any] = {"kind": "dpt", "net_size": (384, 384), "multiple": 32}


@pytest.mark.parametrize("value", [1e9, 65, float("inf"), float("nan"), 0, -1])
def test_scales__have_a_bound(value: float) -> None:
    with pytest.raises(ConfigError, match=r"^config is not a valid InferenceOptions:\n  scales\.0: [^\n]*$"):
        InferenceOptions.parse({"scales": (value,)})
    with pytest.raises(ConfigError, match="scale"):
        SlidingWindow.parse({"scale": value})
    with pytest.raises(ConfigError, match=r"tta_scales\.0"):
        parse_protocol(WINDOWS | {"tta_scales": (value,)})


@pytest.mark.parametrize("key", ["short_side", "max_long_side", "window", "heads"])
@pytest.mark.parametrize("value", [10**9, 2**62, 0])
def test_sizes_of_a_checkpoint__have_a_bound(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=key):
        InferenceConfig.parse({key: {"depth": value} if key == "heads" else value})


@pytest.mark.parametrize(
    ("facts", "key"),
    [
        ({"base": (10**9, 1)}, "base"),
        ({"window": (10**9, 10**9)}, "window"),
        ({"stride": (1, 1)}, "stride"),
        ({"tta_scales": (1.0,) * 1000}, "tta_scales"),
    ],
)
def test_window_protocol__has_bounds(facts: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_protocol(WINDOWS | facts)


@pytest.mark.parametrize(
    ("facts", "key"),
    [({"net_size": (10**9, 1)}, "net_size"), ({"multiple": 10**9}, "mul"), ({"label_offset": 10**9}, "label")],
)
def test_whole_protocol__has_bounds(facts: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_protocol(WHOLE | facts)


@pytest.mark.parametrize("facts", [{"window": 10**9}, {"overlap": 10**9}, {"batch": 10**9}])
def test_windows__have_bounds(facts: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(facts))):
        SlidingWindow.parse(facts)


@pytest.mark.parametrize("facts", [{"patch_size": 10**5}, {"short_side": 10**9}])
def test_speed__has_bounds(facts: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(facts))):
        SpeedConfig.parse(facts)


@pytest.mark.parametrize(
    ("config", "options", "scale"),
    [
        (InferenceConfig(short_side=20_000, max_long_side=20_000), InferenceOptions(), 1.0),
        (InferenceConfig(), InferenceOptions(scales=(64.0,)), 64.0),
        (InferenceConfig(), InferenceOptions(windows=SlidingWindow(scale=64.0)), 1.0),
    ],
    ids=["checkpoint", "scales", "windows"],
)
def test_image__is_not_enlarged_beyond_the_budget(
    config: InferenceConfig, options: InferenceOptions, scale: float
) -> None:
    (plan,) = plans(config, options, DEPTH)

    with pytest.raises(ConfigError, match="the image of 480 x 640 would be enlarged to"):
        plan.input_size((480, 640), (16, 16), scale)


def test_image__that_is_large_itself_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "input_pixels=100")

    assert checked_input_size((20, 30), (20, 30)) == (20, 30)
    with pytest.raises(ConfigError, match="input_pixels"):
        checked_input_size((21, 30), (20, 30))


@pytest.mark.parametrize("name", ["meta", "no such device", "cuda:99", "hpu"])
def test_device__without_values_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device '{name}' cannot be used"):
        pick_device(name)
