"""Fixtures without tensors: sizes and learning rates that the reference programs computed."""

from collections.abc import Iterator, Mapping
from typing import Any

from densevit.inference import protocol_resize as sizes
from densevit.training.schedule import ScheduleConfig
from densevit_lab.parity.fixture import Fixture
from densevit_lab.parity.report import Row

EXACT = 0.0
RATES = 1e-9
"""The reference multiplies its rate from step to step, so rounding grows; ours is a formula."""


def check_numbers(fixture: Fixture) -> Iterator[Row]:
    """Every number of a fixture without tensors."""
    found = False
    for case in fixture.description.get("cases", []):
        if "net_w" in case:
            found = True
            yield _net_size(fixture, case)
        if "plain_keep_ratio_wh" in case or "setr_multi_scale_wh" in case:
            found = True
            yield from _scaled(fixture, case)
    for name, section in fixture.description.items():
        if isinstance(section, Mapping) and "lr_used_at_iteration" in section:
            found = True
            yield _rates(fixture, name, section)
    if not found:
        yield Row("-", fixture.name, "-", 0, float("nan"), EXACT, "holds nothing that is understood")


def _wrong(ours: tuple[int, ...], theirs: tuple[int, ...]) -> float:
    return float(sum(a != b for a, b in zip(ours, theirs, strict=True)))


def _net_size(fixture: Fixture, case: Mapping[str, Any]) -> Row:
    target = (case["net_h"], case["net_w"])
    ours = sizes.net_size((case["in_h"], case["in_w"]), target, case["multiple"], case["method"])
    error = _wrong(ours, (case["out_h"], case["out_w"]))
    return Row("DPT sizes", fixture.name, f"{case['method']}, multiple {case['multiple']}", 1, error, EXACT)


def _scaled(fixture: Fixture, case: Mapping[str, Any]) -> Iterator[Row]:
    size, bounds = (case["h"], case["w"]), sizes.scaled_bounds(tuple(case["base"]), case["ratio"])
    ours = {
        "plain_keep_ratio_wh": sizes.keep_ratio(size, bounds),
        "setr_multi_scale_wh": sizes.setr_multi_scale(size, bounds, case["crop"]),
    }
    for key, (height, width) in ours.items():
        if key in case:
            error = _wrong((width, height), tuple(case[key]))
            yield Row("mmseg and SETR sizes", fixture.name, key.removesuffix("_wh"), 1, error, EXACT)


def _rates(fixture: Fixture, name: str, section: Mapping[str, Any]) -> Row:
    """The three programs name the same four numbers differently; mmengine reaches its floor one step earlier."""
    total = section["end"] - 1 if "end" in section else section.get("iter_max", section.get("max_iters"))
    floor = next((section[key] for key in ("min_lr", "eta_min") if key in section), 0.0)
    schedule = ScheduleConfig(kind="poly", power=section["power"], min_lr=floor)
    base = section["base"] * section.get("lr_mult", 1)
    theirs = section["lr_used_at_iteration"]
    errors = [
        abs(schedule.lr_at(step, base=base, iterations=total) - rate) / abs(rate) for step, rate in enumerate(theirs)
    ]
    return Row("learning rates", fixture.name, name, len(theirs), max(errors), RATES)
