"""Our models on an accelerator: bfloat16, torch.compile and CUDA graphs against eager float32.

Everything but the graphs runs on a CPU too, for trials.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from densevit.memory import peak_during
from densevit.model import DenseModel
from densevit.types import Size
from densevit_lab.benchmark.record import Agreement, CaseRecord, MemorySample, Sample, SideRecord

EAGER = "float32, eager"
WARM_UP = 3
ROUGHLY_EQUAL = 0.9
"""Share of equal labels that bfloat16 keeps on random weights, whose logits nearly tie."""


@dataclass(frozen=True)
class GpuCase:
    """A model at a size.

    Attributes:
        title: for the table.
        preset: its weights are random.
        image_size: of one image, or of one window.
        batch: images, or the windows of one photo, at a time.
    """

    title: str
    preset: str
    image_size: Size
    batch: int = 1


GPU_CASES: dict[str, GpuCase] = {
    "setr-pup-l-512": GpuCase("SETR-PUP ViT-L, 512", "setr-pup-l-ade20k", (512, 512)),
    "dpt-large-512": GpuCase("DPT-Large labels, 512", "dpt-large-ade20k", (512, 512)),
    "segmenter-l-640": GpuCase("Segmenter-L, 640", "segmenter-l-mask-640", (640, 640)),
    "setr-pup-l-windows": GpuCase("SETR-PUP ViT-L, 1024 x 2048, 8 windows", "setr-pup-l-cityscapes", (768, 768), 8),
    "segmenter-l-windows": GpuCase("Segmenter-L, 1024 x 2048, 8 windows", "segmenter-l-mask-cityscapes", (768, 768), 8),
}

Run = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) in [0, 1] -> labels (B, h, w) at the logits' stride."""


def network(model: DenseModel, head: str, dtype: torch.dtype) -> Run:
    """The model up to the arg max; in another type than float32 by autocast, as a user would have it."""

    def run(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
            return model(images, (head,))[head].logits.argmax(dim=1)

    return run


def captured(run: Run, images: Tensor) -> Run:
    """A CUDA graph of a run at one shape; replaying it costs the CPU one launch.

    The result is overwritten by the next call.
    """
    static = images.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            run(static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run(static)

    def replay(fresh: Tensor) -> Tensor:
        static.copy_(fresh)
        graph.replay()
        return output

    return replay


def variants(model: DenseModel, head: str, images: Tensor) -> dict[str, Callable[[], Run]]:
    """Names of the ways to run a model, and what prepares each."""
    single, half = network(model, head, torch.float32), network(model, head, torch.bfloat16)
    found: dict[str, Callable[[], Run]] = {
        EAGER: lambda: single,
        "bfloat16": lambda: half,
        "bfloat16, compiled": lambda: torch.compile(half, dynamic=False),
    }
    if images.device.type == "cuda":
        found["bfloat16, CUDA graph"] = lambda: captured(half, images)
        found["bfloat16, compiled, CUDA graph"] = lambda: captured(torch.compile(half, dynamic=False), images)
    return found


@torch.inference_mode()
def measure_model(
    name: str, title: str, model: DenseModel, images: Tensor, *, rounds: int, only: Sequence[str] | None = None
) -> CaseRecord:
    """Every variant on the device where model and images are; in turns, after all are warm.

    Args:
        name: key of the case.
        title: for the table.
        model: in evaluation mode.
        images: (B, 3, H, W) float32 in [0, 1].
        rounds: samples of each variant.
        only: names of variants; all by default.
    """
    began, device = time.monotonic(), images.device
    head = next(iter(model.config.heads))
    runs: dict[str, Run] = {}
    records: dict[str, SideRecord] = {}
    reference: Tensor | None = None
    for variant, prepare in variants(model, head, images).items():
        if only is None or variant in only:
            records[variant], run, labels = _warm(variant, prepare, images, reference)
            reference = labels if variant == EAGER else reference
            if run is not None:
                runs[variant] = run
    samples: dict[str, list[Sample]] = {variant: [] for variant in runs}
    for index in range(rounds):
        for variant in list(runs) if index % 2 == 0 else list(runs)[::-1]:
            samples[variant].append(timed(partial(runs[variant], images), device))
    for variant, taken in samples.items():
        records[variant] = records[variant].model_copy(update={"samples": {"1": tuple(taken)}})
    peer = records.pop(EAGER)
    return CaseRecord(name=name, title=title, against=EAGER, peer=peer, ours=records, seconds=time.monotonic() - began)


def _warm(
    variant: str, prepare: Callable[[], Run], images: Tensor, reference: Tensor | None
) -> tuple[SideRecord, Run | None, Tensor | None]:
    """A variant, prepared and run a few times: its record, the run itself unless it fails, and its labels."""
    record = SideRecord(title=f"densevit, {variant}")
    try:
        before = _settle(images.device)
        run = prepare()
        for _ in range(WARM_UP):
            run(images)
        labels = run(images).clone()
        memory = _memory(images.device, before, partial(run, images))
    except RuntimeError as error:  # also out of memory, and what a compiler raises
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        return record.model_copy(update={"problem": cause}), None, None
    agreement = None
    if reference is not None:
        equal = float((labels == reference).float().mean())
        agreement = Agreement(equal=equal, max_error=0.0, passed=equal >= ROUGHLY_EQUAL)
    return record.model_copy(update={"memory": memory, "agreement": agreement}), run, labels


def timed(call: Callable[[], object], device: torch.device) -> Sample:
    """One call: on CUDA the time between two events of the stream, elsewhere that of the clock."""
    cpu = time.process_time()
    if device.type == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize(device)
        return Sample(cpu=time.process_time() - cpu, wall=begin.elapsed_time(end) / 1000)
    wall = time.perf_counter()
    call()
    return Sample(cpu=time.process_time() - cpu, wall=time.perf_counter() - wall)


def _settle(device: torch.device) -> int:
    """Bytes that the model and the images hold."""
    gc.collect()
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(device)


def _memory(device: torch.device, before: int, call: Callable[[], object]) -> tuple[MemorySample, ...]:
    """The allocator's highest during a call; nothing where there is no such count."""
    if device.type != "cuda":
        return ()
    peak = peak_during(call, device).peak
    return (MemorySample(before=before, peak=peak, transient=peak - before, exact=True),)
