"""Each generator finds a fault that was planted for it, and none where there is none."""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.fuzz.generators import GENERATORS
from tests.fuzz.harness import fuzz, run

MOST = 60
"""Inputs within which a planted fault must be found."""


@contextlib.contextmanager
def unguarded(*_: object) -> Iterator[None]:
    yield


PLANTED: dict[str, tuple[str, object]] = {
    "images": ("densevit_runtime.io.decode.guarded", unguarded),
    "masks": ("densevit_runtime.io.read.require_array", lambda _path, array, *_: array),
    "depths": ("densevit.doctor.probe.Broken", None),
    "annotations": ("densevit.io.text.parse_json", json.loads),
    "configs": ("densevit.config.parse_yaml", yaml.safe_load),
    "layouts": ("densevit.data.discover.coco_layout.read_json", lambda path, *_: json.loads(path.read_bytes())),
    "checkpoints": ("densevit.checkpoints.files._damaged", lambda *_: ZeroDivisionError("planted")),
    "names": ("densevit_runtime.io.write._SURROGATE", re.compile("(?!)")),
}


@pytest.mark.parametrize("name", [*GENERATORS, "checkpoints"])
def test_generator__finds_the_fault_that_was_planted_for_it(name, monkeypatch, tmp_path):
    monkeypatch.setattr(*PLANTED[name])
    findings = (finding for finding in fuzz(name, range(MOST), tmp_path) if finding is not None)
    assert next(findings, None) is not None


@pytest.mark.parametrize("name", [*GENERATORS, "checkpoints"])
def test_generator__finds_nothing_in_the_product(name, tmp_path):
    assert [finding for finding in fuzz(name, range(3), tmp_path) if finding is not None] == []


def take_memory(**filters: object) -> None:
    held = bytearray(2**32)
    while held:
        time.sleep(1)


def take_time(**filters: object) -> None:
    while True:
        pass


@pytest.mark.parametrize(("body", "seconds", "end"), [(take_memory, 120, "memory"), (take_time, 3, "time")])
def test_harness__stops_what_takes_too_much(body: Callable[..., None], seconds: float, end: str, monkeypatch, tmp_path):
    monkeypatch.setattr("densevit.checkpoints.catalogue.catalogue", body)
    assert run(["models"], tmp_path / "log", seconds=seconds)[0] == end
