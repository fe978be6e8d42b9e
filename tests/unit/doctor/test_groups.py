"""Photos that belong together by their names."""

import re
from pathlib import Path

import pytest

from densevit.data import FolderConfig
from densevit.data.splits import SplitConfig
from densevit.doctor.checks_groups import group_by_name
from densevit.doctor.examine import examine
from tests.unit.doctor.data import codes, finding, look
from tests.unit.doctor.faults import a_patient_in_two_splits, renamed

PATIENTS = [f"patient{i}_{j}" for i in range(4) for j in range(3)]
ROOMS = [f"{room}/{i:04}" for room in ("hall", "kitchen", "yard/a") for i in range(5)]
TILES = [f"{i}_crop_{j}_png.rf.{i * 7 + j:032x}" for i in range(4) for j in range(3)]
COPIES = [f"shoe{i}_jpg.rf.{j * 99 + i:032x}" for i in range(4) for j in range(3)]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (PATIENTS, {f"patient{i}_" for i in range(4)}),
        (ROOMS, {"hall", "kitchen", "yard/a"}),
        (TILES, {f"{i}_crop_" for i in range(4)}),
        (COPIES, {f"shoe{i}" for i in range(4)}),
    ],
)
def test_groups__are_what_names_have_in_common(names: list[str], groups: set[str]) -> None:
    found = group_by_name(names)

    assert found is not None
    assert {*found[1].values()} == groups
    assert all(re.search(found[0], name)[1] == group for name, group in found[1].items())  # type: ignore[index]


@pytest.mark.parametrize(
    "names",
    [
        [f"{i:03}" for i in range(50)],
        [f"IMG_{i:04}" for i in range(50)],
        [f"frame-{i:06}.color" for i in range(50)],
        ["wall", "sky", "tree", "a1"],
        [f"left_{i}" for i in range(9)] + [f"right_{i}" for i in range(9)],
        [],
    ],
)
def test_names__without_groups_form_none(names: list[str]) -> None:
    assert group_by_name(names) is None


def test_group__in_two_splits_is_named_with_the_key(root: Path) -> None:
    a_patient_in_two_splits(root)
    found = finding(look(root), "leak-groups")

    assert found.what == ("by their names, photos form 4 groups, of which 1 are in several splits: 'patient2_'")
    assert len(found.files) == 8
    assert "move the photos of each group into one split" in found.fix
    assert codes(look(root, sample=2)) == {"leak-groups"}


def test_group__in_two_drawn_splits_is_mended_by_the_key(root: Path) -> None:
    renamed(root, lambda split, i: f"patient{i // 3}_{i}")
    flat = FolderConfig(images=root / "images" / "train", masks=root / "masks" / "train", splits=SplitConfig(val=0.3))
    found = finding(examine(flat), "leak-groups")
    by = re.search(r"set splits\.by: '(.+)' \(--split-by\)", found.fix)
    assert by is not None

    mended = flat.model_copy(update={"splits": SplitConfig(val=0.3, by=by[1])})

    assert "leak-groups" not in codes(examine(mended))


def test_groups__that_are_apart_are_no_finding(root: Path) -> None:
    renamed(root, lambda split, i: f"patient{i // 3}_{i}")

    assert codes(look(root)) == set()
