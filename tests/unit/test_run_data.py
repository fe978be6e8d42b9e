"""A model is evaluated on its run's data exactly as the run read them, whatever their form, or what differs is said."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle, TrainedOn, load_bundle, save_bundle
from densevit.data.description import describe, write_description
from densevit.errors import ConfigError, DataError, DensevitError
from densevit.evaluation import run_data
from densevit.evaluation.evaluate import evaluate
from densevit.training.resolve_config import resolve_config
from densevit.training.train import train
from tests.contract import fakes
from tests.factories import tiny_encoder

SIZE = (32, 32)
PALETTE = ((10, 20, 30), (200, 0, 0), (0, 200, 0))
NAMES = ("a", "b", "c")


def noise(seed: int, high: int = 256, channels: int = 3) -> NDArray[np.uint8]:
    shape = (*SIZE, channels) if channels > 1 else SIZE
    return np.random.default_rng(seed).integers(0, high, shape, dtype=np.uint8)


def blocks(seed: int, *values: int) -> NDArray[np.uint8]:
    """Stripes of the values, which no two seeds have at the same places."""
    return np.roll(np.repeat(np.array(values, np.uint8), 5)[np.arange(32) % (5 * len(values))], seed)[None].repeat(
        32, 0
    )


def split_folders(root: Path, targets: Callable[[int], NDArray[Any]], kind: str = "masks") -> None:
    for split, seeds in (("train", (0, 1)), ("val", (2, 3))):
        for seed in seeds:
            fakes.save(noise(seed), root / "images" / split / f"{seed}.png")
            if kind == "values":
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                np.save(root / kind / split / f"{seed}.npy", targets(seed))
            else:
                fakes.save(targets(seed), root / kind / split / f"{seed}.png")


def one_folder(root: Path, *, groups: bool = False) -> None:
    for seed in range(6):
        name = f"{'xyz'[seed // 2]}{seed}" if groups else str(seed)
        fakes.save(noise(seed), root / "images" / f"{name}.png")
        fakes.save(blocks(seed, 0, 1, 2), root / "masks" / f"{name}.png")


def suffixes(root: Path) -> None:
    for split, seeds in (("train", (0, 1)), ("valid", (2, 3))):
        for seed in seeds:
            fakes.save(noise(seed), root / split / "day" / f"{seed}_image.png")
            fakes.save(blocks(seed, 0, 1, 2), root / split / "day" / f"{seed}_mask.png")


def regions(root: Path) -> None:
    for split, seeds in (("train", (0, 1)), ("val", (2, 3))):
        for seed in seeds:
            fakes.save(noise(seed), root / split / f"{seed}.png")
            for number, name in enumerate(NAMES):
                fakes.save(
                    (blocks(seed, 0, 1, 2, 3) == number).astype(np.uint8) * 255,
                    root / split / f"{seed}" / f"{name}.png",
                )


def table(root: Path) -> None:
    for seed in range(4):
        fakes.save(noise(seed), root / "photos" / f"{seed}.png")
        fakes.save(blocks(seed, 0, 1, 2), root / "labels" / f"m{seed}.png")
    rows = [(f"photos/{i}.png", f"labels/m{i}.png", "train" if i < 2 else "val") for i in range(4)]
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "mask", "split"), *rows])


def coco(root: Path) -> None:
    for split, seeds in (("train", (0, 1)), ("val", (2, 3))):
        for seed in seeds:
            fakes.save(noise(seed), root / "images" / split / f"{seed}.png")
        square = [4, 4, 20, 4, 20, 20, 4, 20]
        (root / "annotations").mkdir(exist_ok=True)
        shapes = [{"id": s, "image_id": s, "category_id": 1 + s % 2, "segmentation": [square]} for s in seeds]
        images = [{"id": s, "file_name": f"{s}.png", "height": 32, "width": 32} for s in seeds]
        categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
        data = {"images": images, "categories": categories, "annotations": shapes}
        (root / "annotations" / f"{split}.json").write_text(json.dumps(data))


def labelme(root: Path) -> None:
    for split, seeds in (("train", (0, 1)), ("val", (2, 3))):
        for seed in seeds:
            fakes.save(noise(seed), root / "images" / split / f"{seed}.png")
            shape = {"label": "ab"[seed % 2], "points": [[4, 4], [20, 4], [20, 20], [4, 20]]}
            (root / "masks" / split).mkdir(parents=True, exist_ok=True)
            file = {"imageHeight": 32, "imageWidth": 32, "shapes": [shape]}
            (root / "masks" / split / f"{seed}.json").write_text(json.dumps(file))


def float_depth(root: Path) -> None:
    split_folders(root, lambda seed: np.zeros(SIZE, np.uint8), "depth")
    for path in (root / "depth").rglob("*.png"):
        metres = noise(int(path.stem), channels=1).astype(np.float32) + 1
        metres[:5] = 99
        np.save(path.with_suffix(".npy"), metres)
        path.unlink()


def int_depth(seed: int) -> NDArray[np.uint16]:
    depth = noise(seed, channels=1).astype(np.uint16) * 40 + 40
    depth[:5] = 9_000
    return depth


@dataclass(frozen=True)
class Case:
    """A data set.

    Attributes:
        write: writes it into a folder.
        keys: what a description says about it.
        drop: keys without which it would be read as something else.
        task: what is learnt.
    """

    write: Callable[[Path], object]
    keys: dict[str, Any]
    drop: tuple[str, ...] = ()
    task: str = "segmentation"


def masks(*values: int) -> Callable[[Path], None]:
    return lambda root: split_folders(root, lambda seed: blocks(seed, *values))


CASES = {
    "index": Case(masks(0, 1, 2), {"classes": NAMES}),
    "ignored": Case(masks(0, 1, 2, 7), {"classes": NAMES, "ignore_values": [7]}, ("ignore_values",)),
    "ignore_index": Case(masks(0, 1, 2, 9), {"classes": NAMES, "ignore_index": 9}, ("ignore_index",)),
    "zero_label": Case(masks(0, 1, 2, 3), {"classes": NAMES, "reduce_zero_label": True}, ("reduce_zero_label",)),
    "merge": Case(masks(0, 1, 2), {"classes": NAMES, "merge": {"ab": ["a", "b"]}}, ("merge",)),
    "drop": Case(masks(0, 1, 2), {"classes": NAMES, "drop": ["b"]}, ("drop",)),
    "colours": Case(
        lambda root: split_folders(
            root, lambda seed: np.array([*PALETTE, (9, 9, 9)], np.uint8)[blocks(seed, 0, 1, 2, 3)]
        ),
        {"classes": NAMES, "palette": PALETTE, "unknown_colours": "ignore"},
        ("palette", "unknown_colours"),
    ),
    "coco": Case(coco, {}),
    "coco_background": Case(coco, {"background": "rest"}),
    "labelme": Case(labelme, {"classes": ("a", "b")}),
    "labelme_background": Case(labelme, {"classes": NAMES, "background": "c"}),
    "grey": Case(
        masks(0, 128, 255, 131),
        {"classes": NAMES, "class_values": [0, 128, 255], "stray_values": "nearest"},
        ("class_values", "stray_values"),
    ),
    "regions": Case(
        regions,
        {
            "images": "{split}/{name}.png",
            "masks": "{split}/{name}/{class}.png",
            "classes": ["rest", *NAMES],
            "background": "rest",
        },
        ("masks",),
    ),
    "bands": Case(
        masks(0, 1, 2),
        {"classes": NAMES, "images": "images/{split}/{name}.png", "masks": "masks/{split}/{name}.png"}
        | {"bands": [3, 2, 1], "full_scale": 300},
        ("bands", "full_scale"),
    ),
    "templates": Case(
        suffixes,
        {"images": "{split}/{folder}/{name}_image.png", "masks": "{split}/{folder}/{name}_mask.png", "classes": NAMES},
        ("images", "masks"),
    ),
    "pairs": Case(table, {"pairs": "list.csv", "classes": NAMES}, ("pairs",)),
    "drawn": Case(one_folder, {"classes": NAMES, "splits": {"val": 0.4, "seed": 3}}, ("splits",)),
    "undrawn": Case(one_folder, {"classes": NAMES}, ("splits",)),
    "groups": Case(
        lambda root: one_folder(root, groups=True), {"classes": NAMES, "splits": {"val": 0.3, "by": "^."}}, ("splits",)
    ),
    "depth": Case(
        lambda root: split_folders(root, int_depth, "depth"),
        {"depth_unit_m": 0.0005, "depth_invalid": [9000]},
        ("depth_unit_m", "depth_invalid"),
        "depth",
    ),
    "float_depth": Case(
        float_depth, {"depth_scale_m": 0.01, "depth_invalid": [99]}, ("depth_scale_m", "depth_invalid"), "depth"
    ),
    "normals": Case(
        lambda root: split_folders(root, lambda s: noise(s).astype(np.float32) / 255 - 0.5, "values"),
        {"normals": True},
        (),
        "regression",
    ),
    "camvid": Case(lambda root: fakes.camvid(root), {"kind": "camvid", "drop": ["sky"]}, ("drop",)),
}


def run_of(case: Case, root: Path, out: Path, data: Path | None = None, **facts: Any) -> Bundle:
    """Two steps on the data set, described by the case's keys or by a file."""
    if data is None:
        case.write(root)
    task: dict[str, Any] = {"kind": case.task}
    task |= {"channels": ["x", "y", "z"]} if case.task == "regression" else {}
    task |= {"max_depth_m": 10.0} if case.task == "depth" else {}
    given = {
        "model": {"encoder": tiny_encoder().plain(), "heads": {"main": {"decoder": {"kind": "segmenter_linear"}}}},
        "tasks": {"main": task},
        "augment": {"crop": [16, 16]},
        "fit": {"short_side": 32},
        "iterations": 2,
        "pictures": 0,
        **facts,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    config = out.parent / f"{out.name}.yaml"
    config.write_text(yaml.safe_dump(json.loads(json.dumps(given))))
    keys = {key: root / value if key == "pairs" else value for key, value in case.keys.items()}
    described = describe(data or root, **({} if data else keys))
    run = resolve_config(config, ["sources.0.batch_size=2"], data=described.config)
    return load_bundle(train(run, out))


def selected(bundle: Bundle, path: Path | None, *, source: Path = Path("model"), **given: Any) -> run_data.Selected:
    model = run_data.Model(str(source), bundle.tasks, bundle.trained_on)
    kind = run_data.only_kind(bundle.tasks)
    return run_data.select(model, kind, None, path, given.pop("split", None), given)


def figures(bundle: Bundle, chosen: run_data.Selected) -> str:
    """All metrics, as text in which NaN equals NaN."""
    return json.dumps(evaluate(bundle.model, bundle.tasks, bundle.fit, chosen.dataset)["main"])


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
    of_run = json.dumps(bundle.card.metrics["main"])

    chosen = selected(bundle, copy)

    assert (figures(bundle, chosen), chosen.differs) == (of_run, ())
    assert str(data) not in json.dumps([run.plain() for run in bundle.trained_on])
    in_place = selected(bundle, None, source=out)
    assert (figures(bundle, in_place), in_place.differs) == (of_run, ())


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
    assert changed != json.dumps(bundle.card.metrics["main"])


def _nothing(path: Path, **given: Any) -> None:
    raise DataError("nothing is recognised")


@pytest.mark.parametrize("name", ["ignored", "drawn", "templates", "coco_background"])
def test_evaluate__reads_an_archive_of_the_data_as_the_run_did(trained, name: str, tmp_path: Path) -> None:
    bundle, data, _ = trained(name)
    chosen = selected(bundle, fakes.pack(data, tmp_path / "data.zip"))
    assert (figures(bundle, chosen), chosen.differs) == (json.dumps(bundle.card.metrics["main"]), ())


def test_run__on_an_archive_is_evaluated_on_its_folder(tmp_path: Path) -> None:
    case = CASES["ignored"]
    case.write(tmp_path / "data")
    write_description(describe(tmp_path / "data", **case.keys).config, tmp_path / "data" / "dataset.yaml")
    bundle = run_of(case, tmp_path, tmp_path / "out", fakes.pack(tmp_path / "data", tmp_path / "data.zip"))
    for path in (tmp_path / "data", tmp_path / "data.zip", tmp_path / "data" / "dataset.yaml"):
        chosen = selected(bundle, path)
        assert (figures(bundle, chosen), chosen.differs) == (json.dumps(bundle.card.metrics["main"]), ())


def test_run__on_cached_features_has_the_figures_of_the_model(tmp_path: Path) -> None:
    facts = {"freeze": "encoder", "features": {"directory": str(tmp_path / "features")}}
    bundle = run_of(CASES["float_depth"], tmp_path / "data", tmp_path / "out", **facts)
    assert figures(bundle, selected(bundle, tmp_path / "data")) == json.dumps(bundle.card.metrics["main"])


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
    assert figures(bundle, chosen) != json.dumps(bundle.card.metrics["main"])
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

    assert figures(bundle, chosen) == json.dumps(bundle.card.metrics["main"])
    assert chosen.remarks == ("the data have no splits; those of the run are taken; set splits to change it",)


def test_evaluate__is_not_moved_by_photos_that_were_added(trained, tmp_path: Path) -> None:
    bundle, data, _ = trained("drawn")
    copy = shutil.copytree(data, tmp_path / "grown")
    for seed in range(6, 12):
        fakes.save(noise(seed), copy / "images" / f"{seed}.png")
        fakes.save(blocks(seed, 0, 1, 2), copy / "masks" / f"{seed}.png")
    assert figures(bundle, selected(bundle, copy)) == json.dumps(bundle.card.metrics["main"])


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
