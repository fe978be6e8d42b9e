"""The catalogue of named models: its rows, its filters, and what it refuses."""

import pytest

import densevit
from densevit.checkpoints.catalogue import (
    BYTES_PER_PARAMETER,
    SHIPPED_LICENCES,
    catalogue,
    entries,
    num_bytes,
    num_parameters,
    select,
    weights_size,
)
from densevit.checkpoints.hub import DEFAULT, DEFAULT_NAME
from densevit.checkpoints.published import PUBLISHED, find_published
from densevit.errors import ConfigError
from densevit.presets import PRESETS

BY_NAME = {entry.name: entry for entry in entries()}


def names(**filters: str | int) -> set[str]:
    return {entry.name for entry in select(**filters)}  # type: ignore[arg-type]


def test_entries__are_every_named_model_once() -> None:
    assert len(entries()) == len(BY_NAME)
    assert set(BY_NAME) == {DEFAULT_NAME, *PUBLISHED, *PRESETS}


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("default", "shipped"),
        ("dpt-large-ade20k", "published"),
        ("depth-anything-v2-small", "published"),
        ("depth-anything-s", "published"),  # the preset of the same model
        ("dpt-base-depth", "none"),
        ("setr-paper-pup-l-ade20k", "none"),
    ],
)
def test_entry__says_whether_there_are_weights(name: str, weights: str) -> None:
    assert BY_NAME[name].weights == weights


def test_entry__without_weights_has_no_licence() -> None:
    entry = BY_NAME["dpt-base-depth"]
    assert (entry.licence, entry.licences, entry.permissive) == (None, (), False)


def test_shipped_model__has_the_licences_that_its_card_names() -> None:
    entry = BY_NAME["default"]

    assert [licence for licence in SHIPPED_LICENCES if licence not in str(entry.licence)] == []
    assert entry.permissive


@pytest.mark.parametrize("weights", ["shipped", "published", "none"])
def test_select__by_weights(weights: str) -> None:
    assert names(weights=weights) == {name for name, entry in BY_NAME.items() if entry.weights == weights}


def test_select__by_task_takes_a_model_with_several() -> None:
    assert names(task="depth") | names(task="segmentation") == set(BY_NAME)
    assert names(task="depth") & names(task="segmentation") == {"default"}


@pytest.mark.parametrize("family", ["Depth Anything", "depth-anything", "DEPTH_ANYTHING"])
def test_select__by_family_in_any_spelling(family: str) -> None:
    assert names(family=family) == {name for name in BY_NAME if name.startswith("depth-anything-")}


def test_select__permissive_licences() -> None:
    permissive = names(licence="permissive")

    assert {"default", "dpt-large-ade20k", "setr-pup-l-ade20k", "depth-anything-v2-small"} <= permissive
    assert permissive.isdisjoint(names(licence="CC-BY-NC-4.0") | names(licence="unstated") | names(weights="none"))


def test_select__by_licence() -> None:
    assert names(licence="cc-by-nc-4.0") == {
        "depth-anything-v2-base",
        "depth-anything-v2-large",
        "depth-anything-b",
        "depth-anything-l",
        *(f"depth-anything-v2-metric-{place}-{size}" for place in ("indoor", "outdoor") for size in ("base", "large")),
    }


def test_select__by_size_of_float32_weights() -> None:
    entry = BY_NAME["depth-anything-v2-small"]
    size = BYTES_PER_PARAMETER * num_parameters(entry)

    assert weights_size(entry) == size
    assert entry.name in names(max_size=size, family="Depth Anything")
    assert entry.name not in names(max_size=size - 1, family="Depth Anything")
    assert names(max_size="1MB") == set()
    assert names(max_size="100GB") == set(BY_NAME)


def test_select__by_size_of_the_file_that_ships() -> None:
    assert weights_size(BY_NAME["default"]) == DEFAULT.stat().st_size


def test_select__filters_combine() -> None:
    chosen = select(task="depth", licence="permissive", weights="published", max_size="200MB")

    assert {entry.name for entry in chosen} == {
        "depth-anything-s",
        "depth-anything-v1-small",
        "depth-anything-v2-metric-indoor-small",
        "depth-anything-v2-metric-outdoor-small",
        "depth-anything-v2-small",
        *(f"dinov2-small-{data}-{head}" for data in ("nyu", "kitti") for head in ("linear", "linear4", "dpt")),
        "dpt-dinov2-small-kitti",
        "dpt-dinov2-small-nyu",
    }


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"task": "deph"}, "no model has the task 'deph'; did you mean 'depth'?; accepted: depth, segmentation"),
        ({"weights": "all"}, "no model has the weights 'all'; accepted: none, published, shipped"),
        (
            {"family": "UperNet"},
            "no model has the family 'UperNet'; accepted: DINOv2, DPT, Depth Anything, SETR, Segmenter",
        ),
        (
            {"licence": "GPL-3.0"},
            "no model has the licence 'GPL-3.0'; accepted: Apache-2.0, CC-BY-NC-4.0, MIT, permissive, unstated",
        ),
        (
            {"max_size": "small"},
            "max_size is 'small', but a size is a number of bytes, or a text such as 500MB or 2GiB",
        ),
    ],
)
def test_select__refuses_what_no_model_has(filters: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select(**filters)  # type: ignore[arg-type]

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "size"),
    [(500, 500), ("500", 500), ("1.5 kB", 1500), ("500MB", 500_000_000), ("2gib", 2 << 30), ("3 M", 3_000_000)],
)
def test_num_bytes__of_a_size(text: int | str, size: int) -> None:
    assert num_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1e9", "nan", "5 TB", "9" * 400, "1.5.2MB", True])
def test_num_bytes__refuses_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="but a size is a number of bytes"):
        num_bytes(text)


def test_rows__have_the_same_keys() -> None:
    rows = catalogue(task="depth")

    assert {frozenset(row) for row in rows} == {frozenset(rows[0])}


def test_row__of_published_weights_says_all_that_is_known() -> None:
    (row,) = [row for row in catalogue(family="DPT", licence="MIT") if row["name"] == "dpt-large-depth"]

    assert row["encoder"] == "ViT-L/16"
    assert row["bytes"] == BYTES_PER_PARAMETER * row["parameters"]
    assert row["aliases"] == ["dpt-large-midas"]
    assert row["metrics"]["ETH3D AbsRel"] == 0.089
    assert [source["sha256_prefix"] for source in row["sources"]] == ["2f21e586", "2f21e586"]
    assert row["sources"][0]["address"].endswith("/1_0/dpt_large-midas-2f21e586.pt")
    assert (row["permissive"], row["downloaded_here"]) == (True, False)


def test_row__of_an_architecture_states_nothing_of_weights() -> None:
    (row,) = [row for row in catalogue(weights="none", family="DPT") if row["name"] == "dpt-base-depth"]

    assert (row["licence"], row["sources"], row["metrics"], row["protocol"]) == (None, [], {}, None)


def test_list_models__names_and_filters() -> None:
    assert densevit.list_models()[0] == "default"
    assert densevit.list_models(weights="shipped") == ("default",)
    assert set(densevit.list_models(family="SETR", weights="published")) == {
        row.name for row in PUBLISHED.values() if row.family == "SETR"
    }


def test_list_models__every_published_name_is_found() -> None:
    assert [name for name in densevit.list_models(weights="published") if find_published(name) is None] == []
