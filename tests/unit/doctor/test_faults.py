"""Faults are planted one at a time, and each must be found by its code and no other."""

from pathlib import Path

import pytest

from densevit.data import FolderConfig
from densevit.doctor.examine import fast_check
from densevit.doctor.rules import CHECKS
from tests.unit.doctor.data import codes, look
from tests.unit.doctor.faults import FAULTS, Fault


def test_sound_data__has_no_finding(sound: Path) -> None:
    assert [f.line() for f in look(sound).findings] == []


def test_sound_data__has_no_finding_at_a_glance(sound: Path) -> None:
    places = {split: FolderConfig(root=sound, split=split) for split in ("train", "val")}

    assert fast_check(places) == []


@pytest.mark.parametrize("planted", FAULTS, ids=lambda planted: f"{planted.plant.__name__}-{planted.code}")
def test_fault__is_found_by_its_code_and_no_other(planted: Fault, root: Path) -> None:
    planted.plant(root)

    assert codes(look(root, **planted.keys)) == {planted.code} | planted.also


def test_every_code__has_a_planted_fault() -> None:
    assert {planted.code for planted in FAULTS} == set(CHECKS)
