"""Depth maps: kind of file, unit, range and content; and value maps."""

from collections import Counter

import numpy as np

from densevit.doctor.context import Material
from densevit.doctor.facts import DepthFacts, ValueFacts
from densevit.doctor.rules import Findings
from densevit.doctor.semantics import metres_per_step

SPARSE = 0.05
"""Share of valid pixels below which a map is called sparse."""

_PLAUSIBLE_M = (0.1, 300.0)
"""A median depth outside is taken for a mistake of unit."""

_UNITS_APART = 50.0
"""Medians of two groups of maps that are this far apart are of two units."""

_INVERTED_MAPS, _INVERTED_SLOPE = 8, 0.3


def check_depth(material: Material, found: Findings) -> None:
    """All depth maps together, since one unit is meant for all."""
    maps = [depth for _, depth in material.of("depth", DepthFacts)]
    if not maps:
        return
    good = _check_kinds(maps, found)
    total = len(maps)
    tests = (
        ("depth-negative", [d for d in good if d.negative], "hold values below 0"),
        ("depth-empty", [d for d in good if d.valid == 0], "have no measurement"),
        ("depth-constant", [d for d in good if d.levels == 1], "hold one depth everywhere"),
        (
            "depth-sparse",
            [d for d in good if 0 < d.valid < SPARSE],
            f"have a measurement in under {SPARSE:.0%} of the pixels",
        ),
        ("depth-nan", [d for d in good if d.nan], "hold NaN or infinity"),
        ("depth-saturated", [d for d in good if d.saturated > 0.01], "hold 65535 in over 1 % of the measured pixels"),
        ("depth-levels", [d for d in good if _coarse(d)], "hold at most 256 different values"),
    )
    for code, chosen, what in tests:
        if chosen:
            found.add(code, f"{len(chosen)} of {total} depth maps {what}", [d.path for d in chosen])
    measured = [d for d in good if d.levels > 1]
    if measured:
        _check_units(measured, material, found)


def _coarse(depth: DepthFacts) -> bool:
    """Fewer values than its span has room for."""
    span = depth.quantiles[4] - depth.quantiles[3]
    measured = depth.valid * depth.size[0] * depth.size[1]
    return 1 < depth.levels <= min(256, measured / 4) and (depth.bits == 0 or span > 512)


def _check_kinds(maps: list[DepthFacts], found: Findings) -> list[DepthFacts]:
    """The maps that the reader takes; the others are findings."""
    coloured = [d for d in maps if d.colours]
    coarse = [d for d in maps if not d.colours and d.bits == 8]
    for code, chosen, what in (
        ("depth-colours", coloured, "have several channels"),
        ("depth-8-bit", coarse, "have 8 bits"),
    ):
        if chosen:
            found.add(code, f"{len(chosen)} of {len(maps)} depth maps {what}", [d.path for d in chosen])
    refused = {d.path for d in (*coloured, *coarse)}
    return [d for d in maps if d.path not in refused]


def _check_units(maps: list[DepthFacts], material: Material, found: Findings) -> None:
    medians = np.array([d.quantiles[1] * metres_per_step(d, material.splits[0].config) for d in maps])
    files = [d.path for d in maps]
    middle = float(np.median(medians))
    far = np.maximum(medians / middle, middle / medians) > _UNITS_APART
    if far.any() and len(maps) >= 3:
        odd = [path for path, other in zip(files, far, strict=True) if other]
        there = f"a median of {medians[far][0]:.3g} m"
        what = f"{len(odd)} of {len(maps)} depth maps have {there}, and {middle:.3g} m is usual"
        found.add("depth-units-differ", what, odd)
    floats = [d for d in maps if d.bits == 0]
    ones = [d for d in floats if 0.98 <= d.quantiles[4] <= 1.0]
    if ones and len(ones) >= 0.9 * len(maps) and len(ones) > 1:
        found.add("depth-normalised", f"{len(ones)} of {len(maps)} depth maps end at 1", [d.path for d in ones])
        return
    if not _PLAUSIBLE_M[0] <= middle <= _PLAUSIBLE_M[1]:
        kind = Counter("floats" if d.bits == 0 else "integers" for d in maps).most_common(1)[0][0]
        raw = float(np.median([d.quantiles[1] for d in maps]))
        what = f"half of the {len(maps)} depth maps have a median below {middle:.3g} m (as stored: {raw:.4g}, {kind})"
        found.add("depth-unit", what, files, hint=_unit_hint(raw, kind))
    slopes = np.array([d.slope for d in maps])
    if len(maps) >= _INVERTED_MAPS and (slopes > _INVERTED_SLOPE).mean() >= 0.75:
        share = (slopes > _INVERTED_SLOPE).mean()
        found.add("depth-inverted", f"in {share:.0%} of {len(maps)} depth maps the value grows downwards", files)


def _unit_hint(raw: float, kind: str) -> str:
    """The unit in which a median of ``raw`` would be an everyday depth."""
    for name, metres in (("metres", 1.0), ("centimetres", 0.01), ("millimetres", 0.001)):
        if 0.5 <= raw * metres <= 100:
            if kind == "integers":
                return f"They look like {name}: set depth_unit_m: {metres:g}."
            return f"They look like {name}: floats must be metres, so multiply them by {metres:g}."
    return ""


def check_values(material: Material, found: Findings) -> None:
    """Value maps, the targets of a regression."""
    maps = [values for _, values in material.of("values", ValueFacts)]
    if broken := [v for v in maps if v.problem]:
        what = f"{len(broken)} of {len(maps)} value maps are no (H, W, K) floats: {broken[0].problem}"
        found.add("values-broken", what, [v.path for v in broken])
    good = [v for v in maps if not v.problem]
    channels = Counter(v.channels for v in good)
    if len(channels) > 1:
        usual = channels.most_common(1)[0][0]
        odd = [v for v in good if v.channels != usual]
        what = f"{len(odd)} of {len(maps)} value maps have {odd[0].channels} channels where the others have {usual}"
        found.add("values-channels", what, [v.path for v in odd])
    if empty := [v.path for v in good if v.finite == 0]:
        found.add("values-empty", f"{len(empty)} of {len(maps)} value maps are NaN everywhere", empty)
