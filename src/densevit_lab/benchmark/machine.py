"""The machine, the programs and the run, as a record describes them; the machine's rate of matrix products."""

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


def describe_machine() -> dict[str, Any]:
    """CPU, cores, memory and versions, as plain data: the same for all cases of a run."""
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "cpu": _cpu_model(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _total_memory(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version for name, version in versions.items() if version is not None},
        "densevit": _version("densevit"),
    }


def describe_run(arguments: Sequence[str] | None = None, *, program: str = "densevit") -> dict[str, Any]:
    """Commit, time, load and command line, as plain data: these may differ from case to case.

    Absolute paths are cut to the file name, since records are published.
    """
    words = [program, *(sys.argv[1:] if arguments is None else arguments)]
    return {
        "commit": _commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "command": [Path(word).name if Path(word).is_absolute() else word for word in words],
    }


def gemm_rates(seconds: float = 0.25) -> dict[str, list[float]]:
    """Measure float32 matrix products with one thread, for some seconds each, in operations per CPU second.

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


def _cpu_model() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        info = ""
    match = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of this source tree, with "+" if files differ from it; None outside a clone."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


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
