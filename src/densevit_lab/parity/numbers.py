"""Fixtures without tensors: sizes and learning rates that the reference programs computed."""

from collections.abc import Iterator, Mapping
from typing import Any

from densevit.inference import protocol_resize
from densevit.training.schedule import ScheduleConfig
from densevit_lab.parity.fixture import Fixture
from densevit_lab.parity.report import Row

EXACT = 0.0
RATES = 1e-9
"""The reference multiplies its rate from step to step, so rounding grows; ours is a formula."""


def check_numbers(fixture: Fixture) -> list[Row]:
    """Compare every number of a fixture without tensors."""
    rows: list[Row] = []
    for case in fixture.description.get("cases", []):
        if "net_w" in case:
            rows.append(_net_size(fixture, case))
        if "plain_keep_ratio_wh" in case or "setr_multi_scale_wh" in case:
            rows += _scaled_sizes(fixture, case)
    for name, section in fixture.description.items():
        if isinstance(section, Mapping) and "lr_used_at_iteration" in section:
            rows.append(_rates(fixture, name, section))
    return rows or [Row("-", fixture.name, "-", 0, float("nan"), EXACT, "holds nothing that can be compared")]


def _num_wrong(ours: tuple[int, ...], theirs: tuple[int, ...]) -> float:
    return float(sum(a != b for a, b in zip(ours, theirs, strict=True)))


def _net_size(fixture: Fixture, case: Mapping[str, Any]) -> Row:
    target = (case["net_h"], case["net_w"])
    ours = protocol_resize.net_size((case["in_h"], case["in_w"]), target, case["multiple"], case["method"])
    error = _num_wrong(ours, (case["out_h"], case["out_w"]))
    return Row("DPT sizes", fixture.name, f"{case['method']}, multiple {case['multiple']}", 1, error, EXACT)


def _scaled_sizes(fixture: Fixture, case: Mapping[str, Any]) -> Iterator[Row]:
    size, bounds = (case["h"], case["w"]), protocol_resize.scaled_bounds(tuple(case["base"]), case["ratio"])
    ours = {
        "plain_keep_ratio_wh": protocol_resize.keep_ratio(size, bounds),
        "setr_multi_scale_wh": protocol_resize.setr_multi_scale(size, bounds, case["crop"]),
    }
    for key, (height, width) in ours.items():
        if key in case:
            error = _num_wrong((width, height), tuple(case[key]))
            yield Row("mmseg and SETR sizes", fixture.name, key.removesuffix("_wh"), 1, error, EXACT)


def _rates(fixture: Fixture, name: str, section: Mapping[str, Any]) -> Row:
    """The three programs name the same four numbers differently; mmengine reaches its floor one step earlier."""
    total = section["end"] - 1 if "end" in section else section.get("iter_max", section.get("max_iters"))
    floor = section.get("min_lr", section.get("eta_min", 0.0))
    schedule = ScheduleConfig(kind="poly", power=section["power"], min_lr=floor)
    base = section["base"] * section.get("lr_mult", 1)
    errors = []
    for step, theirs in enumerate(section["lr_used_at_iteration"]):
        errors.append(abs(schedule.lr_at(step, base=base, iterations=total) - theirs) / abs(theirs))
    return Row("learning rates", fixture.name, name, len(errors), max(errors), RATES)
