"""The distributions: what is in them, and that the wheel works without the repository."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

import densevit
import densevit_runtime

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
MEGABYTE = 1_000_000
PACKAGES = ("densevit", "densevit_lab", "densevit_runtime")

pytestmark = pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling, of the extra test, builds them")


class Distributions(NamedTuple):
    wheel: Path
    sdist: Path


def run(*command: object, cwd: Path, **environment: str) -> str:
    """The output of a command that neither the tests' import path nor another directory helps."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Both distributions, by the build backend itself: a front end would fetch it from the network."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


def build(project: Path, folder: Path) -> Distributions:
    backend = str(Path(find_spec("hatchling").origin).parents[1])
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=project, PYTHONPATH=backend)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Distributions(wheel, sdist)


def package_files(wheel: Path, package: str = "") -> dict[str, bytes]:
    """The files of a wheel in a package, or in all of them."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(package) and ".dist-info/" not in name]
        return {name: archive.read(name) for name in names}


@pytest.fixture(scope="module")
def environment(built: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and, on its import path, the libraries of this one."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", built.wheel)
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *install, cwd=folder)
    # A path in a .pth file is searched, but its own .pth files, such as that of an editable densevit, are not read.
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    libraries = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    Path(site, "libraries.pth").write_text("\n".join(libraries))
    return folder


def test_distributions__are_small_enough_for_the_index(built: Distributions) -> None:
    assert [file.name for file in built if file.stat().st_size >= 100 * MEGABYTE] == []


def test_wheel__has_its_packages_whole_and_nothing_else(built: Distributions) -> None:
    files = [file for package in PACKAGES for file in (SRC / package).rglob("*") if file.is_file()]
    expected = {file.relative_to(SRC).as_posix() for file in files if file.suffix != ".pyc"}
    with zipfile.ZipFile(built.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert names == expected
    assert {"densevit/py.typed", "densevit/weights/default.safetensors", "densevit/pages/web/index.html"} <= names
    assert any(name.startswith("densevit/export/photos/") for name in names)
    assert any(name.endswith(".c") for name in names)


def test_runtime__is_the_same_in_both_wheels(built: Distributions, tmp_path: Path) -> None:
    runtime = build(ROOT / "runtime", tmp_path / "dist")
    with tarfile.open(runtime.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    again = build(next(tmp_path.glob("densevit_runtime-*")), tmp_path / "again")

    expected = package_files(built.wheel, "densevit_runtime/")
    assert "densevit_runtime/io/read.py" in expected
    assert package_files(runtime.wheel) == package_files(again.wheel) == expected


def test_sdist__has_what_the_wheel_is_built_from(built: Distributions) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt"} <= names
    assert "src/densevit/weights/default.safetensors" in names
    assert any(name.startswith("examples/photos/") for name in names)


def test_installed_wheel__is_what_python_imports(environment: Path, tmp_path: Path) -> None:
    code = "import densevit, densevit_lab; print(densevit.__file__); print(densevit_lab.__file__)"
    for file in run(environment / "bin" / "python", "-c", code, cwd=tmp_path).splitlines():
        assert Path(file).is_relative_to(environment)


def test_installed_wheel__predicts_a_photo_from_another_directory(environment: Path, tmp_path: Path) -> None:
    photo = ROOT / "examples" / "photos" / "street.jpg"
    densevit = environment / "bin" / "densevit"

    run(densevit, "predict", photo, "--heads", "depth", "--out", "out", cwd=tmp_path)

    record = json.loads((tmp_path / "out" / "street.json").read_text())
    assert 1 < record["heads"]["depth"]["mean"] < 10
    assert (tmp_path / "out" / record["heads"]["depth"]["values"]).is_file()


def test_versions__are_equal_in_both_projects() -> None:
    projects = [tomllib.loads((ROOT / place).read_text()) for place in ("pyproject.toml", "runtime/pyproject.toml")]

    found = {project["project"]["version"] for project in projects}
    assert found == {densevit.__version__, densevit_runtime.__version__}
