"""Small data sets of every form, and runs of two steps on them."""

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle, load_bundle
from densevit.data.description import describe
from densevit.evaluation import run_data
from densevit.evaluation.evaluate import evaluate
from densevit.io import to_json
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
    return run_data.select(model, None, None, path, given.pop("split", None), given)


def figures(bundle: Bundle, chosen: run_data.Selected) -> str:
    """All metrics, as a card holds them."""
    return to_json(evaluate(bundle.model, bundle.tasks, bundle.fit, chosen.dataset)["main"])


def of_run(bundle: Bundle) -> str:
    """The metrics of the run's last evaluation."""
    return to_json(bundle.card.metrics["main"])
