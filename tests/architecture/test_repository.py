"""What keeps the repository and its tests easy to handle."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
GOLDEN_BYTES = 25_500_000


def borrowing_modules(tests: Path) -> list[str]:
    """Test modules whose builders are imported elsewhere, also by the programs that tests hold as text."""
    pattern = re.compile(r"^\s*(?:from|import) (tests\.(?:\w+\.)*test_\w+)", re.MULTILINE)
    return [
        f"{file.relative_to(tests)} imports {module}, a test module; move what it needs to a module of builders"
        for file in sorted(tests.rglob("*.py"))
        for module in pattern.findall(file.read_text(encoding="utf-8"))
    ]


def test_tests__do_not_import_one_another() -> None:
    assert borrowing_modules(TESTS) == []


def test_borrowing__is_reported_in_code_and_in_programs(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("from tests.unit.test_b import c\nfrom tests.unit.builders import test_d\n")
    (tmp_path / "test_e.py").write_text('PROGRAM = """\nimport tests.unit.io.test_b\n"""\n')

    assert [line.split(",")[0] for line in borrowing_modules(tmp_path)] == [
        "test_a.py imports tests.unit.test_b",
        "test_e.py imports tests.unit.io.test_b",
    ]


def test_golden__stays_small() -> None:
    """What is in the history of the repository stays there, and every clone carries it."""
    assert sum(path.stat().st_size for path in (TESTS / "parity" / "golden").iterdir()) <= GOLDEN_BYTES
