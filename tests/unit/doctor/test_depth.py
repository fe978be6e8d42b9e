"""Units of depth, and stored values that mean no measurement: what is said, with the key that mends it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.doctor.data import codes, each, finding, look
from tests.unit.doctor.faults import depth_as_floats


@pytest.mark.parametrize(
    ("step", "given", "said"),
    [
        (1000, 1.0, "They look like millimetres: set depth_unit_m: 0.001, which makes it 3.7 m."),
        (5000, 1.0, "0.0002 (then 3.7 m)"),
        (256, 0.00001, "They look like centimetres: set depth_unit_m: 0.01"),
        (256, 0.00001, "0.00390625 (then 3.7 m)"),
        (100, 0.0001, "They look like centimetres: set depth_unit_m: 0.01, which makes it 3.7 m."),
    ],
)
def test_unit__that_is_wrong_names_those_that_are_plausible(step: int, given: float, said: str, root: Path) -> None:
    each(root, "depth", lambda d: (d * (step / 1000)).astype(np.uint16))

    assert said in finding(look(root, depth_unit_m=given), "depth-unit").fix


def test_unit__that_is_plausible_is_not_doubted(root: Path) -> None:
    each(root, "depth", lambda d: (d * 5).astype(np.uint16))

    assert codes(look(root, depth_unit_m=0.0002)) == set()


@pytest.mark.parametrize("value", [65535, 1e4, 1e10, 1e30])
def test_largest_value__that_means_nothing_is_named_with_its_key(value: float, root: Path) -> None:
    depth_as_floats(root, lambda d: np.where(d == 0, np.float32(value), d))
    found = finding(look(root), "depth-saturated")

    assert f"set depth_invalid: [{np.float32(value):.9g}]" in found.fix
    assert codes(look(root, depth_invalid=(value,))) == set()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: np.where(d > 5500, 5500, d).astype(np.uint16),  # a camera's range, not far above the others
        lambda d: np.where(np.arange(d.size).reshape(d.shape) == 99, 60000, d).astype(np.uint16),  # a single outlier
    ],
)
def test_largest_value__that_is_a_distance_is_not_reported(
    change: Callable[[NDArray[Any]], NDArray[Any]], root: Path
) -> None:
    each(root, "depth", change)

    assert "depth-saturated" not in codes(look(root))


def test_value_below_0__is_named_with_its_key_if_it_is_one(root: Path) -> None:
    depth_as_floats(root, lambda d: np.where(d == 0, np.float32(-1), d))

    assert "If they mean no measurement, set depth_invalid: [-1]." in finding(look(root), "depth-negative").fix
    assert codes(look(root, depth_invalid=(-1.0,))) == set()


def test_values_below_0__that_differ_have_no_key(root: Path) -> None:
    depth_as_floats(root, lambda d: d - 3)

    assert "depth_invalid" not in finding(look(root), "depth-negative").fix
