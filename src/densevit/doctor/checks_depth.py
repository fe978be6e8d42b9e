"""Depth maps: file type, unit, range and content; and value maps."""

from collections import Counter

import numpy as np

from densevit.doctor.context import Context
from densevit.doctor.facts import DepthFacts, ValueFacts
from densevit.doctor.rules import Findings

SPARSE = 0.05
"""A map with a smaller share of valid pixels is called sparse."""

_PLAUSIBLE_M = (0.1, 300.0)
"""A median depth outside this range suggests a wrong unit."""

_RANGES = (("metres", 1.0, 0.5, 100), ("centimetres", 0.01, 100, 1000), ("millimetres", 0.001, 1000, 100_000))
"""Units with the medians, as stored, for which each is the likely one: 0.5 to 100 m, 1 to 10 m, and from 1 m on."""

_UNITS_APART = 50.0
"""Medians that differ by this factor suggest two units."""

_INVERTED_MAPS, _INVERTED_SLOPE = 8, 0.3


def check_depth(context: Context, findings: Findings) -> None:
    """Check all depth maps together, since they should share one unit."""
    maps = [depth for _, depth in context.of(DepthFacts)]
    total = len(maps)
    good = [d for d in maps if not d.colours and d.bits != 8]
    sparse = [d for d in good if 0 < d.valid < SPARSE]
    tests = (
        ("depth-colours", [d for d in maps if d.colours], "have several channels"),
        ("depth-8-bit", [d for d in maps if not d.colours and d.bits == 8], "have 8 bits"),
        ("depth-negative", [d for d in good if d.negative], "hold values below 0"),
        ("depth-empty", [d for d in good if d.valid == 0], "have no measurement"),
        ("depth-constant", [d for d in good if d.levels == 1], "hold one depth everywhere"),
        ("depth-sparse", sparse, f"are measured in under {SPARSE:.0%} of the pixels"),
        ("depth-nan", [d for d in good if d.nan], "hold NaN or infinity"),
        ("depth-saturated", [d for d in good if d.saturated > 0.01], "hold 65535 in over 1 % of the measured pixels"),
        ("depth-levels", [d for d in good if _has_few_levels(d)], "hold at most 256 different values"),
    )
    for code, chosen, text in tests:
        findings.add_share(code, chosen, total, f"depth maps {text}")
    measured = [d for d in good if d.levels > 1]
    if measured:
        _check_units(measured, context, findings)


def _has_few_levels(depth: DepthFacts) -> bool:
    """Whether there are fewer values than the range has room for."""
    span = depth.quantiles[4] - depth.quantiles[3]
    measured = depth.valid * depth.size[0] * depth.size[1]
    return 1 < depth.levels <= min(256, measured / 4) and (depth.bits == 0 or span > 512)


def _check_units(maps: list[DepthFacts], context: Context, findings: Findings) -> None:
    total = len(maps)
    medians = np.array([depth.metres(context.splits[0].config)[1] for depth in maps])
    middle = float(np.median(medians))
    far = np.maximum(medians / middle, middle / medians) > _UNITS_APART
    if total >= 3 and far.any():
        odd = [depth for depth, is_far in zip(maps, far, strict=True) if is_far]
        text = f"depth maps have a median of {medians[far][0]:.3g} m, where {middle:.3g} m is usual"
        findings.add_share("depth-units-differ", odd, total, text)
    ones = [depth for depth in maps if depth.bits == 0 and 0.98 <= depth.quantiles[4] <= 1.0]
    if len(ones) >= 0.9 * total and len(ones) > 1:
        findings.add_share("depth-normalised", ones, total, "depth maps end at 1")
        return
    if not _PLAUSIBLE_M[0] <= middle <= _PLAUSIBLE_M[1]:
        kind = Counter("floats" if depth.bits == 0 else "integers" for depth in maps).most_common(1)[0][0]
        raw = float(np.median([depth.quantiles[1] for depth in maps]))
        text = f"half of the {total} depth maps have a median below {middle:.3g} m (as stored: {raw:.4g}, {kind})"
        findings.add("depth-unit", text, maps, hint=_unit_hint(raw, kind))
    inverted = np.mean([depth.slope > _INVERTED_SLOPE for depth in maps])
    if total >= _INVERTED_MAPS and inverted >= 0.75:
        findings.add("depth-inverted", f"in {inverted:.0%} of {total} depth maps the value grows downwards", maps)


def _unit_hint(raw: float, kind: str) -> str:
    """The unit in which a median of ``raw`` would be an everyday depth."""
    for name, metres, low, high in _RANGES:
        if low <= raw <= high:
            key = "depth_unit_m" if kind == "integers" else "depth_scale_m"
            return f"They look like {name}: set {key}: {metres:g}."
    return ""


def check_values(context: Context, findings: Findings) -> None:
    """Check value maps, the targets of a regression."""
    maps = [values for _, values in context.of(ValueFacts)]
    broken = [values for values in maps if values.problem]
    problem = broken[0].problem if broken else ""
    findings.add_share("values-broken", broken, len(maps), f"value maps are not (H, W, K) floats: {problem}")
    good = [values for values in maps if not values.problem]
    if good:
        usual = Counter(values.channels for values in good).most_common(1)[0][0]
        if odd := [values for values in good if values.channels != usual]:
            text = f"value maps have {odd[0].channels} channels where the others have {usual}"
            findings.add_share("values-channels", odd, len(maps), text)
    empty = [values for values in good if values.finite == 0]
    findings.add_share("values-empty", empty, len(maps), "value maps are NaN everywhere")
