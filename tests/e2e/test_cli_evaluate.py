"""``densevit evaluate``: figures as a second, plain computation gives them, and the choice of head and data."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

import densevit
from densevit.checkpoints.native import load_bundle, save_bundle
from tests.e2e.scenes import CLASSES, CLASSES_JSON, COARSE, TASKS, TO_COARSE, write_dataset, write_model

ODD = (57, 83)  # neither the model's input size nor a multiple of its patch

ROUNDING = 2e-4
"""A pixel of the 14193 may fall to another class where two logits are equal up to rounding."""


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose photos have to be resized for the model."""
    return write_dataset(tmp_path_factory.mktemp("data") / "odd", val_size=ODD)


@pytest.fixture
def evaluate(cli, trained, tmp_path):
    """``densevit evaluate`` with the trained model: its outcome, and what ``--json`` holds."""

    def run(*arguments: object, model: object = trained) -> dict[str, Any]:
        result = cli("evaluate", *arguments, "--model", model, "--json", tmp_path / "figures.json")
        assert result.code == 0, result.err
        return json.loads((tmp_path / "figures.json").read_text())

    return run


@pytest.fixture
def refusal(cli, trained):
    """What ``densevit evaluate`` says where it refuses."""

    def run(*arguments: object, model: object = trained) -> str:
        result = cli("evaluate", *arguments, "--model", model)
        assert (result.code, "Traceback" in result.err) == (2, False), result.err
        return result.err.partition("densevit: ")[2].rstrip("\n")

    return run


def outputs(model: densevit.Predictor, head: str, folder: Path) -> list[NDArray[np.float32]]:
    """The head's logits of every photo at the photo's size, (K, H, W)."""
    found = []
    for path in sorted(folder.iterdir()):
        image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None].float() / 255
        small = F.interpolate(image, (48, 72), mode="bilinear", antialias=True).clamp(0, 1)
        with torch.inference_mode():
            logits = model.model(small, (head,))[head].logits
        corners = model.model.decoder(head).align_corners
        found.append(F.interpolate(logits, ODD, mode="bilinear", align_corners=corners)[0].numpy())
    return found


def targets(folder: Path) -> list[NDArray[Any]]:
    return [np.array(Image.open(path)) for path in sorted(folder.iterdir())]


def segmentation_figures(labels: list[NDArray[Any]], truths: list[NDArray[Any]], num_classes: int) -> dict[str, Any]:
    """mIoU, aAcc, mAcc and IoU per class, from one confusion matrix by loops."""
    confusion = np.zeros((num_classes, num_classes), int)
    for label, truth in zip(labels, truths, strict=True):
        np.add.at(confusion, (truth[truth != 255], label[truth != 255]), 1)
    right = np.diag(confusion)
    iou = right / (confusion.sum(0) + confusion.sum(1) - right)
    acc = right / confusion.sum(1)
    return {"mIoU": iou.mean(), "aAcc": right.sum() / confusion.sum(), "mAcc": acc.mean(), "IoU": iou.tolist()}


@pytest.mark.parametrize("head", ["setr", "segmenter", "dpt"])
def test_evaluate__segmentation_equals_a_plain_computation(evaluate, odd, trained, head):
    figures = evaluate("--data", odd, "--split", "val", "--head", head)
    labels = [logits.argmax(0) for logits in outputs(densevit.load(trained), head, odd / "images" / "val")]
    expected = segmentation_figures(labels, targets(odd / "masks" / "val"), len(CLASSES))
    assert {key: figures[key] for key in ("mIoU", "aAcc", "mAcc")} == pytest.approx(
        {key: expected[key] for key in ("mIoU", "aAcc", "mAcc")}, abs=ROUNDING
    )
    assert [figures["per_class"][name]["IoU"] for name in CLASSES] == pytest.approx(expected["IoU"], abs=5 * ROUNDING)


def test_evaluate__a_coarser_view_is_measured_in_its_own_ids(evaluate, odd, trained):
    figures = evaluate("--data", odd, "--split", "val", "--task", "segmentation", "--head", "coarse")
    labels = [logits.argmax(0) for logits in outputs(densevit.load(trained), "coarse", odd / "images" / "val")]
    table = np.full(256, 255)
    table[: len(TO_COARSE)] = TO_COARSE
    expected = segmentation_figures(labels, [table[mask] for mask in targets(odd / "masks" / "val")], len(COARSE))
    assert figures["mIoU"] == pytest.approx(expected["mIoU"], abs=ROUNDING)
    assert figures["per_class"].keys() == set(COARSE)


def test_evaluate__depth_equals_a_plain_computation(evaluate, odd, trained):
    figures = evaluate("--data", odd, "--split", "val", "--task", "depth")
    rows = []
    for logits, target in zip(
        outputs(densevit.load(trained), "depth", odd / "images" / "val"), targets(odd / "depth" / "val"), strict=True
    ):
        true = target[target > 0] / 1000
        found = logits[0][target > 0].astype(np.float64).clip(1e-3, 8)
        ratio, log = np.maximum(found / true, true / found), np.log(found) - np.log(true)
        rows.append(
            {
                "AbsRel": np.mean(np.abs(found - true) / true),
                "SqRel": np.mean((found - true) ** 2 / true),
                "RMSE": np.sqrt(np.mean((found - true) ** 2)),
                "RMSElog": np.sqrt(np.mean(log**2)),
                "SILog": np.std(log),
                "log10": np.mean(np.abs(np.log10(found) - np.log10(true))),
                **{f"delta{n}": np.mean(ratio < 1.25**n) for n in (1, 2, 3)},
            }
        )
    expected = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
    assert {key: figures[key] for key in expected} == pytest.approx(expected, abs=ROUNDING)


def test_evaluate__entropy_is_the_mean_of_what_predictions_say(evaluate, odd, trained):
    figures = evaluate("--data", odd, "--split", "val", "--head", "segmenter")
    model = densevit.load(trained, heads="segmenter")
    photos = sorted((odd / "images" / "val").iterdir())
    expected = np.mean([model.predict(photo)["segmenter"].mean_entropy for photo in photos])
    assert figures["mean_entropy"] == pytest.approx(expected, abs=1e-6)


def test_evaluate__json_says_what_was_measured_on_what(evaluate, dataset, trained):
    figures = evaluate("--data", dataset, "--split", "val", "--head", "dpt")
    facts = {key: figures[key] for key in ("model", "decoder", "task", "data", "split", "num_images", "num_pixels")}
    assert facts == {
        "model": str(trained),
        "decoder": "dpt",
        "task": "segmentation",
        "data": str(dataset),
        "split": "val",
        "num_images": 3,
        "num_pixels": 3 * 48 * 63,
    }


@pytest.mark.parametrize("options", [("--head", "setr,dpt"), ("--head", "setr", "--decoder", "dpt")])
def test_evaluate__measures_each_head_that_is_named(evaluate, dataset, options):
    both = evaluate("--data", dataset, "--split", "val", *options)["heads"]
    single = evaluate("--data", dataset, "--split", "val", "--head", "dpt")

    assert [record["decoder"] for record in both] == ["setr", "dpt"]
    assert both[1]["mIoU"] == single["mIoU"]


def test_evaluate__prints_the_figures(cli, dataset, trained):
    result = cli("evaluate", "--data", dataset, "--split", "val", "--head", "dpt", "--model", trained)
    rows = [line.replace("│", " ").split() for line in result.out.splitlines()]
    assert {" ".join(row[:-1]) for row in rows if row} >= {"mIoU", "aAcc", "mAcc", "IoU wall", "IoU blue"}


def test_evaluate__prints_class_names_with_brackets_as_they_are(cli, dataset, tmp_path):
    names = ["[wall]", "[/red]", "green [bold]", "blue"]
    tasks = {"dpt": {"kind": "segmentation", "classes": names}}
    model = write_model(tmp_path / "model.safetensors", "dpt", tasks=tasks)
    folders = ("--images", dataset / "images" / "val", "--masks", dataset / "masks" / "val")
    result = cli("evaluate", *folders, "--model", model)
    assert [name for name in names if f"IoU {name} " in result.out] == names


def test_evaluate__a_class_that_occurs_nowhere_has_no_figure(evaluate, dataset, tmp_path):
    tasks = {"dpt": {"kind": "segmentation", "classes": [*CLASSES, *(f"ghost {i}" for i in range(200))]}}
    model = write_model(tmp_path / "model.safetensors", "dpt", tasks=tasks)
    folders = ("--images", dataset / "images" / "val", "--masks", dataset / "masks" / "val")
    figures = evaluate(*folders, model=model)
    unseen = [name for name, values in figures["per_class"].items() if values["IoU"] is None]
    assert len(unseen) > 100
    assert set(CLASSES).isdisjoint(unseen)
    assert 0 <= figures["mIoU"] < 1


def test_evaluate__figures_are_printed_even_if_the_json_cannot_be_written(cli, dataset, trained, tmp_path):
    data = ("--data", dataset, "--split", "val", "--head", "dpt")
    result = cli("evaluate", *data, "--model", trained, "--json", tmp_path)
    assert (result.code, "mIoU" in result.out) == (2, True)
    assert f"densevit: {tmp_path} is a folder or a device; choose the name of a file" in result.err


def test_evaluate__agrees_with_what_training_measured(evaluate, dataset, trained):
    log = [json.loads(line) for line in (trained.parent / "log.jsonl").read_text().splitlines()]
    measured = {row["head"]: row for row in log if row["event"] == "eval"}
    figures = evaluate("--data", dataset, "--split", "val", "--task", "depth")
    assert figures["RMSE"] == pytest.approx(measured["depth"]["RMSE"], rel=1e-5)


# Which head


@pytest.mark.parametrize(
    ("classes", "head"),
    [({"classes": CLASSES}, "dpt"), ({"classes": COARSE}, "coarse"), (CLASSES_JSON, None)],
    ids=["fine names", "coarse names", "both"],
)
def test_evaluate__finds_the_head_by_its_class_names(cli, evaluate, dataset, tmp_path, classes, head):
    root = shutil.copytree(dataset, tmp_path / "data")
    (root / "classes.json").write_text(json.dumps(classes))
    for mask in (root / "masks" / "val").iterdir():
        Image.fromarray(np.array(Image.open(mask)) % 2).save(mask)  # ids that both lists have
    model = write_model(tmp_path / "model.safetensors", "dpt", "coarse", "depth")
    if head is not None:
        assert evaluate("--data", root, "--split", "val", model=model)["decoder"] == head
    else:
        result = cli("evaluate", "--data", root, "--split", "val", "--model", model)
        assert result.err == (
            "densevit: several heads fit this data set and task segmentation; the model has dpt (segmentation), "
            "coarse (segmentation), depth (depth); name one with --head\n"
        )


def test_evaluate__finds_the_head_by_a_coarser_view(evaluate, dataset, tmp_path):
    model = write_model(tmp_path / "model.safetensors", "coarse", "depth")
    assert evaluate("--data", dataset, "--split", "val", model=model)["decoder"] == "coarse"


def test_evaluate__no_head_with_these_classes(refusal, dataset, tmp_path):
    tasks = {"dpt": {"kind": "segmentation", "classes": ["sky", "sea"]}, "depth": TASKS["depth"]}
    model = write_model(tmp_path / "model.safetensors", "dpt", "depth", tasks=tasks)
    assert refusal("--data", dataset, "--split", "val", model=model) == (
        "no head fits this data set and task segmentation; the model has dpt (segmentation), depth (depth); "
        "name one with --head"
    )


def test_evaluate__the_named_head_has_other_classes(refusal, dataset, tmp_path):
    tasks = {"dpt": {"kind": "segmentation", "classes": ["sky", "sea"]}}
    model = write_model(tmp_path / "model.safetensors", "dpt", tasks=tasks)
    assert refusal("--data", dataset, "--split", "val", "--head", "dpt", model=model) == (
        "head 'dpt' has classes sky, sea but the data set has wall, red, green, blue or background, thing; "
        "use the data set's names in its order, or add a view to classes.json"
    )


@pytest.mark.parametrize(
    ("decoder", "task", "message"),
    [
        ("dtp", "segmentation", "there is no head 'dtp'; did you mean 'dpt'?"),
        ("depth", "segmentation", "head 'depth' does depth, not segmentation; choose --task depth"),
    ],
)
def test_evaluate__an_impossible_decoder_is_refused(refusal, dataset, decoder, task, message):
    assert refusal("--data", dataset, "--split", "val", "--head", decoder, "--task", task) == message


# Which data


def test_evaluate__two_folders_without_class_names_take_those_of_the_head(evaluate, dataset, tmp_path):
    for kind in ("images", "masks"):
        shutil.copytree(dataset / kind / "val", tmp_path / kind)
    folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
    apart = evaluate(*folders, "--head", "segmenter")
    together = evaluate("--data", dataset, "--split", "val", "--head", "segmenter")
    assert (apart["mIoU"], apart["per_class"]) == (together["mIoU"], together["per_class"])


def test_evaluate__depth_from_two_folders(evaluate, dataset):
    folders = ("--images", dataset / "images" / "val", "--depth", dataset / "depth" / "val")
    assert evaluate(*folders, "--task", "depth")["num_images"] == 3


def test_evaluate__a_class_out_of_range_names_file_and_ids(refusal, dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "data")
    path = root / "masks" / "val" / "101.png"
    mask = np.array(Image.open(path))
    mask[5, 5], mask[6, 6] = 4, 77
    Image.fromarray(mask).save(path)
    assert refusal("--data", root, "--split", "val", "--head", "dpt") == (
        f"mask {path} holds class 4, 77 but the data set has 4 classes, 0..3, and 255 for ignored pixels; "
        "fix the mask, or list the missing class in classes.json"
    )


def test_evaluate__an_unknown_split_is_answered_with_those_there_are(refusal, dataset):
    message = refusal("--data", dataset, "--split", "night", "--head", "dpt")
    assert message == f"{dataset} has no split 'night'; splits found: train, val"


def test_evaluate__a_split_that_was_not_named_is_asked_for(refusal, dataset, trained, tmp_path):
    bundle = replace(load_bundle(trained), trained_on=())  # a model that does not know its run's split
    save_bundle(bundle, tmp_path / "model.safetensors")
    message = refusal("--data", dataset, "--head", "dpt", model=tmp_path / "model.safetensors")
    assert message == f"{dataset} has splits and none was named; splits found: train, val; name one"


@pytest.mark.parametrize(("task", "kind"), [("segmentation", "masks"), ("depth", "depth"), ("regression", "values")])
def test_evaluate__missing_targets_are_named(refusal, dataset, tmp_path, task, kind):
    shutil.copytree(dataset / "images", tmp_path / "images")
    (tmp_path / "dataset.yaml").write_text("root: .\n")
    message = refusal("--data", tmp_path, "--split", "val", "--task", task)
    assert message == f"{tmp_path} has no folder {kind}/ for task {task}; add it, or give --{kind} DIR"


def test_evaluate__a_photo_without_a_mask_is_named(refusal, dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "data")
    (root / "masks" / "val" / "102.png").unlink()
    assert refusal("--data", root, "--split", "val", "--head", "dpt").startswith(
        f"1 of 3 photos have no mask in {root / 'masks' / 'val'}, for example 102.png; each photo needs a mask of "
        "the same"
    )


def test_evaluate__a_mask_of_another_size_is_named(refusal, dataset, tmp_path):
    root = shutil.copytree(dataset, tmp_path / "data")
    path = root / "masks" / "val" / "100.png"
    Image.fromarray(np.array(Image.open(path)).T.copy()).save(path)
    message = refusal("--data", root, "--split", "val", "--head", "dpt")
    assert message.startswith(f"{root / 'images' / 'val' / '100.png'} is 48 x 64 but {path} is 64 x 48; both must")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_evaluate__a_device_that_is_not_there_is_refused(refusal, dataset, device):
    message = refusal("--data", dataset, "--split", "val", "--device", device)
    assert message.startswith(f"device {device!r} cannot be used (")
    assert message.endswith("); name another such as cpu, or none")


def test_evaluate__an_unknown_task_is_answered_with_the_nearest(refusal, dataset):
    assert refusal("--data", dataset, "--task", "dept") == "task 'dept' is unknown; did you mean 'depth'?"
    assert refusal("--task", "x") == "task 'x' is unknown; known: depth, regression, segmentation"


def test_evaluate__no_data_at_all(refusal, trained, tmp_path):
    model = shutil.copy(trained, tmp_path)  # outside its run folder
    assert refusal("--task", "depth", model=model) == (
        "no data was named; give --data PATH, or --images and one of --masks, --depth and --values; only a model in "
        "its run folder knows where its data are"
    )


def test_evaluate__a_data_folder_that_does_not_exist(refusal, tmp_path):
    assert refusal("--data", tmp_path / "none", "--split", "val") == (
        f"{tmp_path / 'none'} does not exist; a folder, a zip archive or a dataset.yaml is accepted; check the path"
    )


@pytest.mark.parametrize("text", ['["wall"]', "{", '{"classes": "wall"}', '{"names": []}'])
def test_evaluate__a_damaged_class_list_is_named(refusal, dataset, tmp_path, text):
    root = shutil.copytree(dataset, tmp_path / "data")
    (root / "classes.json").write_text(text)
    message = refusal("--data", root, "--split", "val")
    assert message.startswith(
        (f"{root / 'classes.json'} is not a class list (", f"{root / 'classes.json'} is not valid")
    )


def test_evaluate__regression_values_may_lie_anywhere(evaluate, dataset, tmp_path):
    for path in (dataset / "images" / "val").iterdir():
        (tmp_path / "values").mkdir(exist_ok=True)
        np.save(tmp_path / "values" / f"{path.stem}.npy", np.full((48, 64, 4), 0.25, np.float32))
    tasks = {"dpt": {"kind": "regression", "channels": list("abcd")}}
    model = write_model(tmp_path / "model.safetensors", "dpt", tasks=tasks)
    places = ("--images", dataset / "images" / "val", "--values", tmp_path / "values")
    figures = evaluate(*places, "--task", "regression", model=model)
    assert (figures["decoder"], figures["num_images"], figures["MAE"] > 0) == ("dpt", 3, True)


def test_evaluate__reduce_zero_label_measures_masks_that_count_from_1(evaluate, odd, tmp_path):
    for path in sorted((odd / "masks" / "val").iterdir()):
        ids = np.array(Image.open(path))
        shifted = np.where(ids == 255, 0, ids + 1).astype(np.uint8)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(shifted).save(tmp_path / "masks" / path.name)
    options = ("--images", odd / "images" / "val", "--head", "segmenter", "--masks")

    plain = evaluate(*options, odd / "masks" / "val")
    reduced = evaluate(*options, tmp_path / "masks", "--reduce-zero-label")

    assert (reduced["mIoU"], reduced["per_class"]) == (plain["mIoU"], plain["per_class"])


def test_evaluate__background_is_named_for_shapes_only(evaluate, refusal, odd, tmp_path):
    photos = sorted((odd / "images" / "val").iterdir())
    names = json.loads((odd / "classes.json").read_text())["classes"]
    (tmp_path / "classes.json").write_text(json.dumps({"classes": names}))
    shutil.copytree(odd / "images" / "val", tmp_path / "images")
    images, annotations = [], []
    for number, path in enumerate(photos):
        width, height = Image.open(path).size
        images.append({"id": number, "file_name": path.name, "width": width, "height": height})
        corner = [0, 0, 9, 0, 9, 9, 0, 9]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "segmentation": [corner]})
    coco = {"images": images, "categories": [{"id": 1, "name": names[1]}], "annotations": annotations}
    (tmp_path / "annotations.json").write_text(json.dumps(coco))

    options = ("--data", tmp_path, "--head", "segmenter")
    shapes, everywhere = evaluate(*options), evaluate(*options, "--background", names[0])

    assert everywhere["background"] == names[0]
    assert everywhere["mIoU"] != shapes["mIoU"]
    assert "has no shapes" in refusal("--data", odd, "--split", "val", "--background", names[0])
