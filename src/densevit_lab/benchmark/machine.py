"""What a record must say of the machine and the programs, and the machine's own rate of multiplying matrices."""

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.kernels.linear import onednn_product

GEMM_SHAPES = ((1025, 384, 1536), (1025, 768, 3072), (1025, 3072, 768), (1025, 1024, 4096), (1025, 4096, 1024))
"""(tokens, in, out) of the MLP layers of ViT-S, -B and -L on a photo of 512 x 512 with patches of 16."""

PACKAGES = (
    "torch", "torchvision", "numpy", "pillow", "timm", "transformers", "segmentation-models-pytorch", "mmsegmentation",
    "mmengine", "mmcv-lite", "opencv-python", "openvino", "onnxruntime", "numba",
)  # fmt: skip


def facts() -> dict[str, Any]:
    """CPU, cores, memory and versions, as plain data: what does not change from one case to the next."""
    return {
        "cpu": cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _total_memory(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "densevit": _version("densevit"),
    }


def occasion(arguments: Sequence[str] | None = None, *, program: str = "densevit") -> dict[str, Any]:
    """Commit, time, load and command line, as plain data: what may be another for every case.

    Of absolute paths the names alone are kept: a record is to be published, and the folders of a machine tell nobody.
    """
    words = [program, *(sys.argv[1:] if arguments is None else arguments)]
    return {
        "commit": commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "command": [Path(word).name if Path(word).is_absolute() else word for word in words],
    }


def cpu_model() -> str:
    """The name that the processor gives itself."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of this source tree, with "+" if files differ from it; None outside a clone."""
    folder = Path(__file__).parent
    try:
        head, changes = (
            subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "")


def gemm_rates(seconds: float = 0.25) -> dict[str, list[float]]:
    """Floating-point operations per CPU second of float32 matrix products with one thread.

    Args:
        seconds: to spend on each shape and library.

    Returns:
        Every sample by shape, "tokens x in x out", and library unless it is torch's choice; the machine's peak is the
        largest of all.
    """
    products: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"": F.linear}
    if (onednn := onednn_product()) is not None:
        products[" oneDNN"] = lambda x, weight: onednn(x, weight, None, "none", [], "")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            "x".join(map(str, shape)) + name: _rates(product, *shape, seconds)
            for shape in GEMM_SHAPES
            for name, product in products.items()
        }
    finally:
        torch.set_num_threads(threads)


def _rates(
    product: Callable[[Tensor, Tensor], Tensor], tokens: int, width: int, out: int, seconds: float
) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(shape, generator=generator) for shape in ((tokens, width), (out, width)))
    rates: list[float] = []
    with torch.inference_mode():
        product(x, weight)
        end = time.perf_counter() + seconds
        while len(rates) < 3 or time.perf_counter() < end:
            began = time.process_time()
            product(x, weight)
            rates.append(2 * tokens * width * out / max(time.process_time() - began, 1e-9))
    return rates


def _total_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
