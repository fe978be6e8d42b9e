"""Makers of hostile files: from a seed, a folder with one odd thing in it and the command that meets it."""

import contextlib
import io
import json
import os
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.e2e.runs import write_run
from tests.e2e.scenes import CLASSES, write_model
from tests.layouts import LAYOUTS, pack

Words = list[str]
Generator = Callable[[random.Random, Path], Words]

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")
_NUMBERS = (0, -1, 1, 2, 255, 256, 65535, 2**31, 2**63, 10**30, 1e308, float("inf"), float("nan"), -0.0, 1e-320)
_ODD_NAMES = ("<script>.png", "\x1b[2J.png", "a\nb.png", "e\u0301.png", "\u00e9.png", "a" * 240 + ".png", "[x].png",
              "%.png", "#.png", "-o.png", "a.json.png", "\u202egnp.png", " .png", "'.png", "\udce9.png")  # fmt: skip
_ODD = (None, True, "", "x" * 5000, "\0", "\ud800", [], {}, [[]], "2026-02-30", *_NUMBERS)


@dataclass(frozen=True)
class Scene:
    """What all commands need: a small model, made once."""

    model: Path

    @classmethod
    def make(cls, folder: Path) -> "Scene":
        """Write the model."""
        write_model(folder / "model.safetensors", "segmenter")
        return cls(folder / "model.safetensors")


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes that were cut, flipped, doubled, or whose numbers were exaggerated."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        at = rng.randrange(max(len(out), 1))
        match rng.randrange(6):
            case 0:
                del out[at:]
            case 1:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 2:
                out[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice((0, 1, 31000, 2**31 - 1, 2**32 - 1)))
            case 3:
                out[at:at] = out[at : at + rng.randrange(1, 64)]
            case 4:
                out[at : at + 2] = struct.pack(rng.choice("<>") + "H", rng.choice((0, 1, 30000, 65535)))
            case _:
                del out[at : at + rng.randrange(1, 16)]
    return bytes(out)


def odd_json(rng: random.Random, value: object) -> object:
    """The value with one part replaced by something odd, dropped, or nested without end."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: odd_json(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], odd_json(rng, value[at]), *value[at + 1 :]]
    return rng.choice(_ODD)


def json_text(rng: random.Random, value: object) -> bytes:
    """An odd form of the value as text, which need not be JSON any more."""
    text = json.dumps(odd_json(rng, value))
    match rng.randrange(8):
        case 0:
            text = text.replace("0", "9" * 5000, 1)
        case 1:
            text = "[" * 100_000 + text
        case 2:
            return damaged(rng, text.encode("utf-8", "surrogatepass"))
        case _:
            pass
    return text.encode("utf-8", "surrogatepass")


def photo(rng: random.Random, kind: str = "PNG", size: tuple[int, int] = (40, 56), mode: str = "RGB") -> bytes:
    """A small picture in a format."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 256) if mode == "I;16" else image.convert(mode)
    image.save(buffer, format=kind)
    return buffer.getvalue()


def false_png(rng: random.Random) -> bytes:
    """A PNG whose header claims what its pixels do not hold, with right checksums."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = rng.choice((0, 1, 64, 31000, 2**31 - 1)), rng.choice((1, 64, 31000))
    header = struct.pack(">IIBBBBB", *size, rng.choice((1, 8, 16)), rng.choice((0, 2, 3, 4, 6)), 0, 0, rng.randrange(2))
    pixels = zlib.compress(bytes(rng.randrange(0, 10_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def images(rng: random.Random, folder: Path) -> Words:
    """A folder of photos, one of them damaged or false."""
    kind = rng.choice(_FORMATS)
    data = false_png(rng) if rng.random() < 0.25 else damaged(rng, photo(rng, kind))
    suffix = rng.choice((".png", ".jpg", ".tif", ".gif"))
    _put(folder / "photos" / f"odd{suffix}", data)
    _put(folder / "photos" / "good.png", photo(rng))
    extra = rng.choice(([], ["--window", "32"], ["--flip"], ["--scales", "0.5,1"], ["--stream"]))
    return ["predict", str(folder / "photos"), "--out", str(folder / "out"), "--gallery", *extra]


def masks(rng: random.Random, folder: Path) -> Words:
    """A data set with one odd mask."""
    root = _data_set(rng, folder)
    odd = root / "masks" / "val" / "0.png"
    match rng.randrange(4):
        case 0:
            odd.write_bytes(damaged(rng, odd.read_bytes()))
        case 1:
            odd.write_bytes(photo(rng, mode=rng.choice(("RGB", "L", "LA", "1", "I;16", "P"))))
        case 2:
            odd.unlink()
            np.save(odd.with_suffix(".npy"), _odd_array(rng))
        case _:
            odd.write_bytes(false_png(rng))
    return rng.choice((["doctor", str(root), "--workers", "0"], ["evaluate", "--data", str(root), "--split", "val"]))


def depths(rng: random.Random, folder: Path) -> Words:
    """A data set with one odd depth map."""
    root = folder / "data"
    for name in ("0", "1"):
        _put(root / "images" / "val" / f"{name}.png", photo(rng))
        _put(root / "depth" / "val" / f"{name}.npy", b"")
        np.save(root / "depth" / "val" / f"{name}.npy", np.full((40, 56), 2.0, np.float32))
    odd = root / "depth" / "val" / "0.npy"
    if rng.random() < 0.5:
        np.save(odd, _odd_array(rng))
    else:
        odd.write_bytes(damaged(rng, odd.read_bytes()))
    return ["doctor", str(root), "--workers", "0"]


def annotations(rng: random.Random, folder: Path) -> Words:
    """A data set with odd classes.json, COCO annotations or labelme files."""
    root = _data_set(rng, folder)
    classes = {"classes": list(CLASSES), "ignore_index": 255}
    shapes = {
        "imageHeight": 40,
        "imageWidth": 56,
        "shapes": [{"label": CLASSES[0], "points": [[1, 1], [9, 9], [1, 9]]}],
    }
    coco = {
        "images": [{"id": 1, "file_name": "0.png", "height": 40, "width": 56}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 0}],
        "categories": [{"id": 1, "name": CLASSES[0]}],
    }
    match rng.randrange(3):
        case 0:
            (root / "classes.json").write_bytes(json_text(rng, classes))
        case 1:
            for name in ("0", "1"):
                (root / "masks" / "val" / f"{name}.png").unlink()
                _put(root / "masks" / "val" / f"{name}.json", json_text(rng, shapes))
        case _:
            for name in ("0", "1"):
                (root / "masks" / "val" / f"{name}.png").unlink()
            _put(root / "annotations" / "val.json", json_text(rng, coco))
    return rng.choice((["doctor", str(root), "--workers", "0"], ["evaluate", "--data", str(root), "--split", "val"]))


def configs(rng: random.Random, folder: Path) -> Words:
    """A YAML config of a merge or of a speed setting, with odd scalars, anchors or nesting."""
    lines = {
        0: f"heads: {{a: {{checkpoint: {rng.choice(_ODD)!r}, head: a}}}}",
        1: "b0: &b0 [x, x, x]\n" + "\n".join(f"b{i}: &b{i} [" + f"*b{i - 1}, " * 9 + "x]" for i in range(1, 12)),
        2: "[" * 5000,
        3: f"patch_size: {rng.choice(('2026-02-30', '0x_', '!!timestamp x', '!!bool x', '9' * 5000, '.inf', '1e400'))}",
        4: f"merging: {{kind: tome, r: {rng.choice(_ODD)!r}}}",
        5: f"short_side: {rng.choice((10**9, 0, -5, 2**70, '.nan'))}",
    }  # fmt: skip
    _put(folder / "c.yaml", damaged(rng, lines[rng.randrange(6)].encode("utf-8", "surrogatepass")))
    if rng.random() < 0.4:
        (folder / "c.yaml").write_bytes(lines[rng.randrange(6)].encode("utf-8", "surrogatepass"))
    _put(folder / "p.png", photo(rng))
    predict = ["predict", str(folder / "p.png"), "--out", str(folder / "out"), "--speed", str(folder / "c.yaml")]
    return rng.choice((predict, ["merge", "--config", str(folder / "c.yaml"), "--out", str(folder / "m.safetensors")]))


def checkpoints(rng: random.Random, folder: Path, *, scene: Scene) -> Words:
    """A native checkpoint whose config, weights or bytes are odd, or a hostile pickle."""
    _put(folder / "p.png", photo(rng))
    source = folder / "m.safetensors"
    data = scene.model.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    match rng.randrange(4):
        case 0:
            source.write_bytes(damaged(rng, data))
        case 1:
            config = odd_json(rng, json.loads(header["__metadata__"]["densevit"]))
            header["__metadata__"]["densevit"] = json.dumps(config)
            text = json.dumps(header).encode()
            source.write_bytes(struct.pack("<Q", len(text)) + text + body)
        case 2:
            name = rng.choice([key for key in header if key != "__metadata__"])
            header[name] = odd_json(rng, header[name])
            text = json.dumps(header).encode("utf-8", "surrogatepass")
            source.write_bytes(struct.pack("<Q", len(text)) + text + body)
        case _:
            source = folder / "m.pth"
            state = {"head.weight": torch.full((3, 4), rng.choice((1.0, float("nan")))), "epoch": rng.choice(_ODD[:4])}
            buffer = io.BytesIO()
            torch.save(state, buffer, _use_new_zipfile_serialization=rng.random() < 0.5)
            hostile = rng.choice((buffer.getvalue(), pickle.dumps({"a": [1] * 1000}), _zip_of_zeros()))
            source.write_bytes(damaged(rng, hostile))
    if rng.random() < 0.5:
        return ["convert", str(source), str(folder / "out.safetensors")]
    return ["predict", str(folder / "p.png"), "--out", str(folder / "out"), "--model", str(source)]


def names(rng: random.Random, folder: Path) -> Words:
    """Photos with odd names: control characters, other encodings, markup, long, or equal but for their form."""
    for name in rng.sample(_ODD_NAMES, 4):
        _put(folder / "photos" / name, photo(rng))
    out = ["--out", str(folder / "out"), "--gallery", "--json", str(folder / "all.json")]
    if rng.random() < 0.3:
        return ["doctor", "--images", str(folder / "photos"), "--workers", "0", "--html", str(folder / "d.html")]
    return ["predict", str(folder / "photos"), *out]


def layouts(rng: random.Random, folder: Path) -> Words:
    """A data set in one of the layouts of people and tools, some of its files damaged, gone, renamed or joined."""
    root = folder / "theirs"
    LAYOUTS[rng.choice([*LAYOUTS])].make(root)
    for _ in range(rng.choice((1, 1, 2, 4))):
        files = sorted(path for path in root.rglob("*") if path.is_file())
        if files:
            rng.choice(_DAMAGES)(rng, root, rng.choice(files))
    data = root
    if rng.random() < 0.2:
        with contextlib.suppress(OSError, ValueError):  # links that lead nowhere, names that no archive has
            data = pack(root)
    options = rng.choice(_OPTIONS) if rng.random() < 0.3 else []
    if rng.random() < 0.5:
        out = ["--write", str(folder / "data.yaml"), "--workers", "0", "--html", str(folder / "d.html")]
        copy = ["--write-fixed", str(folder / "fixed")] if rng.random() < 0.3 else []
        return ["doctor", str(data), *out, *copy, *options]
    head = rng.choice(("segmentation", "segmentation", "depth"))
    config = write_run(folder / "run.yaml", None, head=head, iterations=1, pictures=0)
    check = rng.choice(([], ["--no-check"]))
    return ["train", "--config", str(config), "--data", str(data), "--out", str(folder / "run"), *check, *options]


def _gone(_: random.Random, __: Path, file: Path) -> None:
    file.unlink()


def _cut(rng: random.Random, _: Path, file: Path) -> None:
    file.write_bytes(damaged(rng, file.read_bytes()))


def _renamed(rng: random.Random, _: Path, file: Path) -> None:
    name = rng.choice((file.name.upper(), file.name.swapcase(), *_ODD_NAMES, f"{file.stem} (1){file.suffix}"))
    file.rename(file.with_name(name))


def _moved(rng: random.Random, root: Path, file: Path) -> None:
    place = root / rng.choice(("train", "val", "Test", "old", "a/b/c", "masks", "images")) / file.name
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_dir():
        file.rename(place)


def _twin(rng: random.Random, _: Path, file: Path) -> None:
    suffix = rng.choice((".png", ".jpg", ".JPG", ".tif", ".npy", ".json", ".txt", "", ".zip", ".yaml"))
    copy = file.with_suffix(suffix)
    if not copy.exists():
        copy.write_bytes(file.read_bytes())


def _other_pixels(rng: random.Random, _: Path, file: Path) -> None:
    size = rng.choice(((24, 32), (32, 24), (48, 64), (1, 1)))
    file.write_bytes(photo(rng, size=size, mode=rng.choice(("RGB", "L", "LA", "RGBA", "1", "I;16", "P"))))


def _other_table(rng: random.Random, root: Path, file: Path) -> None:
    """Change the nearest text file, or write one of those that have a meaning."""
    texts = [path for path in root.rglob("*") if path.suffix in {".json", ".txt", ".csv"} and path.is_file()]
    if texts and rng.random() < 0.7:
        text = rng.choice(sorted(texts))
        try:
            value = json.loads(text.read_bytes())
        except (ValueError, RecursionError):  # of nested lists by an earlier damage
            lines = text.read_bytes().split(b"\n")
            lines[rng.randrange(len(lines))] = rng.choice((b"", b"::", b"a,b,c,d", b"x:1,2:", b"\xff\xfe", b"9" * 5000))
            text.write_bytes(b"\n".join(lines))
        else:
            text.write_bytes(json_text(rng, value))
        return
    name, content = rng.choice(_TABLES)
    (file.parent if rng.random() < 0.3 else root).joinpath(name).write_bytes(content)


def _odd_place(rng: random.Random, root: Path, file: Path) -> None:
    """A folder named as a file, or a link that leads nowhere or up."""
    place = file.with_name(f"{rng.choice(('_', '9'))}{file.name}")
    if os.path.lexists(place):  # an earlier damage
        return
    match rng.randrange(3):
        case 0:
            place.mkdir(exist_ok=True)
        case 1:
            place.symlink_to(root.parent / "nowhere")
        case _:
            place.symlink_to(root, target_is_directory=True)


_DAMAGES = (_gone, _cut, _renamed, _moved, _twin, _other_pixels, _other_table, _other_table, _odd_place)
_TABLES: tuple[tuple[str, bytes], ...] = (
    ("dataset.yaml", b"images: images/{name}.png\nmasks: {name}\n"),
    ("dataset.yaml", b"path: ../coco\ntrain: images\nnames: [a, b]\n"),
    ("dataset.yaml", b"kind: folder\nclasses: 9999999999\n"),
    ("dataset.yaml", b"splits: {names: {train: [x], val: [x]}}\n"),
    ("classes.json", b'{"classes": ["a", "a"]}'),
    ("classes.json", b"[]"),
    ("labelmap.txt", b"# label:color_rgb:parts:actions\nbackground:0,0,0::\nx:300,0,0::\n"),
    ("labelmap.txt", b"\xff\xfe\x00"),
    ("_classes.csv", b"Pixel Value, Class\nx, y\n"),
    ("_classes.csv", b"Pixel Value, Class\n0, a\n0, b\n-5, c\n"),
    ("class_dict.csv", b"name,r,g,b\na,1,2\n"),
    ("classes.txt", b"a\n\na\n"),
    ("train.txt", b"../../etc/passwd\n \n"),
    ("val.txt", b"0\n0\n0\n"),
    ("project.json", b'[{"id": null, "data": {}}]'),
    ("result.json", b'{"images": [], "annotations": [], "categories": []}'),
)
_OPTIONS: tuple[Words, ...] = (
    ["--images", "{name"],
    ["--images", "{split}/{split}/{name}.png"],
    ["--masks", "{name}.png"],
    ["--masks", "masks"],
    ["--masks", "../{name}.*"],
    ["--masks", "{class}/{name}.png"],
    ["--images", "*", "--masks", "*"],
    ["--depth", "depth"],
    ["--split-by", "("],
    ["--split-by", r"\d"],
    ["--split-by", "x*"],
    ["--classes", "a,b"],
    ["--classes", "999999"],
    ["--background", "sea"],
    ["--reduce-zero-label"],
    ["--dataset", "cityscapes"],
)

GENERATORS: dict[str, Generator] = {
    "images": images,
    "masks": masks,
    "depths": depths,
    "annotations": annotations,
    "configs": configs,
    "names": names,
    "layouts": layouts,
}
"""The makers, apart from ``checkpoints``, which starts from the model of a scene."""


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _data_set(rng: random.Random, folder: Path) -> Path:
    root = folder / "data"
    for name in ("0", "1"):
        _put(root / "images" / "val" / f"{name}.png", photo(rng))
        _put(root / "masks" / "val" / f"{name}.png", photo(rng, mode="L"))
        labels = np.random.default_rng(rng.randrange(2**32)).integers(0, len(CLASSES), (40, 56), dtype=np.uint8)
        Image.fromarray(labels).save(root / "masks" / "val" / f"{name}.png")
    (root / "classes.json").write_text(json.dumps({"classes": list(CLASSES), "ignore_index": 255}))
    return root


def _odd_array(rng: random.Random) -> np.ndarray:
    shape = rng.choice(((40, 56), (40, 56, 1), (40, 56, 2), (0, 5), (), (3,), (56, 40), (1, 40, 56)))
    kind = rng.choice(("f4", "f8", "f2", "u1", "i8", "u8", "?", "c8", "S3"))
    values = np.full(shape, rng.choice((0, 1, -1, 3, 200)), "i8")
    array = values.astype(kind)
    if array.dtype.kind == "f" and array.size:
        array.flat[0] = rng.choice((np.nan, np.inf, -np.inf, 60000.0))
    return array


def _zip_of_zeros() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(5_000_000))
    return buffer.getvalue()
