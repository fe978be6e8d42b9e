"""A model is evaluated on its run's data exactly as the run read them, whatever their form, or what differs is said."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from densevit.checkpoints.native import Bundle, TrainedOn, load_bundle, save_bundle
from densevit.data.description import describe, write_description
from densevit.errors import ConfigError, DataError, DensevitError
from densevit.evaluation import run_data
from tests.contract import fakes
from tests.unit.described_runs import CASES, NAMES, blocks, figures, masks, noise, of_run, run_of, selected


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Bundle, Path, Path]]:
    """The model, the data and the run folder of a case, made once."""
    done: dict[str, tuple[Bundle, Path, Path]] = {}

    def make(name: str) -> tuple[Bundle, Path, Path]:
        if name not in done:
            place = tmp_path_factory.mktemp(name)
            done[name] = (
                run_of(CASES[name], place / "data", place / "runs" / "out"),
                place / "data",
                place / "runs" / "out",
            )
        return done[name]

    return make


@pytest.mark.parametrize("name", CASES)
def test_evaluate__on_a_copy_of_the_data_gives_the_figures_of_the_run(trained, name: str, tmp_path: Path) -> None:
    bundle, data, out = trained(name)
    copy = shutil.copytree(data, tmp_path / "elsewhere")

    chosen = selected(bundle, copy)

    assert (figures(bundle, chosen), chosen.differs) == (of_run(bundle), ())
    assert str(data) not in json.dumps([run.plain() for run in bundle.trained_on])
    in_place = selected(bundle, None, source=out)
    assert (figures(bundle, in_place), in_place.differs) == (of_run(bundle), ())


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, case in CASES.items() for key in case.drop])
def test_evaluate__needs_every_key_of_the_description(trained, name: str, key: str, monkeypatch) -> None:
    bundle, data, _ = trained(name)
    (run,) = bundle.trained_on
    assert key in run.train
    without = TrainedOn(heads=run.heads, train={k: v for k, v in run.train.items() if k != key}, val=run.val)
    monkeypatch.setattr(run_data, "describe", _nothing)  # which may find out by itself

    try:
        changed = figures(bundle, selected(replace(bundle, trained_on=(without,)), data))
    except DensevitError:
        return
    assert changed != of_run(bundle)


def _nothing(path: Path, **given: Any) -> None:
    raise DataError("nothing is recognised")


@pytest.mark.parametrize("name", ["ignored", "drawn", "templates", "coco_background"])
def test_evaluate__reads_an_archive_of_the_data_as_the_run_did(trained, name: str, tmp_path: Path) -> None:
    bundle, data, _ = trained(name)
    chosen = selected(bundle, fakes.pack(data, tmp_path / "data.zip"))
    assert (figures(bundle, chosen), chosen.differs) == (of_run(bundle), ())


def test_run__on_an_archive_is_evaluated_on_its_folder(tmp_path: Path) -> None:
    case = CASES["ignored"]
    case.write(tmp_path / "data")
    write_description(describe(tmp_path / "data", **case.keys).config, tmp_path / "data" / "dataset.yaml")
    bundle = run_of(case, tmp_path, tmp_path / "out", fakes.pack(tmp_path / "data", tmp_path / "data.zip"))
    for path in (tmp_path / "data", tmp_path / "data.zip", tmp_path / "data" / "dataset.yaml"):
        chosen = selected(bundle, path)
        assert (figures(bundle, chosen), chosen.differs) == (of_run(bundle), ())


def test_run__on_cached_features_has_the_figures_of_the_model(tmp_path: Path) -> None:
    facts = {"freeze": "encoder", "features": {"directory": str(tmp_path / "features")}}
    bundle = run_of(CASES["float_depth"], tmp_path / "data", tmp_path / "out", **facts)
    assert figures(bundle, selected(bundle, tmp_path / "data")) == of_run(bundle)


# What is asked for, and what differs


@pytest.mark.parametrize(
    ("given", "differs"),
    [
        ({"ignore_values": [7, 2]}, "ignore_values is [7, 2] instead of [7]"),
        ({"classes": ("a", "b", "d")}, "classes is ['a', 'b', 'd'] instead of ['a', 'b', 'c']"),
        ({"split": "train"}, "split is 'train' instead of 'val'"),
    ],
)
def test_evaluate__measures_what_is_asked_and_says_what_differs(trained, given: dict[str, Any], differs: str) -> None:
    bundle, data, _ = trained("ignored")
    if "classes" in given:
        with pytest.raises(ConfigError, match="no head fits this data set"):
            selected(bundle, data, **given)
        return
    chosen = selected(bundle, data, **given)
    assert chosen.differs == (differs,)
    assert figures(bundle, chosen) != of_run(bundle)
    assert chosen.record()["differs_from_run"] == [differs]


def test_evaluate__takes_another_description_at_its_word(trained, tmp_path: Path) -> None:
    bundle, data, _ = trained("ignored")
    config = describe(data, classes=NAMES, ignore_values=[7, 1]).config
    write_description(config, tmp_path / "other.yaml")

    chosen = selected(bundle, tmp_path / "other.yaml")

    assert (chosen.split, chosen.differs) == ("val", ("ignore_values is [7, 1] instead of [7]",))


def test_evaluate__says_that_a_folder_is_not_laid_out_as_the_runs(trained, tmp_path: Path) -> None:
    bundle, _, _ = trained("templates")
    masks(0, 1, 2)(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps({"classes": NAMES}))
    chosen = selected(bundle, tmp_path)
    assert chosen.differs[0].startswith(f"{tmp_path} is not laid out as the data of the run were (")
    assert chosen.split == "val"


def test_evaluate__of_a_description_without_splits_takes_the_runs(trained, tmp_path: Path) -> None:
    bundle, data, _ = trained("undrawn")
    config = describe(data, classes=NAMES).config.model_copy(update={"splits": None})
    write_description(config, tmp_path / "data.yaml")

    chosen = selected(bundle, tmp_path / "data.yaml")

    assert figures(bundle, chosen) == of_run(bundle)
    assert chosen.remarks == ("the data have no splits; those of the run are taken; set splits to change it",)


def test_evaluate__is_not_moved_by_photos_that_were_added(trained, tmp_path: Path) -> None:
    bundle, data, _ = trained("drawn")
    copy = shutil.copytree(data, tmp_path / "grown")
    for seed in range(6, 12):
        fakes.save(noise(seed), copy / "images" / f"{seed}.png")
        fakes.save(blocks(seed, 0, 1, 2), copy / "masks" / f"{seed}.png")
    assert figures(bundle, selected(bundle, copy)) == of_run(bundle)


def test_evaluate__a_draw_of_ones_own_is_compared_with_the_runs(trained) -> None:
    bundle, data, _ = trained("groups")
    (differs,) = selected(bundle, data, splits={"by": "^.", "seed": 4}).differs
    assert differs.startswith("split val has 2 photos instead of 2, ")


def test_evaluate__data_that_moved_away_are_named(trained, tmp_path: Path) -> None:
    bundle, data, out = trained("ignored")
    run = shutil.copytree(out, tmp_path / "out")
    text = (run / "dataset.yaml").read_text().replace(str(data), str(tmp_path / "gone"))
    (run / "dataset.yaml").write_text(text)
    with pytest.raises(DataError, match=r"the data of the run were in .*gone, which is not there; name their place"):
        selected(bundle, None, source=run / "model.safetensors")


@pytest.mark.parametrize("in_memory", [False, True])
def test_evaluate__a_description_next_to_a_model_is_not_that_of_its_run(
    trained, in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, _, out = trained("ignored")
    shutil.copy(out / "model.safetensors", tmp_path)
    shutil.copy(out / "dataset.yaml", tmp_path)
    if in_memory:  # even in the folder of a run, since nothing says that the model is its model
        shutil.copy(out / "config.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no data was named"):
        selected(bundle, None, source="" if in_memory else "model.safetensors")


def test_evaluate__of_a_model_that_knows_no_run_needs_a_split(trained) -> None:
    bundle, data, out = trained("index")
    stranger = replace(bundle, trained_on=())
    with pytest.raises(DataError, match="has splits and none was named; splits found: train, val"):
        selected(stranger, data, classes=NAMES)
    with pytest.raises(ConfigError, match="no data was named"):
        selected(stranger, None, source=out)
    assert selected(stranger, data, classes=NAMES, split="val").differs == ()


def test_evaluate__heads_of_several_data_sets_are_told_apart(trained) -> None:
    bundle, data, _ = trained("ignored")
    other = TrainedOn(heads=("other",), train={"kind": "camvid", "root": "streets"})
    tasks = {**bundle.tasks, "other": bundle.tasks["main"].model_copy(update={"classes": ("x", "y", "z")})}
    model = run_data.Model("model", tasks, (*bundle.trained_on, other))
    with pytest.raises(ConfigError, match="heads main, other learnt from several data sets; name one with --head"):
        run_data.select(model, "segmentation", None, None, None, {})
    chosen = run_data.select(model, "segmentation", "main", data, None, {})
    assert (chosen.head, chosen.differs) == ("main", ())


def test_checkpoint__with_a_description_that_is_none_is_refused(trained, tmp_path: Path) -> None:
    bundle, data, _ = trained("index")
    broken = replace(bundle, trained_on=(TrainedOn(heads=("main",), train={"kind": "folder", "imges": 3}),))
    save_bundle(broken, tmp_path / "m.safetensors")
    with pytest.raises(ConfigError, match="the checkpoint's description of its data cannot be read"):
        selected(load_bundle(tmp_path / "m.safetensors"), data, classes=NAMES, split="val")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"kind": "python", "factory": "tests.unit.test_run_data:never", "root": None}, "come from Python code"),
        ({"masks": "../../secret"}, "masks is '../../secret', which leads out of the folder of the data"),
        (
            {"images": "/etc/{split}/{name}.png"},
            "images is '/etc/{split}/{name}.png', which leads out of the folder of the data",
        ),
        ({"root": ".."}, "root is '..', which leads out of the folder of the data"),
    ],
)
def test_checkpoint__cannot_run_code_or_read_elsewhere(trained, change, problem: str, tmp_path: Path) -> None:
    bundle, data, _ = trained("index")
    keys = {} if "kind" in change else bundle.trained_on[0].train
    run = TrainedOn(heads=("main",), train={key: v for key, v in {**keys, **change}.items() if v is not None}, val={})
    chosen = selected(replace(bundle, trained_on=(run,)), data, classes=NAMES, split="val")
    assert problem in chosen.differs[0]


def never(**arguments: Any) -> None:
    raise AssertionError("a checkpoint has run code")


def test_run__on_data_of_python_code_needs_a_word_to_run_it_again(trained, tmp_path: Path) -> None:
    bundle, _, _ = trained("index")
    (tmp_path / "dataset.yaml").write_text("kind: python\nfactory: tests.contract.fakes:make_samples\n")
    (tmp_path / "config.yaml").touch()
    run = TrainedOn(heads=("main",), train={"kind": "python", "factory": "tests.contract.fakes:make_samples"})
    with pytest.raises(ConfigError, match=r"which is run only on demand; give --data .*dataset\.yaml"):
        selected(replace(bundle, trained_on=(run,)), None, source=tmp_path)
