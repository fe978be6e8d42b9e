"""Photos with depth or other values."""

import io
from pathlib import Path

import numpy as np

from tests.layouts.making import SIZE, depth_mm, layout, photo, save, write


@layout(
    images="{name}.color.png",
    depth="{name}.depth.png",
    said=("millimetres", "depth_unit_m", "6 .txt"),
    truth=None,
)
def rgbd_frames(root: Path) -> None:
    for i in range(6):
        save(root / f"frames/frame-{i:06}.color.png", photo(i))
        save(root / f"frames/frame-{i:06}.depth.png", depth_mm(i))
        write(root / f"frames/frame-{i:06}.pose.txt", "1 0 0 0")


@layout(
    images="{folder}/rgb/{name}.png",
    depth="{folder}/depth/{name}.png",
    depth_unit_m=0.0002,
    depth_invalid=(65535.0,),
    said=("1/5000 m", "65535"),
    truth=None,
)
def scenes_with_depth(root: Path) -> None:
    for i in range(6):
        depth = depth_mm(i) * 10
        depth[:3] = 65535
        save(root / ("kitchen", "office")[i % 2] / f"rgb/{i:04}.png", photo(i))
        save(root / ("kitchen", "office")[i % 2] / f"depth/{i:04}.png", depth)


@layout(images="images/{name}.png", values="normals/{name}.npy", normals=True, said=("surface normals",), truth=None)
def surface_normals(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i}.png", photo(i))
        buffer = io.BytesIO()
        np.save(buffer, np.random.default_rng(i).normal(size=(*SIZE, 3)).astype(np.float32))
        (root / "normals").mkdir(exist_ok=True)
        (root / f"normals/{i}.npy").write_bytes(buffer.getvalue())


@layout(images="{folder}/{name}.png", depth="{folder}/{name}_depth.npy", said=("metres",), truth=None)
def depth_of_one_channel(root: Path) -> None:
    for i in range(6):
        save(root / f"scan_{i}/view_{i}.png", photo(i))
        np.save(root / f"scan_{i}/view_{i}_depth.npy", (depth_mm(i) / 1000).astype(np.float32)[..., None])


@layout(
    images="rgb/{name}.png",
    depth="depth/{name}.png",
    nearest=0.02,
    missing_targets="leave_out",
    said=("the depth that is nearest in time", "left out: 1 photo"),
    truth=None,
)
def time_stamps(root: Path) -> None:
    for i in range(6):
        save(root / f"rgb/130503110{i}.17530{i}.png", photo(i))
        save(root / f"depth/130503110{i}.16{i}004.png", depth_mm(i))
    save(root / "rgb/1305031109.000000.png", photo(9))
    write(root / "rgb.txt", "# timestamp filename")
