"""Every published checkpoint imports, by names and shapes: nothing is left over and nothing is missing."""

import pytest

from densevit.checkpoints.importers import IMPORTERS, Imported, build, detect
from tests.parity.published import meta_source, published

SOURCES = {
    "da3": "depth_anything_3",
    "dinov2": "dinov2",
    "hf": "transformers",
    "mmseg": "mmseg",
    "segmenter": "segmenter",
}


def imported(name: str) -> Imported:
    source = meta_source(name)
    row = detect(source.state, name)
    return build(row, IMPORTERS[row], source)


@pytest.mark.parametrize("name", published())
def test_published_checkpoint__is_recognised(name: str) -> None:
    family = name.split("-")[0]
    expected = SOURCES.get(family) or ("dpt" if "dpt" in name else "depth_anything")

    assert detect(meta_source(name).state, name) == expected


@pytest.mark.parametrize("name", published())
def test_published_checkpoint__has_every_parameter_accounted_for(name: str) -> None:
    counts = imported(name).counts

    assert counts.source == published()[name]["num_params"]
    assert counts.built + counts.ignored + counts.absorbed == counts.source


@pytest.mark.parametrize("name", published())
def test_published_checkpoint__leaves_out_only_what_has_a_reason(name: str) -> None:
    report = imported(name).report

    ignored = [row for row in report.rows if row.status == "ignored"]
    assert report.counts["missing"] == 0
    assert all(row.note for row in ignored)
    assert len(ignored) < 40  # a head, a norm, a residual unit; never whole blocks
