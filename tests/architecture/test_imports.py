"""The import rules of the project, read from the source with ast, so also for imports inside functions."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"

# Rooms of src/densevit, lowest first. A room may import its own layer and those below; "densevit" is __init__.py.
LAYERS = (
    ("errors", "types", "config", "device", "memory", "pages", "io", "pixels", "inference_config"),
    ("kernels", "upsampling", "layers", "blocks"),
    ("encoder", "decoders"),
    ("model",),
    ("presets",),
    ("tasks", "data", "checkpoints"),
    ("engines",),
    ("inference",),
    ("evaluation",),
    ("training", "doctor", "tuning", "densevit"),
    ("cli", "serve"),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# The only rooms that may import a library, so that replacing it means opening one place.
HOMES = {
    "PIL": "io",
    "rasterio": "io",
    "OpenEXR": "io",
    "h5py": "io",
    "scipy": "io",
    "safetensors": "checkpoints",
    "huggingface_hub": "checkpoints",
    "typer": "cli",
    "rich": "cli",
    "triton": "upsampling",
    "tensorboard": "training",
    "peft": "training",
    "wandb": "training",
    "mlflow": "training",
    "trackio": "training",
    "onnx": "engines",
    "onnxruntime": "engines",
    "openvino": "engines",
    "fastapi": "serve",
    "gradio": "serve",
}
# References of the tests; at run time the encoder is our own. The benchmark measures other programs, one file each.
REFERENCES = {"timm", "transformers", "segmentation_models_pytorch", "mmseg", "mmengine", "mmcv"}
PEERS = "densevit_lab.benchmark.peers."
IMPORT_NAMES = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "mmsegmentation": "mmseg",
    "mmcv-lite": "mmcv",
}
# Comes with torch, where there is one for the machine.
CARRIED = {"triton"}


def modules(src: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of the package."""
    files = sorted((src / "densevit").rglob("*.py"))
    return {".".join(f.relative_to(src).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def room(module: str) -> str:
    """densevit.decoders.setr -> decoders; the package itself -> densevit."""
    return module.split(".")[1] if "." in module else module


def imports(src: Path) -> Iterator[tuple[str, str]]:
    """(importer, imported) for every import of the package: our own modules in full, others by their top name."""
    known = modules(src)
    for importer, file in known.items():
        package = importer if file.name == "__init__.py" else importer.rpartition(".")[0]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for imported in _targets(node, package, known):
                yield importer, imported if imported.split(".")[0] == "densevit" else imported.split(".")[0]


def _targets(node: ast.AST, package: str, known: dict[str, Path]) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            parents = package.split(".")[: package.count(".") + 2 - level] if level else []
            base = ".".join([*parents, *([module] if module else [])])
            for name in (alias.name for alias in names):
                if (base, name) != ("densevit", "__version__"):  # a constant, which anyone may quote
                    yield f"{base}.{name}" if f"{base}.{name}" in known else base
        case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"), args=[first, *_]):
            if isinstance(first, ast.Constant) and not first.value.startswith("."):
                yield first.value


def own_imports(src: Path) -> list[tuple[str, str]]:
    return [(a, b) for a, b in imports(src) if b.split(".")[0] == "densevit"]


def foreign_imports(src: Path) -> list[tuple[str, str]]:
    known = {*sys.stdlib_module_names, "densevit", "densevit_lab"}
    return [(a, b) for a, b in imports(src) if "." not in b and b not in known]


def unplaced_rooms(src: Path) -> list[str]:
    rooms = {room(module) for module in modules(src)} - {*LEVEL}
    return [f"{name} stands in no layer; add it to LAYERS and say in an ADR why it is there" for name in sorted(rooms)]


def upward_imports(src: Path) -> list[str]:
    pairs = [(a, b) for a, b in own_imports(src) if room(a) in LEVEL and room(b) in LEVEL]
    return [f"{a} imports {b}, which lies above it" for a, b in pairs if LEVEL[room(a)] < LEVEL[room(b)]]


def cycles(src: Path) -> list[str]:
    graph: dict[str, set[str]] = {}
    for a, b in own_imports(src):
        if room(a) != room(b):
            graph.setdefault(room(a), set()).add(room(b))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" needs ".join(reversed(error.args[1]))]
    return []


def encoder_decoder_imports(src: Path) -> list[str]:
    return [f"{a} imports {b}" for a, b in own_imports(src) if {room(a), room(b)} == {"encoder", "decoders"}]


def family_imports(src: Path) -> list[str]:
    """Imports from one decoder file to another or to the table of them all; base.py is what they have in common."""
    inside = [(a, b) for a, b in own_imports(src) if room(a) == room(b) == "decoders" and a != "densevit.decoders"]
    return [f"{a} imports {b}" for a, b in inside if b not in {a, "densevit.decoders.base"}]


def strayed_libraries(src: Path) -> list[str]:
    strayed = [(a, b) for a, b in foreign_imports(src) if HOMES.get(b, room(a)) != room(a)]
    return [f"{a} imports {b}, whose home is {HOMES[b]}" for a, b in strayed]


def reference_libraries(src: Path) -> list[str]:
    return [f"{a} imports {b}" for a, b in foreign_imports(src) if b in REFERENCES and not a.startswith(PEERS)]


def undeclared_libraries(src: Path) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [r for name, rs in project["optional-dependencies"].items() if name not in {"test", "dev"} for r in rs]
    names = [r.split(">")[0].split("<")[0].split("=")[0].strip() for r in project["dependencies"] + extras]
    declared = {IMPORT_NAMES.get(name, name) for name in names} | CARRIED
    return [f"{a} imports {b}, which pyproject.toml lacks" for a, b in foreign_imports(src) if b not in declared]


RULES: tuple[Callable[[Path], list[str]], ...] = (
    unplaced_rooms,
    upward_imports,
    cycles,
    encoder_decoder_imports,
    family_imports,
    strayed_libraries,
    reference_libraries,
    undeclared_libraries,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source__has_no(rule: Callable[[Path], list[str]]) -> None:
    assert rule(SRC) == []


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        (unplaced_rooms, {"shed.py": ""}),
        (upward_imports, {"errors.py": "def f():\n    from densevit import model", "model.py": ""}),
        (upward_imports, {"decoders/setr.py": "from ..model import DenseModel", "model.py": ""}),
        (upward_imports, {"io.py": "from densevit import load", "__init__.py": ""}),
        (cycles, {"tasks/a.py": "import densevit.data.b", "data/b.py": "import densevit.tasks.a"}),
        (encoder_decoder_imports, {"decoders/dpt.py": "from densevit.encoder.vit import Vit", "encoder/vit.py": ""}),
        (family_imports, {"decoders/dpt.py": "from densevit.decoders import setr", "decoders/setr.py": ""}),
        (family_imports, {"decoders/dpt.py": "from . import DECODERS", "decoders/__init__.py": ""}),
        (family_imports, {"decoders/base.py": "import densevit.decoders.setr", "decoders/setr.py": ""}),
        (strayed_libraries, {"data/folder.py": "import PIL.Image"}),
        (strayed_libraries, {"model.py": "importlib.import_module('safetensors.torch')"}),
        (reference_libraries, {"encoder/vit.py": "from timm.layers import Mlp"}),
        (reference_libraries, {"densevit_lab/benchmark/measure.py": "def f():\n    import transformers"}),
        (undeclared_libraries, {"data/folder.py": "import cv2"}),
    ],
)
def test_rule__reports_a_breach(rule: Callable[[Path], list[str]], files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        file = tmp_path / "densevit" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    assert len(rule(tmp_path)) == 1


def test_hard_dependencies__are_at_most_ten() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert len(project["dependencies"]) <= 10


@pytest.mark.parametrize(
    "code",
    [
        "from densevit.cli.main import app",
        "from densevit.cli.main import main; sys.argv = ['densevit', '--help']; main()",
    ],
    ids=["import", "help"],
)
def test_command_line__starts_without_torch(code: str) -> None:
    report = "import atexit, sys; atexit.register(lambda: print('\\ntorch loaded:', 'torch' in sys.modules)); "

    run = subprocess.run([sys.executable, "-c", report + code], capture_output=True, text=True, timeout=60, check=False)

    assert (run.returncode, run.stdout.splitlines()[-1:]) == (0, ["torch loaded: False"]), run.stderr
