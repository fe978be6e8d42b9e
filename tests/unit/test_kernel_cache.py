"""Where compiled kernels are kept and when they are loaded: whole, with their functions, and out of others' reach."""

import ctypes
import logging
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from densevit.kernels import build, cache
from tests import sanitize

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no library is built on Windows")
SIGNATURES: build.Signatures = {"answer": (build.INT, [])}


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_hanging", set())
    cache._warn.cache_clear()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "answer.c"
    file.write_text("int answer(void) { return 42; }\n")
    return file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's home, not there yet."""
    place = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    return place


def answer(source: Path) -> Path | None:
    """The file of the library that is loaded, which must work, or None."""
    loaded = build.library(source, "nothing is lost", SIGNATURES)
    if loaded is None:
        return None
    assert loaded.answer() == 42
    return Path(loaded._name)


needs_compiler = pytest.mark.skipif(
    build.library(Path(build.__file__).with_name("attention.c"), "") is None, reason="no C compiler here"
)


@needs_compiler
def test_library__is_kept_and_found_again(source: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = answer(source)
    assert path is not None
    assert path.parent == home / "densevit"

    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("built again"))
    assert answer(source) == path
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@needs_compiler
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_library__is_this_user_s_only_whatever_the_umask(umask: int, source: Path, home: Path) -> None:
    home.mkdir(0o755)
    before = os.umask(umask)
    try:
        path = answer(source)
    finally:
        os.umask(before)

    assert path is not None
    assert path.parent == home / "densevit"
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent)] == [0o700, 0o700]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4096])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def open_to_others(path: Path) -> None:
    path.chmod(0o722)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@needs_compiler
@pytest.mark.parametrize("damage", [cut, flip, empty, lengthen, open_to_others, link, pipe])
def test_library__that_is_not_as_it_was_built_is_built_again(
    damage: Callable[[Path], None], source: Path, home: Path
) -> None:
    path = answer(source)
    assert path is not None
    whole = path.read_bytes()
    path.unlink()  # this process has the old file in its memory and would crash with it
    path.write_bytes(whole)
    damage(path)

    assert not cache.verified(path)
    assert answer(source) == path
    assert path.read_bytes() == whole
    assert stat.S_ISREG(path.lstat().st_mode)
    assert cache.verified(path)


@needs_compiler
def test_library__without_a_function_is_built_again(source: Path, home: Path) -> None:
    path = answer(source)
    assert path is not None
    empty_source = source.with_name("empty.c")
    empty_source.write_text("int nothing;\n")
    other = build.library(empty_source, "nothing is lost")
    assert other is not None
    content = Path(other._name).read_bytes()
    planted = path.with_name(f"{path.stem.rpartition('-')[0]}-{cache.digest(content)}.so")
    planted.write_bytes(content)
    planted.chmod(0o700)
    path.unlink()

    assert answer(source) == path
    assert not planted.exists()


def compiler(folder: Path, text: str) -> str:
    """A shell script as the compiler."""
    file = folder / "odd-cc"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return str(file)


TO_OUTPUT = 'for a; do [ "$last" = "-o" ] && out="$a"; last="$a"; done; '


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "exit 0",
        "printf '\\377\\376 is not UTF-8' >&2; exit 1",
        TO_OUTPUT + 'echo "not a library" > "$out"',
        TO_OUTPUT + ': > "$out"',
        TO_OUTPUT + 'mkdir "$out"',
        TO_OUTPUT + 'echo "int x;" | cc -shared -fPIC -xc - -o "$out"',
        "kill -9 $$",
        "cat; exit 1",
    ],
)
def test_compiler__that_fails_or_makes_something_else_is_done_without(
    script: str, source: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = compiler(source.parent, script)
    monkeypatch.setenv("CC", chosen)

    assert answer(source) is None
    assert f"answer.c could not be built with {chosen}; nothing is lost" in caplog.text
    assert list((home / "densevit").iterdir()) == []


def test_compiler__that_hangs_is_ended_with_its_programs_and_not_asked_again(
    source: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = source.with_name("pid")
    monkeypatch.setenv("CC", compiler(source.parent, f"sleep 1000 & echo $! > {pid_file}; wait"))
    monkeypatch.setattr(build, "_TIMEOUT_S", 1.0)
    start = time.monotonic()

    assert answer(source) is None
    first = time.monotonic()
    assert answer(source) is None

    assert first - start < 10
    assert time.monotonic() - first < 0.5
    state = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    if Path("/proc/self").exists():
        assert not state.exists() or state.read_text().split(")")[1].split()[0] == "Z"


def test_flags__that_cannot_be_read_are_reported(
    source: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DENSEVIT_NATIVE_FLAGS", "'-g")

    assert answer(source) is None
    assert "No closing quotation" in caplog.text


@needs_compiler
def test_flags__reach_the_compiler_and_have_a_library_of_their_own(
    source: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.write_text("#ifndef ANSWER\n#define ANSWER 42\n#endif\nint answer(void) { return ANSWER; }\n")
    assert answer(source)
    monkeypatch.setenv("DENSEVIT_NATIVE_FLAGS", "-DANSWER=7 '-DOTHER=a b'")

    loaded = build.library(source, "nothing is lost", SIGNATURES)

    assert loaded is not None
    assert loaded.answer() == 7


def others_may_write(folder: Path) -> None:
    folder.chmod(0o757)


def group_may_write(folder: Path) -> None:
    folder.chmod(0o775)


@needs_compiler
@pytest.mark.parametrize("change", [others_may_write, group_may_write])
@pytest.mark.parametrize("level", ["densevit", ".", ".."])
def test_folder__that_others_may_change_or_replace_is_not_used(
    level: str,
    change: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    above = tmp_path / "above"
    home = above / "cache"
    (home / "densevit").mkdir(parents=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    # pytest's own folder is closed to others, which would make what is below harmless.
    monkeypatch.setattr(cache, "_PASSABLE_BY_OTHERS", stat.S_IRWXU)
    changed = (home / level).resolve()
    change(changed)

    path = answer(source)

    assert path is None or home not in path.parents
    assert f"{changed} may be written by others" in caplog.text
    assert list((home / "densevit").iterdir()) == []


@needs_compiler
def test_folder__below_one_that_others_cannot_enter_may_be_writable(source: Path, home: Path) -> None:
    home.mkdir()
    home.chmod(0o775)
    home.parent.chmod(0o700)

    path = answer(source)

    assert path is not None
    assert path.parent == home / "densevit"


@needs_compiler
def test_folder__of_another_user_is_not_used(
    source: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = answer(source)
    assert path is not None
    another = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: another)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_: pytest.fail("loaded"))

    assert not cache.verified(path)
    assert answer(source) is None
    assert f"belongs to user {another - 1}, not to {another}" in caplog.text
    assert path.exists()


@needs_compiler
@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("given", ["densevit", "cache", "library"])
def test_library__planted_for_root_is_not_loaded(given: str, source: Path, home: Path) -> None:
    path = answer(source)
    assert path is not None
    home.parent.chmod(0o755)
    target = {"densevit": path.parent, "cache": home, "library": path}[given]
    os.chown(target, 12345, 12345)

    found = answer(source)

    assert found is not None
    if given == "library":
        assert path.stat().st_uid == 0
    else:
        assert home not in found.parents


@needs_compiler
def test_folder__that_is_a_link_counts_by_where_it_leads(
    source: Path, home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    real = tmp_path / "real"
    (real / "densevit").mkdir(parents=True)
    home.symlink_to(real)
    path = answer(source)
    assert path is not None
    assert path.parent == real / "densevit"

    (real / "densevit").chmod(0o777)
    other = answer(source)
    assert other is None or real not in other.parents


@needs_compiler
def test_library__is_loaded_from_a_folder_that_is_only_readable(
    source: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = answer(source)
    assert path is not None
    path.parent.chmod(0o500)
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("built again"))

    assert answer(source) == path


HOMELESS = """
import os, pathlib, sys
os.environ.pop("HOME", None)
pathlib.Path.home = lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
from densevit.kernels import build
found = build.library(pathlib.Path(sys.argv[1]), "nothing is lost", {"answer": (build.INT, [])})
print(found.answer() if found else found)
"""


@needs_compiler
@pytest.mark.parametrize("given", [None, "", "relative"])
def test_library__needs_no_home(given: str | None, source: Path, tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    if given is not None:
        env["XDG_CACHE_HOME"] = given

    command = [sys.executable, "-c", HOMELESS, str(source)]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "42", done.stderr
    assert not (tmp_path / "relative").exists()


@pytest.mark.parametrize("place", ["/dev/null/x", "/proc/nothing", "/" + "x" * 5000])
def test_library__needs_no_folder_that_can_be_made(place: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    assert [Path(place) in folder.parents for folder in cache.folders()] == [False]

    def no_room() -> None:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(cache, "_temporary_folder", no_room)
    assert answer(source) is None


def test_library__is_torch_s_work_on_windows(source: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert answer(source) is None
    assert not home.exists()


def test_library__of_no_source_is_none(source: Path, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert answer(source.with_name("missing.c")) is None
    assert "missing.c could not be built" in caplog.text


def test_sanitizers__that_are_not_installed_are_named(tmp_path: Path) -> None:
    chosen = compiler(tmp_path, "echo libasan.so")  # as gcc answers for a file that it does not have

    with pytest.raises(SystemExit, match=f"^{chosen} has no libasan.so; install it"):
        sanitize.runtime(chosen)
