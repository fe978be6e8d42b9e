"""The C and the Triton kernel themselves: building, falling back, and the same results as the plain form."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from densevit.upsampling import native, upsample_decoded, upsample_labels
from tests.needs import needs_compiler
from tests.tolerances import EXACT, SAME_MATHS

SIZES = [((3, 4), (48, 64), False), ((12, 9), (30, 1), True), ((1, 6), (5, 300), False), ((7, 5), (7, 5), True)]


@pytest.fixture(autouse=True)
def fresh_kernel() -> Iterator[None]:
    native.load.cache_clear()
    yield
    native.load.cache_clear()


def loaded(monkeypatch: pytest.MonkeyPatch, **env: str) -> bool:
    """Whether a process with this environment finds or builds the kernel, and decodes with or without it."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    native.load.cache_clear()
    labels = upsample_labels(torch.eye(3)[:, :, None], (6, 2), align_corners=False)
    assert labels[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    return native.load() is not None


@needs_compiler
def test_kernel__is_built_once_kept_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loaded(monkeypatch, XDG_CACHE_HOME=str(tmp_path / "one"))
    (library,) = (tmp_path / "one" / "densevit").iterdir()
    made = library.stat()

    assert loaded(monkeypatch)
    assert library.stat().st_mtime_ns == made.st_mtime_ns
    assert stat.S_IMODE(library.parent.stat().st_mode) == 0o700

    damaged = tmp_path / "two" / "densevit" / library.name
    damaged.parent.mkdir(mode=0o700, parents=True)
    damaged.write_bytes(b"")
    assert loaded(monkeypatch, XDG_CACHE_HOME=str(tmp_path / "two"))
    assert damaged.stat().st_size == made.st_size


@needs_compiler
def test_kernel__is_not_loaded_from_a_folder_that_others_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "densevit").mkdir()
    (tmp_path / "densevit").chmod(0o777)

    assert loaded(monkeypatch, XDG_CACHE_HOME=str(tmp_path))
    assert list((tmp_path / "densevit").iterdir()) == []


@pytest.mark.parametrize("env", [{"PATH": ""}, {"DENSEVIT_NATIVE": "0"}])
def test_kernel__is_not_needed(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not loaded(monkeypatch, XDG_CACHE_HOME=str(tmp_path), **env)
    assert not list(tmp_path.rglob("*.so"))


def test_compiler__that_fails_is_reported_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)

    assert not loaded(monkeypatch, XDG_CACHE_HOME=str(tmp_path), CC=str(compiler))
    assert "could not be built" in caplog.text


@needs_compiler
@pytest.mark.parametrize(("old", "new", "align_corners"), SIZES)
@pytest.mark.parametrize("classes", [1, 2, 8, 19, 300])
def test_kernel__equals_the_plain_form(
    old: tuple[int, int], new: tuple[int, int], align_corners: bool, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = 3 * torch.randn(*old, classes, generator=torch.Generator().manual_seed(classes)).permute(2, 0, 1)
    asked = {"align_corners": align_corners, "scores": True, "entropy": True}
    fused = [upsample_decoded(x, new, **asked) for x in (logits, logits.contiguous())]  # both layouts

    monkeypatch.setattr(native, "load", lambda: None)
    expected = upsample_decoded(logits, new, **asked)

    for found in fused:
        assert (found.labels != expected.labels).float().mean() < 0.005  # ties
        torch.testing.assert_close(found.scores, expected.scores, **SAME_MATHS)
        torch.testing.assert_close(found.entropy, expected.entropy, **SAME_MATHS)


@needs_compiler
def test_kernel__gives_the_same_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(7, 9, 11, generator=torch.Generator().manual_seed(0))
    one = upsample_decoded(logits, (101, 90), align_corners=False, scores=True)
    monkeypatch.setattr(native, "_VALUES_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)

    five = upsample_decoded(logits, (101, 90), align_corners=False, scores=True)

    assert torch.equal(one.labels, five.labels)
    torch.testing.assert_close(one.scores, five.scores, **EXACT)


@needs_compiler
def test_labels__take_the_first_of_equals_and_never_a_class_of_minus_infinity() -> None:
    logits = torch.zeros(20, 2, 2)
    logits[:5] = -torch.inf

    labels = upsample_decoded(logits, (5, 5), align_corners=False).labels

    assert labels.unique().tolist() == [5]


def test_triton_kernel__equals_the_plain_form_in_triton_s_interpreter() -> None:
    pytest.importorskip("triton", reason="Triton is not installed here")

    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.triton_cases"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.stdout.strip() == "same", done.stderr[-2000:]
