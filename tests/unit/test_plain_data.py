"""YAML and JSON that claim too much, or have values that no type can hold."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from densevit.config import apply_overrides, read_yaml
from densevit.errors import ConfigError, DataError
from densevit.io.text import read_json
from densevit.limits import VARIABLE
from densevit.plain_data import check_plain, parse_json, parse_json_config, parse_yaml

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}]}}\n" for i in range(40))

HOSTILE = {
    "no such day": "2026-02-30",
    "no such month": "2026-13-01",
    "hexadecimal without digits": "0x_",
    "timestamp of a word": "!!timestamp word",
    "bool of a word": "!!bool word",
    "int of a word": "!!int word",
    "float of a word": "!!float word",
    "digits": "9" * 5000,
    "sexagesimal digits": "1" + ":10" * 5000,
    "more than 64 bits": "1" + "0" * 30,
    "deep": "[" * 3000 + "]" * 3000,
    "a little too deep": "[" * 65 + "]" * 65,
    "bytes": "!!binary AAAA",
    "set": "!!set {a, b}",
    "null character": '"a\\0b"',
    "half a surrogate pair": '"\\ud800"',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_yaml_value__is_refused_in_a_file_and_on_the_command_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"card: {{name: {text}}}\n")

    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_yaml(path)
    with pytest.raises(ConfigError, match=r"--set got 'card\.name="):
        apply_overrides({}, [f"card.name={text}"])


@pytest.mark.parametrize(
    "text", [LAUGHS, MERGES, "a: &a [*a]", "a: &a {b: *a}"], ids=["lists", "merges", "list", "map"]
)
def test_yaml_anchors__count_as_often_as_they_are_used(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_yaml(path)


def test_yaml_anchors__stay_possible() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}") == {"a": {"x": 1}, "b": {"x": 1, "y": [{"x": 1}] * 2}}


def test_yaml__of_texts_numbers_and_dates_is_plain() -> None:
    assert parse_yaml("[a, 1, -2.5, true, null, 2026-02-28]")[:5] == ["a", 1, -2.5, True, None]
    assert parse_yaml("") is None


def test_config_file__of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.touch()
    os.truncate(path, 5 << 30)

    with pytest.raises(ConfigError, match=r"has 5,368,709,120 bytes, and up to 10,000,000 are accepted"):
        read_yaml(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_config_file__that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")

    with pytest.raises(ConfigError, match="it is a device or a pipe"):
        read_yaml(tmp_path / "config.yaml")


@pytest.mark.parametrize("path", [Path("a\0b"), Path("x" * 5000)], ids=["null", "long"])
def test_config_file__of_an_impossible_name_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError):
        read_yaml(path)


def test_override__of_too_many_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match="65 keys in a row, and up to 64 are accepted"):
        apply_overrides({}, [".".join("a" * 65) + "=1"])


def test_override__with_an_endless_index_is_refused() -> None:
    with pytest.raises(ConfigError, match="is a list of 1"):
        apply_overrides({"sources": [{}]}, ["sources." + "1" * 5000 + ".x=1"])


@pytest.mark.parametrize("pair", ["card.name=\udcff"])
def test_override__that_no_file_can_hold_is_refused(pair: str) -> None:
    with pytest.raises(ConfigError, match="--set got"):
        apply_overrides({}, [pair])


@pytest.mark.parametrize(
    "value",
    ["Infinity", "-Infinity", "NaN", "1e400", "9" * 5000, "[" * 100_000 + "]" * 100_000, '"\\ud800"'],
    ids=["infinity", "minus infinity", "nan", "overflow", "digits", "deep", "surrogate"],
)
def test_json__with_values_that_json_cannot_hold_is_refused(value: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.write_text(f'{{"ignore_index": {value}}}')

    with pytest.raises(ValueError):  # noqa: PT011 - any text will do
        parse_json(path.read_text())
    with pytest.raises(DataError, match=r"classes\.json is not valid JSON"):
        read_json(path, "classes")


def test_json__with_surrogate_pairs_is_read() -> None:
    assert parse_json('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


def test_json_file__of_zeros_is_refused_by_its_start(tmp_path: Path) -> None:
    path = tmp_path / "classes.json"
    path.touch()
    os.truncate(path, 1 << 30)

    with pytest.raises(DataError, match="null characters"):
        read_json(path, "classes")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ([[[[]]]], "nested deeper"),
        ([0] * 20, "more values"),
        ([2**63], "64 bits"),
        ([b""], "bytes"),
    ],
)
def test_bounds__are_those_of_the_budget(data: Any, match: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "nesting=3,nodes=10")

    with pytest.raises(ValueError, match=match):
        check_plain(data)


def test_json_config__is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps([[[]]])
    assert parse_json_config(text) == [[[]]]

    monkeypatch.setenv(VARIABLE, "nesting=2")
    with pytest.raises(ValueError, match="nested deeper"):
        parse_json_config(text)
    monkeypatch.setenv(VARIABLE, "config_bytes=5")
    with pytest.raises(ValueError, match="6 bytes"):
        parse_json_config(text)
