"""The suite "int8": what is measured on trained weights, what is said of what cannot be, and its table and picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from densevit.errors import DataError
from densevit_lab.benchmark import camvid_heads, int8, measure
from densevit_lab.benchmark.int8 import INT8_CASES, PROGRAMS, REFERENCE, TRAINED, Int8Case, measure_int8_case
from densevit_lab.benchmark.measure import Plan
from densevit_lab.benchmark.metrics import difference, measure_metric
from densevit_lab.benchmark.plot import write_plot
from densevit_lab.benchmark.process import WorkerError, run_densevit
from densevit_lab.benchmark.record import CaseRecord, MetricRecord, Record, Sample, WorkloadRecord, read_record
from densevit_lab.benchmark.report import measured_table, page
from densevit_lab.benchmark.suites import case_names, run_suite
from tests.e2e.scenes import write_dataset, write_model
from tests.unit.workers import WorkerHere

ROOT = Path(__file__).parents[2]
ONCE = Plan(rounds=1, least=1, memory=1)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny trained model and data for it; workers answer in this process."""
    monkeypatch.setattr(measure, "WorkerProcess", WorkerHere)
    write_model(tmp_path / "tiny.safetensors", "setr", "depth")
    write_dataset(tmp_path / "data" / "scenes", train=0, val=2)
    return tmp_path


def tiny(place: Path, head: str = "setr", **facts: Any) -> Int8Case:
    values: dict[str, Any] = {"data": "scenes", "output": "depth" if head == "depth" else "labels"}
    return Int8Case("tiny", str(place / "tiny.safetensors"), head, image_size=(48, 64), **(values | facts))


def refuse(arguments: Any) -> None:
    raise WorkerError(f"densevit {arguments[0]} failed: no engine is installed")


def run(case: Int8Case, place: Path, plan: Plan = ONCE) -> CaseRecord:
    return measure_int8_case("tiny", case, plan, place, place / "data", place / "heads", lambda message: None)


@pytest.mark.parametrize(("head", "figure"), [("setr", "mIoU"), ("depth", "delta1")])
def test_case__has_time_and_metric_and_the_reason_where_it_has_not(
    place: Path, monkeypatch: pytest.MonkeyPatch, head: str, figure: str
) -> None:
    monkeypatch.setattr(int8, "run_densevit", refuse)

    record = run(tiny(place, head), place)

    assert record.problem == ""
    assert record.peer is not None
    assert record.peer.metric is not None
    assert (len(record.peer.seconds()), record.peer.metric.figure, record.peer.metric.photos) == (1, figure, 2)
    assert list(record.ours) == [program.title for program in PROGRAMS]
    problems = {title: one.problem for title, one in record.ours.items() if title != "torch, int8"}
    command = {"float32": "export", "int8": "quantize"}
    assert problems == {
        title: f"densevit {command[title.rpartition(', ')[2]]} failed: no engine is installed" for title in problems
    }


def test_command_that_fails__gives_its_message() -> None:
    with pytest.raises(WorkerError, match=r"^densevit predict failed: .*--out"):
        run_densevit(["predict", "photo.jpg"])


def test_case__says_that_its_data_are_not_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "run_densevit", lambda arguments: Path(arguments[-1]).write_bytes(b""))
    monkeypatch.setattr(int8, "PROGRAMS", (PROGRAMS[0], PROGRAMS[2]))

    record = run(tiny(place, data="nowhere"), place)

    assert record.peer is not None
    assert record.peer.seconds()
    assert record.peer.metric_problem == (
        f"there is no folder {place}/data/nowhere to measure on; --data names that of camvid and nyuv2"
    )
    assert record.ours["ONNX Runtime, int8"].problem == (
        f"there is no folder {place}/data/nowhere to calibrate on; --data names that of camvid and nyuv2"
    )


def test_metric__counts_what_differs_from_the_reference(place: Path) -> None:
    outputs = {0: np.zeros((48, 64), np.uint8), 1: np.zeros((48, 64), np.uint8)}

    def workload(image: NDArray[Any]) -> NDArray[Any]:
        return outputs[next(calls)]

    facts: dict[str, Any] = {"source": str(place / "tiny.safetensors"), "head": "setr", "limit": None}
    facts |= {"data": place / "data" / "scenes", "folder": place / "outputs"}
    calls = iter((0, 1))
    first = measure_metric(workload, **facts, reference=True)
    outputs = {0: outputs[0], 1: outputs[1].copy()}
    outputs[1][:12] = 1  # a quarter of one photo
    calls = iter((0, 1))
    second = measure_metric(workload, **facts, reference=False)

    assert (first.difference, first.largest_difference) == (None, None)
    assert (second.difference, second.largest_difference, second.photos) == (0.125, 0.25, 2)


def test_metric__needs_its_data(place: Path) -> None:
    with pytest.raises(DataError, match=r"^there is no folder .*none to measure on; --data names that of camvid"):
        measure_metric(
            lambda image: image,
            source="x",
            head="x",
            data=place / "none",
            limit=None,
            folder=place,
            reference=True,
        )


def test_difference__of_values_is_relative() -> None:
    assert difference(np.array([1.1, 2.0]), np.array([1.0, 2.0]), values=True) == pytest.approx(0.05)


def test_metric__is_of_so_many_photos_as_the_plan_says(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "PROGRAMS", ())

    record = run(tiny(place), place, replace(ONCE, photos=1))

    assert record.peer is not None
    assert record.peer.metric is not None
    assert record.peer.metric.photos == 1


@pytest.mark.parametrize(("photos", "expected"), [(None, 10), (40, 10), (3, 3)])
def test_quick_plan__has_few_photos(photos: int | None, expected: int) -> None:
    assert Plan(photos=photos).as_quick().photos == expected


def test_suite__has_trained_heads_with_data_and_presets_without() -> None:
    assert {case.source for case in INT8_CASES.values() if case.data} == {"default", TRAINED}
    assert all(case.source in int8.PRESETS for case in INT8_CASES.values() if not case.data)
    assert case_names("int8", "default-*") == ["default-streets", "default-rooms", "default-depth"]
    assert tuple(INT8_CASES[name].head for name in case_names("int8", "camvid-*")) == camvid_heads.HEADS


def test_suite__left_out_cases_of_a_quick_run_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "densevit_lab.benchmark.suites.measure_int8_case", lambda name, *rest: CaseRecord(name=name, title="")
    )
    monkeypatch.setattr("densevit_lab.benchmark.suites._with_new_rates", lambda gemm, folder: gemm)

    record = run_suite("int8", Plan().as_quick(), lambda message: None)

    left = {case.name: case.problem for case in record.cases if case.problem}
    assert left == dict.fromkeys(
        ("default-streets", "camvid-segmenter", "camvid-dpt", "segmenter-s", "segmenter-b"), "left out by --quick"
    )
    assert all(case.occasion.settings["photos"] == 10 for case in record.cases if case.occasion is not None)


# Table and picture


def workload(title: str, seconds: float, value: float | None, **facts: Any) -> WorkloadRecord:
    metric = None if value is None else MetricRecord(figure="mIoU", value=value, photos=9)
    if metric is not None and title != REFERENCE:
        metric = metric.model_copy(update={"difference": 0.004, "largest_difference": 0.0125})
    samples = tuple(Sample(cpu=seconds, wall=seconds) for _ in range(3))
    return WorkloadRecord(title=title, samples={"1": samples}, metric=metric, **facts)


def measured() -> Record:
    ours = {
        "torch, int8": workload("torch, int8", 1.0, 0.698),
        "OpenVINO, int8": workload("OpenVINO, int8", 1.5, 0.6, file_bytes=25_000_000),
        "ONNX Runtime, int8": WorkloadRecord(title="ONNX Runtime, int8", problem="not installed"),
    }
    case = CaseRecord(name="a", title="model A", against=REFERENCE, peer=workload(REFERENCE, 3.0, 0.7), ours=ours)
    later = CaseRecord(name="b", title="model B", against=REFERENCE, problem="left out by --quick")
    return Record(suite="int8", machine={"cpu": "made up"}, cases=(case, later))


def test_table__has_speed_loss_and_reasons() -> None:
    head, rows = measured_table(measured())
    cells = [dict(zip(head, row, strict=True)) for row in rows]

    assert [row["program"] for row in cells] == [REFERENCE, *measured().cases[0].ours, REFERENCE]
    int8_row = cells[1]
    assert (int8_row["times faster"], int8_row["wall"]) == ("3.00 (3.00 to 3.00)", "3.00 (1)")
    assert (int8_row["metric"], int8_row["loss"]) == ("mIoU 0.6980 (9)", "+0.0020")
    assert (int8_row["differs, mean"], int8_row["worst"]) == ("0.40%", "1.25%")
    assert cells[2]["file MB"] == "25.0"
    assert [row["note"] for row in cells[3:]] == ["not installed", "left out by --quick"]
    assert cells[0]["times faster"] == cells[0]["loss"] == ""


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_picture__is_drawn(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    write_plot(measured(), tmp_path / f"plot{suffix}")

    assert (tmp_path / f"plot{suffix}").stat().st_size > 1000


def test_page__is_about_integers() -> None:
    text = page(measured(), plot="p.png")

    assert text.startswith("# 8-bit integers\n")
    assert "![How many times faster than float32 in torch, and what it costs](p.png)" in text


@pytest.mark.skipif(not (ROOT / "benchmarks" / "int8.json").exists(), reason="no record is committed")
def test_record__of_the_project_is_the_page_in_the_documentation() -> None:
    text = page(read_record(ROOT / "benchmarks" / "int8.json"), plot="../images/benchmark-int8.png")

    assert text == (ROOT / "docs" / "reference" / "int8.md").read_text(encoding="utf-8")
