import random
from typing import Any

import pytest

from densevit.data.splits import SplitConfig, divide, find_split, split_key
from densevit.errors import ConfigError, DataError

NAMES = [f"patient{i % 5}/{i:03d}" for i in range(50)]


def drawn(photos: list[str] = NAMES, given: list[str] | None = None, **facts: Any) -> dict[str, str]:
    splits = divide(photos, given or [""] * len(photos), SplitConfig.parse(facts))
    return dict(zip(photos, splits, strict=True))


def test_draw__takes_the_shares() -> None:
    splits = [*drawn(val=0.2, test=0.1).values()]
    assert {name: splits.count(name) for name in {*splits}} == {"train": 35, "val": 10, "test": 5}


def test_draw__depends_on_the_names_only() -> None:
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    assert drawn(shuffled) == drawn()
    assert drawn(seed=1) != drawn()
    # The same on every platform and with every version: runs are compared by it.
    assert [name for name, split in drawn(NAMES[:10]).items() if split == "val"] == ["patient0/005", "patient1/006"]


def test_draw__does_not_change_val_with_the_share_of_test() -> None:
    def chosen(splits: dict[str, str]) -> set[str]:
        return {name for name, split in splits.items() if split == "val"}

    assert chosen(drawn(test=0.2)) == chosen(drawn())


@pytest.mark.parametrize(("number", "expected"), [(1, 0), (2, 1), (3, 1), (5, 1), (10, 2)])
def test_draw__leaves_one_for_train_and_takes_at_least_one(number: int, expected: int) -> None:
    assert [*drawn(NAMES[:number]).values()].count("val") == expected


@pytest.mark.parametrize("by", [r"patient\d", r"(patient\d)/", r"^([^/]+)/"])
def test_groups__are_never_divided(by: str) -> None:
    splits = drawn(by=by, val=0.4)
    groups = {(name.split("/")[0], split) for name, split in splits.items()}
    assert len(groups) == 5
    assert sorted(split for _, split in groups) == ["train", "train", "train", "val", "val"]


def test_by__that_finds_nothing_is_refused() -> None:
    with pytest.raises(DataError, match=r"'\^slide' of the splits finds nothing in the name patient0/000"):
        drawn(by="^slide")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"by": "("}, "by is '\\(', which is not a regular expression"),
        ({"by": "a" * 1001}, "1001 characters"),
        ({"val": 0.5, "test": 0.5}, "leaves nothing for train"),
        ({"val": 1}, "val"),
        ({"val": -0.1}, "val"),
    ],
)
def test_config__that_is_not_valid_is_refused(facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        SplitConfig.parse(facts)


def test_lists__of_names_are_taken_and_the_others_are_train() -> None:
    splits = drawn(["caf\u00e9", "b", "c"], names={"val": ["cafe\u0301"], "holdout": ["c"]})
    assert [*splits.values()] == ["val", "train", "holdout"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"val": ["patient0/00", "x"]}, r"2 names .* for example patient0/00, x; did you mean 'patient0/"),
        ({"val": ["zzz"]}, r"of no photo, for example zzz; names look like patient0/000"),
        ({"val": ["patient0/000"], "test": ["patient0/000"]}, "patient0/000 is in the lists of val and test"),
    ],
)
def test_lists__that_do_not_fit_are_refused(names: dict[str, list[str]], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        drawn(names=names)


def test_draw__divides_train_where_the_data_have_splits() -> None:
    given = ["Train"] * 40 + ["test"] * 10
    splits = [*drawn(given=given, val=0.25).values()]
    assert {name: splits.count(name) for name in {*splits}} == {"Train": 30, "val": 10, "test": 10}


def test_draw__divides_train_and_val_anew_where_the_data_have_both() -> None:
    given = ["train"] * 30 + ["valid"] * 10 + ["test"] * 10
    splits = drawn(given=given, by=r"patient\d")
    assert [*splits.values()][40:] == ["test"] * 10
    divided = {(name.split("/")[0], split) for name, split in [*splits.items()][:40]}
    assert sorted(split for _, split in divided) == ["train"] * 4 + ["valid"]


def test_draw__of_a_test_takes_the_one_that_the_data_have() -> None:
    splits = [*drawn(given=["train"] * 40 + ["test"] * 10, val=0, test=0.5).values()]
    assert splits.count("test") == 25
    assert splits[40:].count("train") > 0


@pytest.mark.parametrize(
    ("wanted", "names", "expected"),
    [
        ("val", ["train", "valid"], "valid"),
        ("val", ["val", "valid"], "val"),
        ("validation", ["Val"], "Val"),
        ("train", ["training"], "training"),
        ("test", ["train", "val"], None),
        ("fold1", ["fold1"], "fold1"),
        ("fold1", ["Fold1"], None),
    ],
)
def test_find_split__knows_the_usual_names(wanted: str, names: list[str], expected: str | None) -> None:
    assert find_split(wanted, names) == expected


def test_find_split__refuses_several_that_are_meant() -> None:
    with pytest.raises(DataError, match="may be any of valid, validation; name one of them"):
        find_split("val", ["valid", "validation"])


def test_split_key__keeps_other_names() -> None:
    assert [split_key(name) for name in ("Validation", "fold1")] == ["val", "fold1"]


def test_draw__takes_names_that_are_no_text() -> None:
    """As a file system may have them."""
    names = [f"\udce9{number}" for number in range(5)]
    splits = divide(names, [""] * 5, SplitConfig(val=0.2))
    assert sorted(splits) == ["train", "train", "train", "train", "val"]
