"""Our models on a GPU: bfloat16, torch.compile and CUDA graphs against eager float32; without graphs on a CPU too."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from densevit.checkpoints.create import preset_bundle
from densevit.memory import peak_during
from densevit.model import DenseModel
from densevit.types import Size
from densevit_lab.benchmark.record import Agreement, CaseRecord, MemorySample, Sample, WorkloadRecord

EAGER = "float32, eager"
WARM_UP = 3
ROUGHLY_EQUAL = 0.9
"""Share of labels that bfloat16 leaves equal on random weights, whose logits nearly tie."""


@dataclass(frozen=True)
class GpuCase:
    """A preset with random weights, on images of a size; ``batch``: images, or the windows of one image, at a time."""

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
    """The model followed by the arg max; a type other than float32 is applied by autocast, as a user would."""

    def run(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
            return model(images, (head,))[head].logits.argmax(dim=1)

    return run


def cuda_graph(run: Run, images: Tensor) -> Run:
    """A CUDA graph of a run at one shape, which costs the CPU one launch; the next call overwrites the result."""
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

    def replay(images: Tensor) -> Tensor:
        static.copy_(images)
        graph.replay()
        return output

    return replay


def variants(model: DenseModel, head: str, images: Tensor) -> dict[str, Callable[[], Run]]:
    """Name of each variant -> a function that prepares it."""
    single, half = network(model, head, torch.float32), network(model, head, torch.bfloat16)
    prepare: dict[str, Callable[[], Run]] = {
        EAGER: lambda: single,
        "bfloat16": lambda: half,
        "bfloat16, compiled": lambda: torch.compile(half, dynamic=False),
    }
    if images.device.type == "cuda":
        prepare["bfloat16, CUDA graph"] = lambda: cuda_graph(half, images)
        prepare["bfloat16, compiled, CUDA graph"] = lambda: cuda_graph(torch.compile(half, dynamic=False), images)
    return prepare


def measure_gpu_case(name: str, device: str, say: Callable[[str], None], *, rounds: int) -> CaseRecord:
    """Measure a case in this process."""
    case = GPU_CASES[name]
    say(f"{name}: {case.preset} on {device}")
    model = preset_bundle(case.preset).model.eval().to(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(case.batch, 3, *case.image_size, generator=generator).to(device)
    return measure_model(name, case.title, model, images, rounds=rounds)


@torch.inference_mode()
def measure_model(name: str, title: str, model: DenseModel, images: Tensor, *, rounds: int) -> CaseRecord:
    """Time every variant in turns, after all are warm; ``images``: (B, 3, H, W) in [0, 1], on the model's device."""
    began = time.monotonic()
    head = next(iter(model.config.heads))
    runs: dict[str, Run] = {}
    records: dict[str, WorkloadRecord] = {}
    reference: Tensor | None = None
    for variant, prepare in variants(model, head, images).items():
        try:
            runs[variant], records[variant], labels = _warm_up(variant, prepare, images, reference)
        except RuntimeError as error:  # also out of memory, and errors of a compiler
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            records[variant] = WorkloadRecord(title=f"densevit, {variant}", problem=cause)
        else:
            reference = labels if variant == EAGER else reference
    samples: dict[str, list[Sample]] = {variant: [] for variant in runs}
    for index in range(rounds):
        for variant in list(runs) if index % 2 == 0 else reversed(runs):
            samples[variant].append(timed(partial(runs[variant], images), images.device))
    for variant, taken in samples.items():
        records[variant] = records[variant].model_copy(update={"samples": {"1": tuple(taken)}})
    peer = records.pop(EAGER)
    return CaseRecord(name=name, title=title, against=EAGER, peer=peer, ours=records, seconds=time.monotonic() - began)


def _warm_up(
    variant: str, prepare: Callable[[], Run], images: Tensor, reference: Tensor | None
) -> tuple[Run, WorkloadRecord, Tensor]:
    """Prepare a variant and run it a few times; the run, its record so far, and its labels."""
    is_cuda = images.device.type == "cuda"
    gc.collect()
    if is_cuda:
        torch.cuda.synchronize(images.device)
        torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(images.device) if is_cuda else 0
    run = prepare()
    for _ in range(WARM_UP):
        run(images)
    labels = run(images).clone()
    record = WorkloadRecord(title=f"densevit, {variant}")
    if is_cuda:
        peak = peak_during(partial(run, images), images.device).peak
        sample = MemorySample(before=before, peak=peak, transient=peak - before, exact=True)
        record = record.model_copy(update={"memory": (sample,)})
    if reference is not None:
        equal = float((labels == reference).float().mean())
        agreement = Agreement(equal=equal, max_error=0.0, passed=equal >= ROUGHLY_EQUAL)
        record = record.model_copy(update={"agreement": agreement})
    return run, record, labels


def timed(call: Callable[[], object], device: torch.device) -> Sample:
    """Time one call: on CUDA between two events of the stream, elsewhere by the wall clock."""
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
