"""The generator of the reference pages. ``test_docs`` compares its output with the pages."""

import sys
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, PositiveInt

from densevit.checkpoints.published import PUBLISHED
from densevit.config import Config
from densevit_lab import reference
from densevit_lab.reference_models import models_page
from densevit_lab.reference_text import sentence


class Inner(Config):
    """What is inside.

    Attributes:
        width: pixels, as in
            ``--width``.
    """

    width: int = 3


class Outer(Config):
    """A config.

    Attributes:
        low, high: bounds | limits.
    """

    low: float
    high: float | None = None
    mode: Literal["a", "b"] = "a"
    parts: tuple[PositiveInt, ...] = ()
    size: tuple[int, int] = (1, 2)
    inner: dict[str, Inner] = Field(default_factory=dict)


@pytest.fixture
def tree() -> reference.Tree:
    tree = reference.Tree()
    tree.place(Outer, "Root")
    return tree


def test_meanings__are_those_of_the_docstring() -> None:
    assert reference.meanings(Outer) == {"low": "bounds \\| limits", "high": "bounds \\| limits"}
    assert reference.meanings(Inner) == {"width": "pixels, as in `--width`"}


def test_rows__say_type_and_default_in_words(tree: reference.Tree) -> None:
    assert {row[0]: row[1:3] for row in tree.rows(Outer)} == {
        "`low`": ("number", "required"),
        "`high`": ("number", "none"),
        "`mode`": ("`a`, `b`", "`a`"),
        "`parts`": ("list of whole numbers", "`[]`"),
        "`size`": ("2 whole numbers", "`[1, 2]`"),
        "`inner`": ("mapping of names to [inner.NAME](#innername)", "`{}`"),
    }


def test_below__shows_each_config_once(tree: reference.Tree) -> None:
    assert tree.below(Outer).startswith("### `inner.NAME`\n\nWhat is inside.\n\n| key | value |")


def test_sentence__keeps_code_and_escapes_the_rest() -> None:
    assert sentence("x <y> and ``a <b>``.") == "x &lt;y&gt; and `a <b>`"


def test_main__writes_the_pages_and_notices_stale_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    monkeypatch.setattr(reference, "pages", lambda: {"page.md": "new\n"})
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    with pytest.raises(SystemExit, match=r"^not as the code says: page\.md; run make reference$"):
        reference.main()

    monkeypatch.setattr(sys, "argv", ["reference"])
    reference.main()

    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    reference.main()
    assert (tmp_path / "page.md").read_text() == "new\n"


def test_models_page__has_every_name_address_hash_and_licence() -> None:
    page = models_page()
    origins = [origin for row in PUBLISHED.values() for origin in row.sources]

    names = [name for row in PUBLISHED.values() for name in (row.name, row.preset, *row.aliases)]
    hashes = [origin.sha256 or origin.sha256_prefix for origin in origins if origin.sha256 or origin.sha256_prefix]
    assert [name for name in names if f"`{name}`" not in page] == []
    assert [origin.address for origin in origins if f"]({origin.address})" not in page] == []
    assert [digits for digits in hashes if f"`{digits}`" not in page] == []
    assert "| CC-BY-NC-4.0 |" in page


def test_models_page__says_what_was_never_downloaded() -> None:
    assert f"have not downloaded the files of {len(PUBLISHED)} of the {len(PUBLISHED)} models" in models_page()
