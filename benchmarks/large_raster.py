"""Peak memory of streaming rasters of growing size, each in a process of its own.

    python benchmarks/large_raster.py --sizes 2048 8192 32768 --json large_raster.json
    python benchmarks/large_raster.py --sizes 32000 --kill --json large_raster-32000.json

With ``--kill`` every raster is streamed once more: the process is killed by SIGKILL when half of the strips are done,
started again, and its result compared with that of the run that nobody disturbed, pixel by pixel.

The model is tiny, so that the figures are those of reading, blending and writing; add the size of a real one and of
its activations for one window. The rasters are noise that repeats, stored in tiles, and are made in a few seconds.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WINDOW, OVERLAP, CLASSES, BLOCK = 512, 64, 19, 512


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
    from densevit.inference_config import InferenceConfig
    from densevit.tasks import Segmentation

    torch.manual_seed(0)
    positions = {"kind": "learned", "grid": (32, 32), "num_prefix": 1}
    encoder = {"embed_dim": 32, "depth": 1, "num_heads": 1, "patch_size": 16, "positions": positions, "taps": [0]}
    heads = {"main": {"decoder": {"kind": "segmenter_linear"}, "out_channels": CLASSES}}
    model = DenseModel(ModelConfig.parse({"encoder": encoder, "heads": heads})).eval()
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter)
    task = Segmentation(classes=tuple(f"class {i}" for i in range(CLASSES)))
    return Predictor(Bundle(model, {"main": task}, InferenceConfig(short_side=WINDOW), Card()), device="cpu")


def child(source: Path, folder: Path) -> None:
    """Stream one raster and print what it took."""
    import torch

    from densevit.device import returning_large_buffers
    from densevit.inference.raster.job import RasterConfig
    from densevit.inference.sliding_window import SlidingWindow
    from densevit.memory import peak_bytes

    torch.set_num_threads(1)
    predictor = make_predictor()
    before, began, cpu = peak_bytes(), time.perf_counter(), time.process_time()
    windows = SlidingWindow(window=WINDOW, overlap=OVERLAP, blend="hann")
    with returning_large_buffers():  # as the command line does
        record = predictor.predict_raster(source, folder, config=RasterConfig(windows=windows))
    row = {
        "side": record["width"],
        "peak_mb": peak_bytes() // 2**20,
        "before_mb": before // 2**20,
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "classes_seen": sum(share > 0 for share in record["heads"]["main"]["shares"].values()),
    }
    sys.stdout.write(json.dumps(row) + "\n")


def start(source: Path, folder: Path) -> subprocess.Popen:
    """A process that streams a raster."""
    command = [sys.executable, __file__, "--child", str(source), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> dict:
    """What such a process measured, once it has ended."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the process ended with status {process.returncode}")
    return json.loads(output.splitlines()[-1])


def kill_half_way(source: Path, folder: Path, strips: int) -> dict:
    """Start a run, and end it by SIGKILL when half of its strips are kept; what it left behind."""
    process = start(source, folder)
    kept = 0
    while kept < strips // 2 and process.poll() is None:
        time.sleep(0.05)
        kept = len(list(folder.glob(".*/*.strip")))
    process.kill()
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise SystemExit(f"the process ended with status {process.returncode} before it was killed")
    results = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return {"killed_with_strips": kept, "of_strips": strips, "results_after_kill": results}


def differing_pixels(a: Path, b: Path) -> int:
    """Pixels in which two rasters differ; georeference, type and size must be equal."""
    import numpy as np
    import rasterio

    with rasterio.Env(GDAL_CACHEMAX=64 * 2**20), rasterio.open(a) as first, rasterio.open(b) as second:
        facts = [(r.shape, r.dtypes, r.crs, r.transform, r.nodata) for r in (first, second)]
        if facts[0] != facts[1]:
            raise SystemExit(f"the rasters are of different kinds: {facts}")
        return sum(
            int(np.count_nonzero(first.read(window=window) != second.read(window=window)))
            for _, window in first.block_windows(1)
        )


def main() -> None:
    """Measure every size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--kill", action="store_true", help="stream once more, with a SIGKILL half way")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(*given.child)
        return
    rows = []
    for side in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            source, whole, again = (Path(folder, name) for name in ("big.tif", "whole", "again"))
            make_raster(source, side)
            row = finish(start(source, whole))
            if given.kill:
                row |= kill_half_way(source, again, -(-side // BLOCK))
                resumed = finish(start(source, again))
                row["resumed"] = {key: resumed[key] for key in ("peak_mb", "seconds", "cpu_seconds")}
                labels = [sorted(place.glob("*.tif")) for place in (whole, again)]
                row["differing_pixels"] = [differing_pixels(a, b) for a, b in zip(*labels, strict=True)]
                row["compared"] = [path.name for path in labels[0]]
        rows.append(row)
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
    if given.json:
        from densevit_lab.benchmark.machine import facts as machine_facts
        from densevit_lab.benchmark.machine import occasion

        facts = {"machine": machine_facts(), "occasion": occasion(program=sys.argv[0])}
        record = {**facts, "window": WINDOW, "overlap": OVERLAP, "classes": CLASSES, "rows": rows}
        given.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
