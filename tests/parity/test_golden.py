"""The reference programs' own outputs, from their raw state dicts through importer and protocol."""

import hashlib
from pathlib import Path

import pytest

from densevit_lab.parity.check import check
from densevit_lab.parity.fixture import Fixture, read_fixtures

GOLDEN = Path(__file__).parent / "golden"
FIXTURES = {fixture.name: fixture for fixture in read_fixtures(GOLDEN)}


@pytest.mark.parametrize("fixture", FIXTURES.values(), ids=FIXTURES)
def test_golden__is_reproduced(fixture: Fixture) -> None:
    rows = check(fixture)

    assert rows
    assert [row for row in rows if not row.passed] == []


@pytest.mark.parametrize("fixture", [f for f in FIXTURES.values() if f.tensors], ids=lambda fixture: fixture.name)
def test_golden__is_the_file_that_was_recorded(fixture: Fixture) -> None:
    content = (GOLDEN / f"{fixture.name}.safetensors").read_bytes()

    assert hashlib.sha256(content).hexdigest() == fixture.description["sha256"]


def test_golden__covers_every_source() -> None:
    origins = {fixture.origin for fixture in FIXTURES.values() if fixture.tensors}

    others = {"depth_anything_3", "transformers", "smp", "dinov2"}
    assert origins == {"segmenter", "setr", "mmseg", "dpt", "depth_anything"} | others


def test_golden__fails_where_a_weight_is_changed() -> None:
    fixture = FIXTURES["setr-fudan-naive"]
    changed = {key: t * 1.001 if key.endswith("norm.weight") else t for key, t in fixture.tensors.items()}

    rows = check(Fixture(fixture.name, fixture.description, changed))

    assert not all(row.passed for row in rows)


def test_golden__fails_where_a_tensor_is_not_understood() -> None:
    fixture = FIXTURES["setr-fudan-naive"]
    strange = dict(fixture.tensors) | {"case0.tap.unheard_of": fixture.tensors["case0.output"]}

    failed = [row for row in check(Fixture(fixture.name, fixture.description, strange)) if not row.passed]

    assert [row.case for row in failed] == ["case0.tap.unheard_of"]
