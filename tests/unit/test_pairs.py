import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densevit.data import FolderConfig, FolderDataset
from densevit.data.pairs import Pairs, find_pairs
from densevit.errors import ConfigError, DataError
from tests.layouts import photo as noise
from tests.layouts import save, truth


def make(root: Path, *names: str) -> Path:
    """Empty files below ``root``; pairing opens none of them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def zipped(root: Path) -> Path:
    """The folder as an archive next to it."""
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(root).as_posix())
    return path


def found(**facts: Any) -> Pairs:
    return find_pairs(FolderConfig.parse(facts))


def names_of(pairs: Pairs, kind: Any = "masks") -> list[tuple[str, str, str, str]]:
    """(name, split, photo, target) of each pair."""
    return [(p.name, p.split, p.image.name, *(path.name for path in p.targets.get(kind, ()))) for p in pairs.pairs]


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("files", "facts", "expected"),
    [
        pytest.param(
            ["1_image.png", "1_mask.png", "1_note.png", "10_image.png", "10_mask.png", "2_image.png", "2_mask.png"],
            {"images": "{name}_image.*", "masks": "{name}_mask.*"},
            [("1", "", "1_image.png", "1_mask.png"), ("2", "", "2_image.png", "2_mask.png"),
             ("10", "", "10_image.png", "10_mask.png")],
            id="suffixes",
        ),
        pytest.param(
            ["a.bmp", "a.png", "b.bmp", "b.png"],
            {"images": "{name}.bmp", "masks": "{name}.png"},
            [("a", "", "a.bmp", "a.png"), ("b", "", "b.bmp", "b.png")],
            id="one folder",
        ),
        pytest.param(
            ["a.png", "a_mask.png", "b.png", "b_mask.png"],
            {"images": "{name}.png", "masks": "{name}_mask.png"},
            [("a", "", "a.png", "a_mask.png"), ("b", "", "b.png", "b_mask.png")],
            id="a mask is no photo",
        ),
        pytest.param(
            ["a.png", "a_mask.png"],
            {"images": "{name}.*", "masks": "{name}_mask.*"},
            [("a", "", "a.png", "a_mask.png")],
            id="a mask is no photo by any suffix",
        ),
        pytest.param(
            ["train/images/a.jpg", "train/masks/a.png", "valid/images/b.jpg", "valid/masks/b.png"],
            {"images": "{split}/images/{name}.*", "masks": "{split}/masks/{name}.*"},
            [("a", "train", "a.jpg", "a.png"), ("b", "valid", "b.jpg", "b.png")],
            id="split above kind",
        ),
        pytest.param(
            ["train/images/a.jpg", "train/masks/a.png", "test/images/a.jpg", "test/masks/a.png"],
            {"images": "{split}/images/{name}.*", "masks": "{split}/masks/{name}.*"},
            [("test/a", "test", "a.jpg", "a.png"), ("train/a", "train", "a.jpg", "a.png")],
            id="a name in two splits",
        ),
        pytest.param(
            ["images/k/a.jpg", "images/l/m/a.jpg", "masks/k/a.png", "masks/l/m/a.png", "images/a.jpg", "masks/a.png"],
            {"images": "images/{folder}/{name}.*", "masks": "masks/{folder}/{name}.*"},
            [("a", "", "a.jpg", "a.png"), ("k/a", "", "a.jpg", "a.png"), ("l/m/a", "", "a.jpg", "a.png")],
            id="nested folders",
        ),
        pytest.param(
            ["s1/rgb.png", "s1/seg.png", "s2/rgb.png", "s2/seg.png"],
            {"images": "{folder}/rgb.png", "masks": "{folder}/seg.png"},
            [("s1", "", "rgb.png", "seg.png"), ("s2", "", "rgb.png", "seg.png")],
            id="a folder for each photo",
        ),
        pytest.param(
            ["frames/a.jpg", "labels/a.png"],
            {"images": "frames", "masks": "labels"},
            [("a", "", "a.jpg", "a.png")],
            id="plain folders below the root",
        ),
        pytest.param(
            ["images/train/a.jpg", "masks/train/a.png", "images/val/b.jpg", "masks/val/b.png"],
            {},
            [("a", "train", "a.jpg", "a.png"), ("b", "val", "b.jpg", "b.png")],
            id="classic",
        ),
        pytest.param(
            ["images/train/a.jpg", "masks/train/a.json", "images/train/b.jpg", "masks/train/b.json"],
            {},
            [("a", "train", "a.jpg", "a.json"), ("b", "train", "b.jpg", "b.json")],
            id="labelme",
        ),
        pytest.param(
            ["valid/x/a.jpg", "valid/_annotations.coco.json", "train/b.jpg", "train/_annotations.coco.json"],
            {"images": "{split}/{folder}/{name}.jpg", "masks": "{split}/_annotations.coco.json"},
            [("b", "train", "b.jpg", "_annotations.coco.json"), ("x/a", "valid", "a.jpg", "_annotations.coco.json")],
            id="COCO of each split",
        ),
        pytest.param(
            ["k/a.jpg", "k/a.json", "b.jpg", "b.json"],
            {"images": "{folder}/{name}.jpg", "masks": "{folder}/{name}.json"},
            [("b", "", "b.jpg", "b.json"), ("k/a", "", "a.jpg", "a.json")],
            id="labelme next to photos",
        ),
    ],
)  # fmt: skip
def test_pairs__are_found(
    tmp_path: Path, files: list[str], facts: dict[str, Any], expected: list[Any], archive: bool
) -> None:
    root = make(tmp_path / "data", *files)
    pairs = found(root=zipped(root) if archive else root, **facts)
    assert names_of(pairs) == expected
    assert pairs.missing == {"masks": []}
    assert pairs.orphans == {"masks": []}


def test_depth__is_found_by_a_template(tmp_path: Path) -> None:
    root = make(tmp_path, "frame-1.color.png", "frame-1.depth.png", "frame-1.pose.txt", "camera.txt")
    pairs = found(root=root, images="frame-{name}.color.png", depth="frame-{name}.depth.png")
    assert names_of(pairs, "depth") == [("1", "", "frame-1.color.png", "frame-1.depth.png")]
    assert {path.name: why for path, why in pairs.passed_over.items()} == {
        "frame-1.pose.txt": "no template matches its name",
        "camera.txt": "no template matches its name",
    }


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
def test_litter__is_counted(tmp_path: Path, archive: bool) -> None:
    root = make(tmp_path / "data", "images/a.jpg", "images/._a.jpg", "masks/a.png", "masks/._a.png", "masks/Thumbs.db",
                "images/.DS_Store", "images/__MACOSX/x.jpg")  # fmt: skip
    pairs = found(root=zipped(root) if archive else root, images="images", masks="masks")
    assert (len(pairs.pairs), pairs.litter, pairs.passed_over) == (1, 5, {})


@pytest.mark.parametrize(("photo", "mask"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_names__are_matched_in_either_unicode_form(tmp_path: Path, photo: str, mask: str) -> None:
    root = make(tmp_path, f"{photo}/{photo}_image.png", f"{mask}/{mask}_mask.png")
    pairs = found(root=root, images="{folder}/{name}_image.png", masks="{folder}/{name}_mask.png")
    assert [(pair.name, len(pair.targets["masks"])) for pair in pairs.pairs] == [("caf\u00e9/caf\u00e9", 1)]


def test_leftovers__are_listed(tmp_path: Path) -> None:
    photos = ["a.jpg", "b.jpg", "C.jpg", "c.txt", "d.jpg", "d.png", "deep/e.jpg"]
    masks = ["a.png", "c.png", "d.png", "x.png", "a.jpg"]
    root = make(tmp_path, *(f"images/{name}" for name in photos), *(f"masks/{name}" for name in masks))
    (root / "masks" / "gone.png").symlink_to(root / "nowhere.png")
    pairs = found(root=root, images="images", masks="masks")
    assert [path.name for path in pairs.missing["masks"]] == ["b.jpg"]
    assert [path.name for path in pairs.orphans["masks"]] == ["x.png"]
    assert [(one.name, other.name) for one, other in pairs.twins] == [("d.jpg", "d.png")]
    assert [(photo.name, mask.name) for photo, mask in pairs.case] == [("C.jpg", "c.png")]
    assert [path.name for path in pairs.dangling] == ["gone.png"]
    assert {path.relative_to(root).as_posix(): why for path, why in pairs.passed_over.items()} == {
        "images/c.txt": ".txt, which is not a format that is read",
        "images/deep/e.jpg": "in a subfolder, while only the files directly in the folder are read",
        "masks/a.jpg": "a lossy copy of the file next to it",
    }


def test_links__that_lead_back_are_not_followed_for_ever(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "k/a.jpg")
    (root / "k" / "again").symlink_to(root, target_is_directory=True)
    assert [pair.name for pair in found(root=root, images="{folder}/{name}.jpg").pairs] == ["k/a"]


def test_folder__of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path, *(f"{i}.jpg" for i in range(6)))
    monkeypatch.setenv("DENSEVIT_LIMITS", "files=5")
    assert "DENSEVIT_LIMITS=files=NUMBER" in refusal(lambda: found(root=root, images="{name}.jpg"))


@pytest.mark.parametrize("split", ["val", "valid", "validation"])
@pytest.mark.parametrize("facts", [{}, {"images": "images/{split}/{name}.*", "masks": "masks/{split}/{name}.*"}])
def test_split__has_the_usual_names(tmp_path: Path, split: str, facts: dict[str, str]) -> None:
    root = make(tmp_path, "images/train/a.jpg", "masks/train/a.png", "images/valid/b.jpg", "masks/valid/b.png",
                "masks/train/x.png", "images/train/y.jpg")  # fmt: skip
    pairs = found(root=root, split=split, **facts)
    assert names_of(pairs) == [("b", "valid" if facts else pairs.pairs[0].split, "b.jpg", "b.png")]
    assert (pairs.missing, pairs.orphans) == ({"masks": []}, {"masks": []})


def test_split__that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a.jpg", "test/b.jpg")
    assert refusal(lambda: found(root=root, images="{split}/{name}.jpg", split="val")) == (
        f"{root} has no split 'val'; splits found: train, test; val, valid, validation mean the same"
    )


@pytest.mark.parametrize("facts", [{"images": "{name}.jpg"}, {"images": "."}])
def test_split__of_data_without_splits_is_refused(tmp_path: Path, facts: dict[str, str]) -> None:
    root = make(tmp_path, "a.jpg")
    assert refusal(lambda: found(root=root, split="val", **facts)) == (
        f"{root} has no splits, and 'val' was named; leave the split out, set splits (shares that are drawn), or write "
        "{split} where the names of its files have it"
    )


def test_splits__are_drawn_for_photos_without(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"images/{i}.jpg" for i in range(10)))
    everything = found(root=root, splits={"val": 0.3})
    assert everything.splits() == ["train", "val"]
    val = found(root=root, splits={"val": 0.3}, split="val")
    assert [pair.name for pair in val.pairs] == [pair.name for pair in everything.pairs if pair.split == "val"]
    assert len(val.pairs) == 3


def test_root__may_have_braces_in_its_name(tmp_path: Path) -> None:
    root = make(tmp_path / "{old} *data*", "images/a.jpg", "masks/a.png")
    templates = {"images": "images/{name}.*", "masks": "masks/{name}.*"}
    assert names_of(found(root=root, **templates)) == names_of(found(root=root)) == [("a", "", "a.jpg", "a.png")]


def test_mask__of_several_photos_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "images/k/a.jpg", "images/l/a.jpg", "masks/a.png")
    message = refusal(lambda: found(root=root, images="images/{folder}/{name}.jpg", masks="masks/{name}.png"))
    assert message == (
        f"{root / 'masks' / 'a.png'} fits 2 photos, as they differ in {{folder}}, which {{name}}.png lacks; each photo "
        "needs a mask of its own"
    )


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"images": "{nome}.jpg"}, "the template {nome}.jpg has '{nome}'"),
        ({"images": "{name}.*", "masks": "{name}.*"}, "images is {name}.*, and so is a target"),
        ({"images": "{split}/photo.jpg"}, "a template of photos needs {name} or {folder}"),
        ({"images": "{class}/{name}.jpg"}, "images has {class}, which only masks may have"),
        ({"images": "{name}.jpg", "masks": "{split}/{name}.png"}, "masks has {split}, which images lacks"),
        ({"images": "{name}.jpg", "masks": "{task}.png"}, "task only with tasks"),
        ({"images": "{name}.jpg", "masks": "{class}.png"}, "it needs {name}"),
        ({"images": "{name}.jpg", "tasks": "t.json"}, "masks has no {task}"),
        ({"images": "{name}.jpg", "pairs": "p.csv"}, "pairs and images are both set"),
    ],
)
def test_config__with_templates_that_do_not_fit_is_refused(facts: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FolderConfig.parse({"root": ".", **facts})
    assert reason in str(caught.value)


@pytest.mark.parametrize("facts", [{"images": "x/{name}.jpg"}, {"images": "{name}.jpg", "masks": "x/{name}.jpg"}])
def test_folder__of_a_template_must_exist(tmp_path: Path, facts: dict[str, str]) -> None:
    message = refusal(lambda: found(root=make(tmp_path, "a.jpg"), **facts))
    assert message.startswith(f"there is no folder {tmp_path / 'x'}, in which {{name}}.jpg should find a ")


def test_twins__of_another_split_do_not_matter(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a.jpg", "train/a.png", "val/b.jpg")
    assert len(found(root=root, images="{split}/{name}.*").twins) == 1
    assert found(root=root, images="{split}/{name}.*", split="val").twins == []


def test_dataset__says_which_names_differ_in_case(tmp_path: Path) -> None:
    root = make(tmp_path, "images/A.jpg", "masks/a.png")
    message = refusal(lambda: FolderDataset(FolderConfig(root=root)))
    assert message.endswith("(upper and lower case differ in A.jpg and a.png)")


def test_images__that_no_file_matches_are_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "a.png")
    message = refusal(lambda: FolderDataset(FolderConfig(root=root, images=Path("{name}_image.png"))))
    assert message.startswith(f"no photo matches {root}/{{name}}_image.png (among 1 other files: a.png)")


def write(path: Path, pixels: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
def test_dataset__reads_what_templates_find(tmp_path: Path, archive: bool) -> None:
    for folder, value in (("k", 1), ("l", 2)):
        write(tmp_path / "data" / folder / "a_image.png", np.full((2, 3, 3), 10 * value))
        write(tmp_path / "data" / folder / "a_mask.png", np.full((2, 3), value))
    root = zipped(tmp_path / "data") if archive else tmp_path / "data"
    config = FolderConfig.parse(
        {"root": root, "images": "{folder}/{name}_image.*", "masks": "{folder}/{name}_mask.*", "classes": 3}
    )
    samples = [FolderDataset(config)[i] for i in range(2)]
    assert [sample.name for sample in samples] == ["k/a", "l/a"]
    assert [int(sample.image[0, 0, 0]) for sample in samples] == [10, 20]
    assert [int(sample.labels[0, 0]) for sample in samples if sample.labels is not None] == [1, 2]


def test_dataset__needs_a_split_where_there_are_some(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.png", np.zeros((2, 2, 3)))
    config = FolderConfig.parse({"root": tmp_path, "images": "{split}/{name}.png"})
    assert refusal(lambda: FolderDataset(config)) == (
        f"{tmp_path} has splits and none was named; splits found: train; name one"
    )


def test_dataset__refuses_photos_without_a_mask(tmp_path: Path) -> None:
    root = make(tmp_path, "a_image.png", "a_mask.png", "b_image.png")
    config = FolderConfig.parse({"root": root, "images": "{name}_image.*", "masks": "{name}_mask.*"})
    assert refusal(lambda: FolderDataset(config)).startswith(
        f"1 of 2 photos have no mask in {root}/{{name}}_mask.*, for example b_image.png; "
    )


@pytest.mark.parametrize("masks", ["{name}.png", "m/{class}/{name}.png"])
def test_name__that_is_no_unicode_is_refused(tmp_path: Path, masks: str) -> None:
    odd = os.fsdecode(b"\xe9")
    for name in ("a", odd):
        save(tmp_path / "images" / f"{'a' if '{class}' in masks else name}.png", noise(0))
        save(tmp_path / masks.format_map({"class": name, "name": "a" if "{class}" in masks else name}), truth(0))
    config = FolderConfig(root=tmp_path, images=Path("images/{name}.png"), masks=Path(masks))
    with pytest.raises(DataError, match=r"is not Unicode text"):
        find_pairs(config)
