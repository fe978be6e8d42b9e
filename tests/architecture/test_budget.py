"""How large files, functions and rooms may become, and which modules may need each other; read from the source."""

import ast
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"
PACKAGES = ("densevit", "densevit_lab", "densevit_runtime")

# Raised, like the budgets of the rooms below, only with an ADR that argues for it.
LIBRARY_LINES = 51_200  # 27,000 before ADR 17, 31,700 before ADR 18, 41,100 before ADR 19, 45,200 before ADR 25
FILE_LINES = 300
FUNCTION_LINES = 60

# Files that may be longer, by path below src/, each with its own limit.
LONG_FILES = {
    "densevit/presets.py": 460,  # one table: the named models
    "densevit/tasks/losses.py": 350,  # the losses and their options are read side by side
    "densevit/tasks/metrics.py": 380,  # the metrics and their definitions are read side by side
}

# Lines of .py and .c for the rooms of a row together. A room that outgrows its row is made smaller first; whoever
# raises a number instead argues for it in an ADR (docs/adr), and so does whoever adds a room.
ROOMS: dict[tuple[str, ...], int] = {
    (
        "densevit",
        "types",
        "errors",
        "limits",
        "plain_data",
        "config",
        "plugins",
        "device",
        "memory",
        "pixels",
        "pages",
    ): 1_600,
    ("kernels", "upsampling"): 4_350,  # products, attention and convolutions of 8-bit integers; fused float32 branches
    ("encoder", "decoders", "layers", "blocks", "model", "inference_config", "presets"): 3_500,  # ADR 25 and 26
    ("io", "data", "tasks"): 12_200,  # ADR 17 and 18; reading and writing moved to the runtime: ADR 22
    ("checkpoints",): 9_500,  # ADR 17, 19: keys, bounds of pickles, computed values; ADR 26: published weights
    ("inference",): 4_250,  # ADR 16 to 19; ADR 22: predictions of exported files
    ("engines", "export"): 4_700,  # ADR 20 and 21: graphs operator by operator, files in int8; folders for browsers
    ("evaluation", "training"): 6_800,  # ADR 18: laptop mode, what a run was trained on; ADR 25 and 26
    ("doctor", "tuning", "studies", "explain"): 4_600,
    ("serve",): 1_200,
    ("cli", "__main__"): 2_150,  # ADR 17: the batch of photos; ADR 18: data options; ADR 19 to 22
    ("densevit_runtime",): 4_160,  # ADR 22: readers, writers, colours, and what runs exported files
    ("densevit_lab",): 4_240,  # 3,500 for benchmark (with the suite int8) and parity, the rest generates the reference
}


def sources(src: Path, *suffixes: str) -> list[Path]:
    return sorted(f for package in PACKAGES for f in (src / package).rglob("*") if f.suffix in suffixes)


def num_lines(file: Path) -> int:
    """As ``wc -l`` counts them."""
    return file.read_bytes().count(b"\n")


def room(file: Path, src: Path) -> str:
    """encoder for densevit/encoder/vit.py, types for densevit/types.py; the other packages are one room each."""
    package, *parts = file.relative_to(src).with_suffix("").parts
    return package if package != "densevit" or parts == ["__init__"] else parts[0]


def long_files(src: Path) -> list[str]:
    limits = {file: LONG_FILES.get(file.relative_to(src).as_posix(), FILE_LINES) for file in sources(src, ".py", ".c")}
    return [
        f"{file.relative_to(src)} has {num_lines(file)} lines, {limit} are allowed"
        for file, limit in limits.items()
        if num_lines(file) > limit
    ]


def long_functions(src: Path) -> list[str]:
    breaches = []
    for file in sources(src, ".py"):
        # A parameter of a command is an option with its help, so that a signature there is a table.
        skip_signature = room(file, src) == "cli"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = function_lines(node, skip_signature=skip_signature)
                if lines > FUNCTION_LINES:
                    place = f"{file.relative_to(src)}:{node.lineno}"
                    breaches.append(f"{place}: {node.name} has {lines} lines, {FUNCTION_LINES} are allowed")
    return breaches


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef, *, skip_signature: bool = False) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    assert node.end_lineno is not None
    documented = ast.get_docstring(node) is not None
    docstring = (node.body[0].end_lineno or 0) - node.body[0].lineno + 1 if documented else 0
    first = node.body[0].lineno if skip_signature else node.lineno
    return node.end_lineno - first + 1 - docstring


def rooms_without_a_budget(src: Path) -> list[str]:
    budgeted = {name for row in ROOMS for name in row}
    rooms = {room(file, src) for file in sources(src, ".py", ".c")}
    return [f"{name} is in no row of ROOMS" for name in sorted(rooms - budgeted)]


def rooms_above_their_budget(src: Path) -> list[str]:
    lines: dict[str, int] = {}
    for file in sources(src, ".py", ".c"):
        lines[room(file, src)] = lines.get(room(file, src), 0) + num_lines(file)
    totals = {row: sum(lines.get(name, 0) for name in row) for row in ROOMS}
    return [
        f"{' + '.join(row)}: {totals[row]} lines, {budget} are allowed"
        for row, budget in ROOMS.items()
        if totals[row] > budget
    ]


def library_above_its_budget(src: Path) -> list[str]:
    total = sum(num_lines(file) for file in (src / "densevit").rglob("*.py"))
    return [f"densevit has {total} lines of Python, {LIBRARY_LINES} are allowed"] if total > LIBRARY_LINES else []


def import_circles(src: Path) -> list[str]:
    """Circles among the imports that run when a module is imported: none in functions, none for type checkers."""
    files = {module_name(file, src): file for file in sources(src, ".py")}
    graph = {}
    for module, file in files.items():
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        tree = ast.parse(file.read_text(encoding="utf-8"))
        graph[module] = {name for node in imports_at_load(tree) for name in imported(node, package, files)} - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" needs ".join(reversed(error.args[1]))]
    return []


def module_name(file: Path, src: Path) -> str:
    return ".".join(file.relative_to(src).with_suffix("").parts).removesuffix(".__init__")


def imports_at_load(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for branch in child.orelse:
                yield from imports_at_load(branch)
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports_at_load(child)


def imported(node: ast.Import | ast.ImportFrom, package: str, files: dict[str, Path]) -> Iterator[str]:
    """The modules of ours that an import needs, packages' ``__init__`` only where something is taken from it."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in files)
        return
    parents = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
    base = ".".join([*parents, *([node.module] if node.module else [])])
    for alias in node.names:
        if (base, alias.name) == ("densevit", "__version__"):  # a constant, set before anything is imported
            continue
        name = f"{base}.{alias.name}" if f"{base}.{alias.name}" in files else base
        if name in files:
            yield name


def unused_limits(src: Path) -> list[str]:
    return [
        f"{name} does not need its row in LONG_FILES"
        for name in LONG_FILES
        if not (src / name).exists() or num_lines(src / name) <= FILE_LINES
    ]


RULES: tuple[Callable[[Path], list[str]], ...] = (
    long_files,
    long_functions,
    rooms_without_a_budget,
    rooms_above_their_budget,
    library_above_its_budget,
    import_circles,
    unused_limits,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source__has_no(rule: Callable[[Path], list[str]]) -> None:
    breaches = rule(SRC)

    assert not breaches, "\n".join(breaches)


def long_function(lines: int, docstring: int = 0) -> str:
    """A function of so many lines, and of so many more for its docstring."""
    text = ['    """Documented.', *["    "] * (docstring - 2), '    """'] if docstring else []
    return "\n".join(["def f(", "    x,", "):", *text, *["    x += 1"] * (lines - 3), ""])


def method_with_import(name: str) -> str:
    return f"class A:\n    def f(self):\n        import {name}\n"


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        (long_files, {"densevit/tasks/dice.py": "\n" * 301}),
        (long_files, {"densevit/kernels/dice.c": "\n" * 301}),
        (long_files, {"densevit_lab/dice.py": "\n" * 301}),
        (long_files, {"densevit/presets.py": "\n" * 461}),
        (unused_limits, dict.fromkeys(LONG_FILES, "\n" * 301) | {"densevit/presets.py": ""}),
        (long_functions, {"densevit/tasks/dice.py": long_function(61)}),
        (long_functions, {"densevit_lab/dice.py": "class A:\n    async " + long_function(61).replace("\n", "\n    ")}),
        (long_functions, {"densevit/cli/dice.py": long_function(64)}),
        (rooms_without_a_budget, {"densevit/shed/dice.c": ""}),
        (rooms_without_a_budget, {"densevit/shed.py": ""}),
        (rooms_above_their_budget, {f"densevit/engines/{i}.py": "\n" * 300 for i in range(16)}),
        (rooms_above_their_budget, {f"densevit/{room}/dice.c": "\n" * 2200 for room in ("kernels", "upsampling")}),
        (library_above_its_budget, {f"densevit/data/{i}.py": "\n" * 300 for i in range(LIBRARY_LINES // 300 + 1)}),
        (import_circles, {"densevit/a.py": "import densevit.b", "densevit/b.py": "from densevit import a"}),
        (import_circles, {"densevit/io/a.py": "class A:\n    from . import b", "densevit/io/b.py": "from .a import A"}),
        (
            import_circles,
            {"densevit/io/__init__.py": "from .a import f", "densevit/io/a.py": "from densevit.io import g"},
        ),
        (import_circles, {"densevit/a.py": "from densevit_lab.b import c", "densevit_lab/b.py": "import densevit.a"}),
    ],
)
def test_rule__reports_a_breach(rule: Callable[[Path], list[str]], files: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, files)

    assert len(rule(tmp_path)) == 1


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        (long_files, {"densevit/tasks/dice.py": "\n" * 300, "densevit/weights/dice.md": "\n" * 900}),
        (long_functions, {"densevit/tasks/dice.py": long_function(60, docstring=20)}),
        (long_functions, {"densevit/cli/dice.py": long_function(63)}),
        (rooms_without_a_budget, {"densevit/__init__.py": "", "densevit/types.py": "", "densevit/weights/card.md": ""}),
        (import_circles, {"densevit/a.py": "import densevit.b", "densevit/b.py": method_with_import("densevit.a")}),
        (
            import_circles,
            {"densevit/a.py": "import densevit.b", "densevit/b.py": "if TYPE_CHECKING:\n    import densevit.a"},
        ),
        (
            import_circles,
            {
                "densevit/__init__.py": "from .a import f",
                "densevit/a.py": "from densevit import b, __version__",
                "densevit/b.py": "",
            },
        ),
    ],
)
def test_rule__lets_pass(rule: Callable[[Path], list[str]], files: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, files)

    assert rule(tmp_path) == []


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
