"""The import rules of both packages, read from the source with ast, so also for imports inside functions."""

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
    (
        "errors",
        "limits",
        "types",
        "plain_data",
        "config",
        "device",
        "memory",
        "plugins",
        "pages",
        "io",
        "pixels",
        "inference_config",
    ),
    ("kernels", "upsampling", "layers", "blocks"),
    ("encoder", "decoders"),
    ("model",),
    ("presets",),
    ("tasks", "data", "checkpoints"),
    ("engines",),
    ("inference",),
    ("evaluation", "export"),
    ("training", "doctor", "tuning", "densevit"),
    ("cli", "serve", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
# The same for src/densevit_lab, which may import all of densevit; a room is a file or folder of benchmark/ or parity/.
LAB = "densevit_lab"
LAB_LAYERS = (
    ("benchmark.flops", "benchmark.machine", "benchmark.photo", "parity.report"),
    ("benchmark.decode", "benchmark.process", "benchmark.record", "benchmark.peers", "parity.fixture", "parity.taps"),
    ("benchmark.training", "benchmark.gpu", "benchmark.report_int8", "parity.numbers"),
    ("benchmark.report", "benchmark.plot"),
    ("benchmark.workloads", "parity.check"),
    ("benchmark.metrics",),
    ("benchmark.worker", "benchmark.cases"),
    ("benchmark.measure",),
    ("benchmark.camvid_heads",),
    ("benchmark.int8",),
    ("benchmark.suites",),
)
# Runs exported files on machines without torch: densevit may import it, and it imports neither of the others.
RUNTIME = "densevit_runtime"
RUNTIME_LIBRARIES = {"numpy", "PIL", "onnxruntime", "openvino"}
LAB_LEVEL = {room: level for level, rooms in enumerate(LAB_LAYERS) for room in rooms}
# The commands that run the lab; they import it inside functions, so that the command line starts without it.
LAB_COMMANDS = {"densevit.cli.benchmark", "densevit.cli.parity"}

# The only rooms that may import a library, so that replacing it means opening one place.
HOMES: dict[str, str | tuple[str, ...]] = {
    "PIL": ("io", RUNTIME),
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
    "onnx": ("engines", "export", LAB),
    "onnxruntime": ("engines", "export", RUNTIME),
    "openvino": ("engines", "export", RUNTIME),
    "fastapi": "serve",
    "gradio": "serve",
    "matplotlib": LAB,
}
# Writes the reference page of the command line from its typer application.
PAGES_OF_THE_COMMAND_LINE = ("densevit_lab.reference", "typer")
# References of the tests; at run time the encoder is our own. The benchmark measures other programs, one file each.
REFERENCES = {"timm", "transformers", "segmentation_models_pytorch", "mmseg", "mmengine", "mmcv"}
PACKAGES = ("densevit", LAB, RUNTIME)
PEERS = "densevit_lab.benchmark.peers."
IMPORT_NAMES = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "mmsegmentation": "mmseg",
    "mmcv-lite": "mmcv",
}
# Come with torch, where there is one for the machine, and with pydantic.
CARRIED = {"triton", "pydantic_core"}


def modules(src: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of both packages."""
    files = sorted(file for package in PACKAGES for file in (src / package).rglob("*.py"))
    return {".".join(f.relative_to(src).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def room(module: str) -> str:
    """densevit.decoders.setr -> decoders; densevit -> densevit; every module of another package -> its name."""
    package, _, rest = module.partition(".")
    return package if package in (LAB, RUNTIME) else rest.split(".")[0] or package


def lab_room(module: str) -> str:
    """densevit_lab.benchmark.peers.smp -> benchmark.peers; a package itself -> ""."""
    parts = module.split(".")
    return ".".join(parts[1:3]) if parts[0] == LAB and len(parts) > 2 else ""


def imports(src: Path, *, outside_functions: bool = False) -> Iterator[tuple[str, str]]:
    """(importer, imported) for every import of both packages: our own modules in full, others by their top name."""
    known = modules(src)
    for importer, file in known.items():
        package = importer if file.name == "__init__.py" else importer.rpartition(".")[0]
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in _import_time_nodes(tree) if outside_functions else ast.walk(tree):
            for imported in _targets(node, package, known):
                yield importer, imported if imported.split(".")[0] in PACKAGES else imported.split(".")[0]


def _import_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not those in functions, nor those for type checkers."""
    for child in ast.iter_child_nodes(node):
        type_checking = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not type_checking and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _import_time_nodes(child)


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
    return [(a, b) for a, b in imports(src) if a.split(".")[0] == b.split(".")[0] == "densevit"]


def lab_imports(src: Path) -> list[tuple[str, str]]:
    """Imports between rooms of the lab."""
    return [(a, b) for a, b in imports(src) if lab_room(a) and lab_room(b)]


def foreign_imports(src: Path) -> list[tuple[str, str]]:
    known = {*sys.stdlib_module_names, *PACKAGES}
    return [(a, b) for a, b in imports(src) if "." not in b and b not in known]


def unplaced_rooms(src: Path) -> list[str]:
    rooms = {room(module) for module in modules(src)} - {*LEVEL, LAB, RUNTIME}
    lab_rooms = {lab_room(module) for module in modules(src)} - {*LAB_LEVEL, ""}
    return [f"{name} is in no layer; add it to LAYERS and say in an ADR why it is there" for name in sorted(rooms)] + [
        f"{LAB}.{name} is in no layer; add it to LAB_LAYERS" for name in sorted(lab_rooms)
    ]


def upward_imports(src: Path) -> list[str]:
    pairs = [(a, b) for a, b in own_imports(src) if room(a) in LEVEL and room(b) in LEVEL]
    upward = [(a, b) for a, b in pairs if LEVEL[room(a)] < LEVEL[room(b)]]
    pairs = [(a, b) for a, b in lab_imports(src) if lab_room(a) in LAB_LEVEL and lab_room(b) in LAB_LEVEL]
    upward += [(a, b) for a, b in pairs if LAB_LEVEL[lab_room(a)] < LAB_LEVEL[lab_room(b)]]
    return [f"{a} imports {b}, which is in a layer above it" for a, b in upward]


def imports_of_the_lab(src: Path) -> list[str]:
    at_import = {*imports(src, outside_functions=True)}
    pairs = [(a, b) for a, b in imports(src) if room(a) != LAB and room(b) == LAB]
    return [
        f"{a} imports {b}; only a function of cli/benchmark.py or cli/parity.py may"
        for a, b in pairs
        if a not in LAB_COMMANDS or (a, b) in at_import
    ]


def imports_of_the_runtime(src: Path) -> list[str]:
    """What the runtime imports beyond itself, the standard library and its few libraries."""
    allowed = {*sys.stdlib_module_names, RUNTIME, *RUNTIME_LIBRARIES}
    pairs = [(a, b) for a, b in imports(src) if room(a) == RUNTIME and b.split(".")[0] not in allowed]
    return [f"{a} imports {b}, which machines without torch lack" for a, b in pairs]


def engines_at_import(src: Path) -> list[str]:
    """Engines that the runtime imports with a module: there may be only one of them, and each is slow to import."""
    pairs = [(a, b) for a, b in imports(src, outside_functions=True) if room(a) == RUNTIME]
    return [f"{a} imports {b} outside a function" for a, b in pairs if b in {"onnxruntime", "openvino"}]


def cycles(src: Path) -> list[str]:
    graph: dict[str, set[str]] = {}
    pairs = [(room(a), room(b)) for a, b in own_imports(src)]
    pairs += [(lab_room(a), lab_room(b)) for a, b in lab_imports(src)]
    for a, b in pairs:
        if a != b:
            graph.setdefault(a, set()).add(b)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" needs ".join(reversed(error.args[1]))]
    return []


def encoder_decoder_imports(src: Path) -> list[str]:
    return [f"{a} imports {b}" for a, b in own_imports(src) if {room(a), room(b)} == {"encoder", "decoders"}]


def family_imports(src: Path) -> list[str]:
    """Imports from one decoder to another or to the table of them all; base.py is what they have in common.

    A decoder may have files for parts of its own: those of dpt.py begin with dpt_.
    """
    inside = [(a, b) for a, b in own_imports(src) if room(a) == room(b) == "decoders" and a != "densevit.decoders"]
    return [
        f"{a} imports {b}" for a, b in inside if b not in {a, "densevit.decoders.base"} and not b.startswith(a + "_")
    ]


def strayed_libraries(src: Path) -> list[str]:
    pairs = [(a, b) for a, b in foreign_imports(src) if (a, b) != PAGES_OF_THE_COMMAND_LINE]
    strayed = [(a, b) for a, b in pairs if room(a) not in homes(b, room(a))]
    return [f"{a} imports {b}, whose home is {HOMES[b]}" for a, b in strayed]


def homes(library: str, default: str) -> tuple[str, ...]:
    found = HOMES.get(library, default)
    return (found,) if isinstance(found, str) else found


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
    imports_of_the_lab,
    imports_of_the_runtime,
    engines_at_import,
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
        (unplaced_rooms, {"densevit/shed.py": ""}),
        (unplaced_rooms, {"densevit_lab/benchmark/shed.py": ""}),
        (upward_imports, {"densevit/errors.py": "def f():\n    from densevit import model", "densevit/model.py": ""}),
        (
            upward_imports,
            {"densevit/decoders/setr.py": "from ..model import DenseModel", "densevit/model.py": ""},
        ),
        (upward_imports, {"densevit/io.py": "from densevit import load", "densevit/__init__.py": ""}),
        (
            upward_imports,
            {
                "densevit_lab/benchmark/record.py": "from densevit_lab.benchmark.suites import run_suite",
                "densevit_lab/benchmark/suites.py": "",
            },
        ),
        (imports_of_the_lab, {"densevit/model.py": "def f():\n    import densevit_lab.benchmark.flops"}),
        (imports_of_the_lab, {"densevit/cli/parity.py": "from densevit_lab.parity.check import check"}),
        (imports_of_the_runtime, {"densevit_runtime/io/read.py": "import torch"}),
        (imports_of_the_runtime, {"densevit_runtime/a.py": "def f():\n    import densevit.io"}),
        (engines_at_import, {"densevit_runtime/a.py": "import onnxruntime"}),
        (
            cycles,
            {"densevit/tasks/a.py": "import densevit.data.b", "densevit/data/b.py": "import densevit.tasks.a"},
        ),
        (
            encoder_decoder_imports,
            {"densevit/decoders/dpt.py": "from densevit.encoder.vit import Vit", "densevit/encoder/vit.py": ""},
        ),
        (
            family_imports,
            {"densevit/decoders/dpt.py": "from densevit.decoders import setr", "densevit/decoders/setr.py": ""},
        ),
        (
            family_imports,
            {"densevit/decoders/dpt.py": "from . import DECODERS", "densevit/decoders/__init__.py": ""},
        ),
        (
            family_imports,
            {"densevit/decoders/base.py": "import densevit.decoders.setr", "densevit/decoders/setr.py": ""},
        ),
        (strayed_libraries, {"densevit/data/folder.py": "import PIL.Image"}),
        (strayed_libraries, {"densevit/model.py": "importlib.import_module('safetensors.torch')"}),
        (strayed_libraries, {"densevit/evaluation/page.py": "import matplotlib"}),
        (strayed_libraries, {"densevit_lab/benchmark/photo.py": "import PIL.Image"}),
        (reference_libraries, {"densevit/encoder/vit.py": "from timm.layers import Mlp"}),
        (reference_libraries, {"densevit_lab/benchmark/measure.py": "def f():\n    import transformers"}),
        (undeclared_libraries, {"densevit/data/folder.py": "import cv2"}),
    ],
)
def test_rule__reports_a_breach(rule: Callable[[Path], list[str]], files: dict[str, str], tmp_path: Path) -> None:
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    assert len(rule(tmp_path)) == 1


def test_command_of_the_lab__imports_it_in_a_function(tmp_path: Path) -> None:
    file = tmp_path / "densevit" / "cli" / "parity.py"
    file.parent.mkdir(parents=True)
    file.write_text("def f():\n    from densevit_lab.parity.check import check\n")

    assert imports_of_the_lab(tmp_path) == []


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
