"""Every layout and export, as it comes: recognised, trained on for two steps, and evaluated with the same figures."""

import shutil
from pathlib import Path

import pytest

from tests.layouts import LAYOUTS
from tests.unit.described_runs import Case, figures, of_run, run_of, selected


def task_of(name: str) -> str:
    keys = LAYOUTS[name].keys
    return "segmentation" if LAYOUTS[name].classes else "depth" if "depth" in keys else "regression"


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout__is_evaluated_as_its_run_read_it(name: str, tmp_path: Path) -> None:
    bundle = run_of(Case(LAYOUTS[name].make, {}, task=task_of(name)), tmp_path / "data", tmp_path / "out")
    copy = shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    for chosen in (selected(bundle, copy), selected(bundle, None, source=tmp_path / "out")):
        assert (figures(bundle, chosen), chosen.differs) == (of_run(bundle), ())
