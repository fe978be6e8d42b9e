"""The suite "int8": models with 8-bit integers next to float32, their speed and what they lose, on trained weights.

The weights are the default model's, and those of two heads that the suite trains on CamVid once. Every case is one head
of one model, run by torch and as exported files by ONNX Runtime and OpenVINO. What cannot be made or run here is a row
with the reason.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import densevit
from densevit.presets import PRESETS
from densevit.types import Size
from densevit_lab.benchmark.camvid_heads import trained_heads
from densevit_lab.benchmark.measure import PEER, Plan, Say, measure_workloads
from densevit_lab.benchmark.photo import write_photo
from densevit_lab.benchmark.process import WorkerError, run_densevit
from densevit_lab.benchmark.record import CaseRecord, MetricRecord, WorkloadRecord
from densevit_lab.benchmark.workloads import WorkloadSpec

REFERENCE = "torch, float32"
TRAINED = "heads trained on CamVid"
"""The source of the cases whose weights the suite trains."""
SHIPPED_PHOTOS = Path(densevit.__file__).parent / "export" / "photos"


@dataclass(frozen=True)
class Int8Case:
    """One head of a model.

    Attributes:
        source: what ``load`` takes, or ``TRAINED``.
        head: the head that runs.
        data: folder with a val split, below that of all data; empty for random weights, which are for speed only.
        image_size: of the photo that is timed.
    """

    title: str
    source: str
    head: str
    output: Literal["labels", "depth"] = "labels"
    data: str = ""
    image_size: Size = (480, 640)
    quick: bool = False


def _segmenter(width: str, *, quick: bool = False) -> Int8Case:
    name = f"segmenter-{width.lower()}-mask"
    return Int8Case(f"Segmenter-{width}, 512, random weights", name, "labels", image_size=(512, 512), quick=quick)


INT8_CASES: dict[str, Int8Case] = {
    "default-streets": Int8Case("default model, streets", "default", "streets", data="camvid"),
    "default-rooms": Int8Case("default model, rooms", "default", "rooms", data="nyuv2", quick=True),
    "default-depth": Int8Case("default model, depth", "default", "depth", "depth", data="nyuv2", quick=True),
    "camvid-segmenter": Int8Case("Segmenter head on ViT-S/14, CamVid", TRAINED, "segmenter_mask", data="camvid"),
    "camvid-dpt": Int8Case("DPT head on ViT-S/14, CamVid", TRAINED, "dpt", data="camvid"),
    "segmenter-ti": _segmenter("Ti", quick=True),
    "segmenter-s": _segmenter("S"),
    "segmenter-b": _segmenter("B"),
}


@dataclass(frozen=True)
class Program:
    """What runs a case: torch, or an engine on an exported file of a format."""

    title: str
    engine: str
    suffix: str
    precision: Literal["float32", "int8"]


PROGRAMS = (
    Program("torch, int8", "torch", "", "int8"),
    Program("ONNX Runtime, float32", "onnxruntime", ".onnx", "float32"),
    Program("ONNX Runtime, int8", "onnxruntime", ".onnx", "int8"),
    Program("OpenVINO, float32", "openvino", ".xml", "float32"),
    Program("OpenVINO, int8", "openvino", ".xml", "int8"),
)
"""In the order of the table, after the reference."""


def measure_int8_case(
    name: str, case: Int8Case, plan: Plan, folder: Path, data: Path, heads: Path, say: Say
) -> CaseRecord:
    """Measure a case, with its files in a folder; the record says what failed or is missing.

    ``data`` is the folder of camvid and nyuv2, and ``heads`` the run folder of the heads trained on CamVid.
    """
    began = time.monotonic()
    record = CaseRecord(name=name, title=case.title, against=REFERENCE)
    photo = folder / f"{name}.jpg"
    write_photo(photo, case.image_size)
    try:
        if case.source == TRAINED:
            source = str(trained_heads(heads, data / case.data, folder, plan, lambda text: say(f"{name}: {text}")))
        else:
            source = _weights(case, plan, folder / f"{name}.safetensors")
        place = data / case.data if case.data else None
        specs = {PEER: _spec(case, REFERENCE, source)}
        failed: dict[str, WorkloadRecord] = {}
        sizes: dict[str, int] = {}
        for program in PROGRAMS:
            file = folder / f"{name}-{program.precision}{program.suffix}"
            try:
                if program.suffix:
                    say(f"{name}: writing the file for {program.title}")
                    sizes[program.title] = _write_file(program, case, source, place, file)
                specs[program.title] = _spec(case, program.title, str(file) if program.suffix else source, program)
            except WorkerError as error:
                failed[program.title] = WorkloadRecord(title=program.title, problem=str(error))
        measured = measure_workloads(specs, photo, plan, lambda text: say(f"{name}: {text}"))
        found = failed | {key: _with_size(one, sizes.get(key)) for key, one in measured.items()}
        if place is not None:
            found = _with_metrics(found, specs, case, place, plan, folder / name, lambda text: say(f"{name}: {text}"))
        ordered = {one.title: found[one.title] for one in PROGRAMS if one.title in found}
        record = record.model_copy(update={"peer": found[PEER], "ours": ordered})
    except WorkerError as error:
        record = record.model_copy(update={"problem": str(error)})
    return record.model_copy(update={"seconds": time.monotonic() - began})


def _spec(case: Int8Case, title: str, source: str, program: Program | None = None) -> WorkloadSpec:
    exported = program is not None and bool(program.suffix)
    return WorkloadSpec(
        title=title,
        kind="exported" if exported else "ours",
        source=source,
        head=case.head,
        engine=program.engine if program is not None else "torch",
        precision="float32" if program is None or exported else program.precision,
        rounded=program is not None and program.precision == "int8",
        output=case.output,
    )


def _weights(case: Int8Case, plan: Plan, file: Path) -> str:
    """The model of a case; a preset's random weights go to a file, so that all programs have the same."""
    if case.source not in PRESETS:
        return case.source
    with plan.start_worker(1, file.with_suffix(".log")) as worker:
        worker.ask("draw", source=case.source, weights=str(file))
    return str(file)


def _write_file(program: Program, case: Int8Case, source: str, data: Path | None, file: Path) -> int:
    """Export a model, or quantise it; the bytes of the file.

    Raises:
        WorkerError: with the message of the command that failed.
    """
    options = ["--head", case.head, "--out", str(file)]
    if program.precision == "int8":
        if data is not None and not data.is_dir():
            raise WorkerError(f"there is no folder {data} to calibrate on; --data names that of camvid and nyuv2")
        # Calibrated on other photos than those that the metric is measured on; random weights may lose anything.
        trained = ["--data", str(data), "--split", "train"]
        drawn = ["--data", str(SHIPPED_PHOTOS), "--max-loss", "100 labels"]
        run_densevit(["quantize", source, *(drawn if data is None else trained), *options])
    else:
        run_densevit(["export", source, *options])
    parts = [file, *([file.with_suffix(".bin")] if file.suffix == ".xml" else [])]
    return sum(part.stat().st_size for part in parts)


def _with_size(record: WorkloadRecord, size: int | None) -> WorkloadRecord:
    return record.model_copy(update={"file_bytes": size})


def _with_metrics(
    records: dict[str, WorkloadRecord],
    specs: dict[str, WorkloadSpec],
    case: Int8Case,
    data: Path,
    plan: Plan,
    folder: Path,
    say: Callable[[str], None],
) -> dict[str, WorkloadRecord]:
    """The records with the metric of each program on the val split, and its agreement with the reference there."""
    found = dict(records)
    for key, spec in specs.items():
        if records[key].problem:
            continue
        say(f"{spec.title}: measuring on {data.name} val")
        try:
            with plan.start_worker(1, folder.with_suffix(".log")) as worker:
                worker.ask("load", workload=spec.plain(), threads=1)
                answer = worker.ask(
                    "evaluate",
                    source=specs[PEER].source,
                    data=str(data),
                    limit=plan.photos,
                    folder=str(folder),
                    reference=key == PEER,
                )
            found[key] = records[key].model_copy(update={"metric": MetricRecord.parse(answer)})
        except WorkerError as error:
            found[key] = records[key].model_copy(update={"metric_problem": str(error)})
    return found
