"""The documentation: its Python runs, its commands and configs are valid, its tables are the code's, its links lead."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
import yaml

from densevit.checkpoints import hub
from densevit.checkpoints.hub import DEFAULT
from densevit.checkpoints.merge import MergeConfig
from densevit.checkpoints.native import Bundle, Card, read_header, save_bundle
from densevit.cli.main import app
from densevit.config import Config, merge
from densevit.data import FolderConfig, parse_data
from densevit.data.description import describe
from densevit.decoders import DECODERS
from densevit.inference.speed import SpeedConfig
from densevit.model import DenseModel, ModelConfig
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import complete, resolve_config
from densevit.tuning.tuner import GridConfig
from densevit_lab import reference
from tests.e2e.scenes import write_dataset
from tests.factories import VARIANTS, tiny_encoder

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", *(str(page.relative_to(ROOT)) for page in DOCS))
COMMANDS: Any = typer.main.get_command(app)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

WITH_THE_MODEL_THAT_SHIPS = {"docs/reference/checkpoint-format.md"}
"""Pages whose code needs its weights. A photo takes them ten seconds, and tests/e2e/test_default.py runs two."""

FRAGMENT_BASE: dict[str, Any] = {"iterations": 10, "sources": [{"train": {"root": "data", "split": "train"}}]}
"""What a config in the docs is laid over, so that it may show a few keys only."""


class Block(NamedTuple):
    language: str
    text: str
    line: int


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[Block]:
    text = read(page)
    found = [Block(m[1], m[2], text[: m.start(2)].count("\n")) for m in FENCE.finditer(text)]
    return [block for block in found if block.language in languages]


def shell_lines(block: Block) -> list[list[str]]:
    """The words of every command of a shell block."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def with_blocks(*languages: str) -> list[str]:
    return [page for page in PAGES if blocks(page, *languages)]


@pytest.fixture(scope="module")
def small_default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the heads, classes and inference settings of the default model, and a tiny network."""
    header = read_header(DEFAULT)
    heads = {
        head: {"decoder": {"kind": "segmenter_linear"}, "taps": [3], "out_channels": task.out_channels}
        if task.kind == "segmentation"
        else {"decoder": VARIANTS["dpt/ignore, depth"].decoder, "out_channels": task.out_channels}
        for head, task in header.tasks.items()
    }
    torch.manual_seed(0)
    model = DenseModel(ModelConfig.parse({"encoder": tiny_encoder().plain(), "heads": heads})).eval()
    path = tmp_path_factory.mktemp("weights") / "default.safetensors"
    save_bundle(Bundle(model, dict(header.tasks), header.fit, Card(name="small default")), path)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_default: Path) -> Path:
    """An empty working directory with the demo photos where a clone has them; "default" is a tiny model there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "DEFAULT", small_default)
    shutil.copytree(ROOT / "examples" / "photos", tmp_path / "examples" / "photos")
    return tmp_path


# Code


@pytest.mark.parametrize("page", with_blocks("python"))
def test_python__runs(page: str, place: Path, request: pytest.FixtureRequest) -> None:
    if page not in WITH_THE_MODEL_THAT_SHIPS:
        request.getfixturevalue("small_default")
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page, "python"):
        exec(compile("\n" * block.line + block.text, ROOT / page, "exec"), namespace)


@pytest.mark.parametrize("page", with_blocks("json"))
def test_json__parses(page: str) -> None:
    for block in blocks(page, "json"):
        json.loads(block.text)


@pytest.mark.parametrize("page", with_blocks("sh", ""))
def test_command__is_one_of_ours(page: str) -> None:
    for block in blocks(page, "sh"):
        for program, *arguments in shell_lines(block):
            if program == "densevit":  # a mistake raises click's UsageError
                COMMANDS.commands[arguments[0]].make_context(arguments[0], arguments[1:])
            if program == "make":
                assert re.search(rf"^{arguments[0]}:", read("Makefile"), re.MULTILINE), f"make {arguments[0]}"


@pytest.mark.parametrize("page", with_blocks("yaml", "sh"))
def test_config__is_valid(page: str, place: Path) -> None:
    for block in blocks(page, "yaml", "sh"):
        if block.language == "yaml":
            data = yaml.safe_load(block.text)
            if name := re.match(r"# (\S+\.yaml)\n", block.text):
                Path(name[1]).write_text(block.text, encoding="utf-8")
            check_merge_or_run(data)
            continue
        for program, *arguments in shell_lines(block):
            if [program, *arguments[:1]] == ["densevit", "train"]:
                check_train_command(arguments[1:])


def check_merge_or_run(data: dict[str, Any]) -> None:
    if data.keys() <= SpeedConfig.model_fields.keys():
        kind: type[Config] = GridConfig if any(isinstance(value, list) for value in data.values()) else SpeedConfig
        kind.parse(data)
        return
    if "heads" in data:
        MergeConfig.parse(data)
        return
    if data.keys() <= FolderConfig.model_fields.keys() - {"tasks"}:  # which runs have too
        parse_data({"root": "mine", **data})
        return
    base = FRAGMENT_BASE if "model" in data else {**FRAGMENT_BASE, "model": {"preset": "segmenter-s-mask"}}
    whole = merge(base, data)
    for source in whole["sources"]:
        provide_dataset(source["train"].get("root"))
    TrainConfig.parse(complete(whole))


def check_train_command(arguments: list[str]) -> None:
    """Refuse what ``densevit train`` would; configs that only a reader's machine has are passed over."""
    given = COMMANDS.commands["train"].make_context("train", arguments).params
    here = given["config"].exists() if given["config"] else given["preset"] is not None
    if not here:
        return
    provide_dataset(given["data"])
    data = None if given["data"] is None else describe(given["data"]).config
    resolve_config(given["config"], list(given["overrides"] or ()), preset_name=given["preset"], data=data)


def provide_dataset(root: str | Path | None) -> None:
    if root is not None and not Path(root).exists():
        write_dataset(Path(root), train=1, val=1)


def test_first_steps__use_the_encoder_of_the_default_model() -> None:
    (block,) = blocks("docs/tutorial/first-steps.md", "yaml")
    run = TrainConfig.parse(complete(yaml.safe_load(block.text)))

    assert (run.model.encoder, run.model.normalisation, run.init) == (
        read_header(DEFAULT).model.encoder,
        read_header(DEFAULT).model.normalisation,
        "default",
    )


def test_default_recipe__trains_the_model_that_ships() -> None:
    run = resolve_config(ROOT / "recipes" / "default" / "default.yaml", [])
    shipped = read_header(DEFAULT)

    assert {name: head.decoder for name, head in run.model.heads.items()} == {
        name: head.decoder for name, head in shipped.model.heads.items()
    }
    assert (run.model.encoder.taps, run.fit) == (shipped.model.encoder.taps, shipped.fit)
    assert [task.channel_names for task in run.tasks.values()] == [
        task.channel_names for task in shipped.tasks.values()
    ]


# Tables


def rows(text: str) -> list[list[str]]:
    """The cells of every row of the tables in a text, without heads and rules."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    rules = {index for index, row in enumerate(cells) if set("".join(row)) <= set("-| ")}
    return [row for index, row in enumerate(cells) if not {index, index + 1} & rules]


@pytest.mark.parametrize("page", list(reference.pages()))
def test_reference__is_that_of_the_code(page: str) -> None:
    assert reference.pages()[page].splitlines() == read(page).splitlines(), "run make reference"


def test_reference__gives_every_key_a_meaning() -> None:
    assert [row[0] for row in rows(reference.config_page()) if not row[-1]] == []


def test_decoder_table__lists_every_kind() -> None:
    section = read("README.md").split("## What is inside")[1].split("Each family")[0]

    assert {row[1].strip("`") for row in rows(section)} == set(DECODERS)


def shipped_figures() -> list[dict[str, Any]]:
    """The metrics of the default model by head: at quality fast, and at best."""
    metrics = read_header(DEFAULT).card.metrics
    assert {figures["quality"] for figures in metrics.values()} == {"fast"}
    return [metrics, {head: figures["best"] for head, figures in metrics.items()}]


def test_figures__on_the_first_page_are_those_of_the_default_model() -> None:
    stated = re.findall(r"^\| `(\w+)` \|.*?(\w+) ([\d.]+) \|$", read("README.md"), re.MULTILINE)
    known = [[(head, name, f"{of[head][name]:.3f}") for head, name, _ in stated] for of in shipped_figures()]

    assert len(stated) == 3
    assert stated in known


def test_figures__of_the_model_card_are_those_of_the_default_model() -> None:
    row = r"^\| `(\w+)` \| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|$"
    stated = re.findall(row, read("docs/models/default.md"), re.MULTILINE)

    assert len(stated) >= 9
    for place, metrics in enumerate(shipped_figures(), start=2):
        figures = [(head, name, f"{metrics[head][name]:.3f}") for head, name, *_ in stated]
        assert [(line[0], line[1], line[place]) for line in stated] == figures


def test_class_figures__are_those_of_the_default_model() -> None:
    table = read("docs/models/default.md").partition("IoU of each class")[2].partition("To reproduce")[0]
    stated = [tuple(row[i : i + 3]) for row in rows(table) for i in (0, 3)]
    fast, best = shipped_figures()

    assert {line for line in stated if line[0]} == {
        (name, f"{figures['IoU']:.3f}", f"{best[head]['per_class'][name]['IoU']:.3f}")
        for head in ("streets", "rooms")
        for name, figures in fast[head]["per_class"].items()
    }


# Links


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(page: str) -> list[tuple[str, Path, str]]:
    """As written, the file, and the anchor of every link that stays inside the project."""
    targets = [t for t in LINK.findall(FENCE.sub("", read(page))) if not re.match(r"\w+:", t)]
    split = [(target, *target.partition("#")[::2]) for target in targets]
    return [(t, (ROOT / page).parent / path if path else ROOT / page, anchor) for t, path, anchor in split]


@pytest.mark.parametrize("page", PAGES)
def test_links__lead_to_files_and_headings(page: str) -> None:
    dead = [target for target, path, _ in links(page) if not path.exists()]
    lost = [
        target
        for target, path, anchor in links(page)
        if anchor and path.suffix == ".md" and anchor not in map(slug, HEADING.findall(FENCE.sub("", path.read_text())))
    ]

    assert (dead, lost) == ([], [])


def test_pages__can_all_be_reached_from_the_readme() -> None:
    reached, queue = set(), [ROOT / "README.md"]
    while queue:
        page = queue.pop().resolve()
        if page not in reached and page.suffix == ".md" and page.exists():
            reached.add(page)
            queue += [path for _, path, _ in links(str(page.relative_to(ROOT)))]

    assert {str(page.relative_to(ROOT)) for page in reached} >= set(PAGES)
