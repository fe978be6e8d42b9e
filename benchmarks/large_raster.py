"""Peak memory of streaming rasters of growing size, each in a process of its own.

    python benchmarks/large_raster.py --sizes 2048 8192 32768 --json large_raster.json

The model is tiny, so that the figures are those of reading, blending and writing; add the size of a real one and of
its activations for one window. The rasters are noise that repeats, stored in tiles, and are made in a few seconds.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WINDOW, OVERLAP, CLASSES = 512, 64, 19


def make_raster(path: Path, side: int) -> None:
    """A georeferenced RGB raster, block by block."""
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)
    blocks = coarse.repeat(32, axis=2).repeat(32, axis=3)  # (8, 3, 512, 512)
    profile = {
        "driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint8", "crs": "EPSG:32633",
        "transform": from_origin(500000, 5000000, 0.5, 0.5), "tiled": True, "blockxsize": 512, "blockysize": 512,
        "compress": "deflate", "zlevel": 1, "bigtiff": "if_safer", "photometric": "rgb",
    }  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=64 * 2**20), rasterio.open(path, "w", **profile) as dataset:
        for top in range(0, side, 512):
            for left in range(0, side, 512):
                rows, columns = min(512, side - top), min(512, side - left)
                block = blocks[(7 * top // 512 + 3 * left // 512) % 8][:, :rows, :columns]
                dataset.write(block, window=((top, top + rows), (left, left + columns)))


def make_predictor():
    """A Segmenter of width 32 and one block, whose classifier tells patches apart."""
    import torch

    from densevit.checkpoints.native import Bundle, Card
    from densevit.inference.predictor import Predictor
    from densevit.model import DenseModel, ModelConfig
    from densevit.pixels import FitConfig
    from densevit.tasks import Segmentation

    torch.manual_seed(0)
    positions = {"kind": "learned", "grid": (32, 32), "num_prefix": 1}
    encoder = {"embed_dim": 32, "depth": 1, "num_heads": 1, "patch_size": 16, "positions": positions, "taps": [0]}
    heads = {"main": {"decoder": {"kind": "segmenter_linear"}, "out_channels": CLASSES}}
    model = DenseModel(ModelConfig.parse({"encoder": encoder, "heads": heads})).eval()
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter)
    task = Segmentation(classes=tuple(f"class {i}" for i in range(CLASSES)))
    return Predictor(Bundle(model, {"main": task}, FitConfig(short_side=WINDOW), Card()), device="cpu")


def child(source: Path, folder: Path) -> None:
    """Stream one raster and print what it took."""
    import torch

    from densevit.allocator import return_large_buffers
    from densevit.inference.raster import RasterConfig
    from densevit.inference.windows import WindowConfig

    return_large_buffers()  # as the command line does
    torch.set_num_threads(1)
    predictor = make_predictor()
    before, began, cpu = peak_mb(), time.perf_counter(), time.process_time()
    windows = WindowConfig(window=WINDOW, overlap=OVERLAP, blend="hann")
    record = predictor.predict_raster(source, folder, config=RasterConfig(windows=windows))
    row = {
        "side": record["width"],
        "peak_mb": peak_mb(),
        "before_mb": before,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "classes_seen": sum(share > 0 for share in record["heads"]["main"]["shares"].values()),
    }
    sys.stdout.write(json.dumps(row) + "\n")


def peak_mb() -> int:
    """Of this process so far, resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Measure every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    rows = []
    for side in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "big.tif")
            make_raster(source, side)
            command = [sys.executable, __file__, "--child", str(source), str(Path(folder, "out"))]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
        sys.stdout.write(f"{rows[-1]}\n")
        sys.stdout.flush()
    if given.json:
        facts = {"machine": platform.processor() or platform.machine(), "python": platform.python_version()}
        record = {"command": sys.argv, **facts, "window": WINDOW, "overlap": OVERLAP, "classes": CLASSES, "rows": rows}
        given.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
