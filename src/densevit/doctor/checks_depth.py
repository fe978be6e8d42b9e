"""Depth maps: file type, unit, range and content; and value maps."""

from collections import Counter

import numpy as np

from densevit.doctor.context import Context
from densevit.doctor.facts import MARKED_SHARE, DepthFacts, ValueFacts
from densevit.doctor.rules import Findings, listed

SPARSE = 0.05
"""A map with a smaller share of valid pixels is called sparse."""

_PLAUSIBLE_M = (0.1, 300.0)
"""A median depth outside this range suggests a wrong unit."""

_RANGES = (("metres", 1.0, 0.5, 100), ("centimetres", 0.01, 100, 1000), ("millimetres", 0.001, 1000, 100_000))
"""Units with the medians, as stored, for which each is the likely one: 0.5 to 100 m, 1 to 10 m, and from 1 m on."""

_STEPS = (1.0, 0.01, 1 / 256, 0.001, 0.00025, 0.0002, 0.0001)
"""Usual steps of depth: the units above, and those of KITTI, of two makers of depth cameras, and of TUM's RGB-D."""

_NEAR_M = (0.5, 20.0)
"""Medians for which another step is worth a mention."""

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
        ("depth-empty", [d for d in good if d.valid == 0], "have no measurement"),
        ("depth-constant", [d for d in good if d.levels == 1], "hold one depth everywhere"),
        ("depth-sparse", sparse, f"are measured in under {SPARSE:.0%} of the pixels"),
        ("depth-nan", [d for d in good if d.nan], "hold NaN or infinity"),
        ("depth-levels", [d for d in good if _has_few_levels(d)], "hold at most 256 different values"),
    )
    for code, chosen, text in tests:
        findings.add_share(code, chosen, total, f"depth maps {text}")
    _check_markers(good, total, findings)
    measured = [d for d in good if d.levels > 1]
    if measured:
        _check_units(measured, context, findings)


def _check_markers(maps: list[DepthFacts], total: int, findings: Findings) -> None:
    """Find values that mean no measurement and are not said to: one below 0, or one far above all others."""
    below = [depth for depth in maps if depth.negative]
    lowest = {depth.lowest for depth in below}
    hint = f"If they mean no measurement, set depth_invalid: [{lowest.pop():g}]." if len(lowest) == 1 else ""
    hint = "" if "inf" in hint else hint
    findings.add_share("depth-negative", below, total, "depth maps hold values below 0", hint=hint)
    marked: dict[float, list[DepthFacts]] = {}
    for depth in maps:
        if depth.marker is not None:
            marked.setdefault(depth.marker, []).append(depth)
    for value, chosen in marked.items():
        hint = f"If it means no measurement, set depth_invalid: [{value:.9g}]."
        text = f"depth maps hold {value:.9g} in over {MARKED_SHARE:.0%} of the measured pixels"
        findings.add_share("depth-saturated", chosen, total, text, hint=hint)


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
        text = f"the {total} depth maps have a median of {middle:.3g} m (as stored: {raw:.4g}, {kind})"
        findings.add("depth-unit", text, maps, hint=_unit_hint(raw, kind))
    inverted = np.mean([depth.slope > _INVERTED_SLOPE for depth in maps])
    if total >= _INVERTED_MAPS and inverted >= 0.75:
        findings.add("depth-inverted", f"in {inverted:.0%} of {total} depth maps the value grows downwards", maps)


def _unit_hint(raw: float, kind: str) -> str:
    """The unit in which a median of ``raw`` would be an everyday depth."""
    key = "depth_unit_m" if kind == "integers" else "depth_scale_m"
    likely = next(((name, step) for name, step, low, high in _RANGES if low <= raw <= high), None)
    chosen = likely[1] if likely else 0.0
    steps = [step for step in _STEPS if step != chosen and _NEAR_M[0] <= raw * step <= _NEAR_M[1]]
    others = listed([f"{step:.6g} (then {raw * step:.2g} m)" for step in steps], 4)
    if likely is None:
        return f"Plausible would be {key}: {others}." if steps else ""
    more = f" Plausible too: {others}." if steps else ""
    return f"They look like {likely[0]}: set {key}: {chosen:g}, which makes it {raw * chosen:.2g} m.{more}"


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
