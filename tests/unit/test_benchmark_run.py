"""The benchmark's worker processes, tiny runs of its suites, and its command line."""

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.checkpoints.native import Bundle, Card, save_bundle
from densevit.cli.main import main
from densevit.errors import DensevitError
from densevit.inference.predictor import Predictor
from densevit.inference_config import InferenceConfig
from densevit.io import write_json
from densevit.tasks import Segmentation
from densevit_lab.benchmark import cases, gpu, machine, measure, peers, suites
from densevit_lab.benchmark.cases import Case
from densevit_lab.benchmark.decode import FORMS, open_form
from densevit_lab.benchmark.flops import count_flops
from densevit_lab.benchmark.measure import Plan, measure_case
from densevit_lab.benchmark.peers import segmenter
from densevit_lab.benchmark.photo import write_photo
from densevit_lab.benchmark.process import WorkerError, WorkerProcess
from densevit_lab.benchmark.record import CaseRecord, read_record
from densevit_lab.benchmark.suites import run_suite
from densevit_lab.benchmark.workloads import WorkloadSpec, build_workload
from tests.factories import random_images, tiny_model
from tests.unit.workers import WorkerHere

MB = 1_000_000
SMALL = {"num_classes": 5, "grid": (4, 4), "size": (32, 32)}


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "WorkerProcess", WorkerHere)
    monkeypatch.setattr(gc, "collect", lambda: 0)  # takes a second among the objects of a test run


def form(name: str, **changes: Any) -> WorkloadSpec:
    return WorkloadSpec(kind="decode", title=name, source=name, options=SMALL | changes)


def against(peer: WorkloadSpec | None, **ours: WorkloadSpec) -> Case:
    return Case("a case", peer, ours, image_size=(32, 32))


def ignore(message: str) -> None:
    pass


def benchmark(*arguments: object) -> int:
    """The exit code of ``densevit benchmark ARGUMENTS``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["densevit", "benchmark", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def test_worker_process__measures_memory_and_goes_on_after_an_error(tmp_path: Path) -> None:
    sizes = {"num_classes": 200, "size": (500, 500)}
    with WorkerProcess(threads=1, log=tmp_path / "log") as worker:
        with pytest.raises(WorkerError, match="KeyError: 'interpolate, argmaxx'"):
            worker.ask("load", workload=form("interpolate, argmaxx").plain(), threads=1)
        worker.ask("load", workload=form("interpolate, argmax", **sizes).plain(), threads=1)
        memory = worker.ask("first", image=str(tmp_path))["memory"]

    assert 195 * MB <= memory["transient"] <= 300 * MB  # 200 x 500 x 500 floats, and the labels


def test_worker_process__that_ends_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "python").write_text("#!/bin/sh\necho out of luck >&2\nkill -9 $$\n")
    (tmp_path / "python").chmod(0o755)

    with (
        WorkerProcess(threads=1, log=tmp_path / "log") as worker,
        pytest.raises(WorkerError, match=r"was killed, perhaps for lack of memory \(.*: out of luck\)"),
    ):
        worker.ask("gemm")


@pytest.mark.usefixtures("workers_here")
def test_outputs__that_differ_are_invalid_and_not_timed(tmp_path: Path) -> None:
    case = against(form("interpolate, argmax"), other=form("densevit", seed=1))

    record = measure_case("x", case, Plan(rounds=1, memory=1), tmp_path, ignore)

    assert record.peer is not None
    assert record.peer.samples == {}
    assert record.ours["other"].samples == {}
    assert record.ours["other"].problem.startswith("invalid: the outputs differ (")


@pytest.mark.usefixtures("workers_here")
def test_workload__that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    case = against(form("interpolate, argmax"), wrong=form("argmin"), right=form("densevit"))

    record = measure_case("x", case, Plan(rounds=3, memory=2), tmp_path, ignore)

    assert record.ours["wrong"].problem == "'argmin'"
    assert record.peer is not None
    assert len(record.peer.samples["1"]) == len(record.ours["right"].samples["1"]) == 3
    assert len(record.ours["right"].memory) == 2
    assert record.ours["right"].agreement is not None


@pytest.mark.usefixtures("workers_here")
def test_long_first_run__is_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LONG_RUN_S", 0.0)
    case = against(form("interpolate, argmax"), torch=form("densevit"))

    record = measure_case("x", case, Plan(rounds=1), tmp_path, ignore)

    assert record.peer is not None
    assert len(record.peer.samples["1"]) == len(record.ours["torch"].samples["1"]) == 1
    assert (len(record.peer.memory), len(record.ours["torch"].memory)) == (1, 0)


@pytest.mark.parametrize("name", FORMS)
def test_form__gives_the_same_labels(name: str) -> None:
    plain = open_form("interpolate, argmax", num_classes=7, grid=(5, 6), size=(33, 40))()

    assert np.mean(open_form(name, num_classes=7, grid=(5, 6), size=(33, 40))() == plain) == 1.0


def test_flops__are_those_of_products_and_attention() -> None:
    q = torch.ones(1, 2, 50, 16)
    weight = torch.ones(30, 16)

    with torch.inference_mode():
        found = count_flops(
            lambda: torch.nn.functional.linear(torch.nn.functional.scaled_dot_product_attention(q, q, q), weight)
        )

    assert found == 2 * (2 * 2 * 50 * 50 * 16) + 2 * 2 * 50 * 16 * 30


def test_machine__is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "GEMM_SHAPES", ((5, 8, 8),))
    described = machine.describe_machine()

    assert described["cpu"]
    assert described["packages"]["torch"] == torch.__version__.split("+")[0]
    assert machine.describe_run(["benchmark"])["command"] == ["densevit", "benchmark"]
    assert machine.describe_run(["--into", "/home/me/record.json"])["command"] == ["densevit", "--into", "record.json"]
    assert all(rate > 0 for rates in machine.gemm_rates(0.0).values() for rate in rates)


def test_official_arithmetic__is_reproduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(segmenter.NAMED_SIZES, "Ti", {"embed_dim": 64, "depth": 2, "num_heads": 1})
    photo = tmp_path / "p.jpg"
    write_photo(photo, (48, 80))

    peer = segmenter.build(width="Ti", num_classes=6, window=32, stride=16)
    bundle = peer.bundle()

    theirs, ours = peer.predict(photo), Predictor(bundle, device="cpu").predict(photo, protocol="segmenter").labels
    assert theirs.shape == (48, 80)
    assert len(np.unique(theirs)) > 1
    assert np.mean(theirs == ours) == 1.0


def test_gpu_suite__runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda run, **_: run)

    record = gpu.measure_model("x", "x", tiny_model("segmenter_mask"), random_images((3, 3)), rounds=2)

    assert record.peer is not None
    assert len(record.peer.samples["1"]) == len(record.ours["bfloat16"].samples["1"]) == 2
    agreement = record.ours["bfloat16"].agreement
    assert agreement is not None
    assert agreement.equal > 0.5


def test_gpu_suite__reports_a_variant_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(torch, "compile", fail)
    found = gpu.measure_model("x", "x", tiny_model("segmenter_mask"), random_images((3, 3)), rounds=1)

    assert found.ours["bfloat16, compiled"].problem == "no compiler"
    assert found.ours["bfloat16"].problem == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "peerz"), "there is no suite 'peerz'; did you mean 'peers'?"),
        (("--cases", "segmenter-s-mmsegg"), "there is no case 'segmenter-s-mmsegg'; did you mean 'segmenter-s-mmseg'?"),
        (("--suite", "decode", "--cases", "ade20"), "did you mean 'ade20k'?"),
        (("--from", "nowhere.json"), "nowhere.json does not exist"),
    ],
)
def test_command__refuses_with_the_nearest_name(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark(*arguments) == 2
    assert message in capsys.readouterr().err


def test_command__goes_on_without_a_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    monkeypatch.setattr(suites, "_with_new_rates", lambda gemm, folder: gemm)

    code = benchmark("--cases", "dpt-b-smp", "--json", tmp_path / "r.json")
    again = benchmark("--from", tmp_path / "r.json", "--markdown", tmp_path / "r.md")

    reason = "not measured: install densevit[benchmark] (segmentation-models-pytorch missing)"
    assert (code, again) == (0, 0)
    assert json.loads((tmp_path / "r.json").read_text())["cases"][0]["problem"] == reason
    assert reason in (tmp_path / "r.md").read_text()
    assert "dpt-b-smp" in capsys.readouterr().out


@pytest.mark.usefixtures("workers_here")
def test_command__measures_a_suite_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, case = tmp_path / "r.json", against(form("interpolate, argmax"), densevit=form("densevit"))
    monkeypatch.setitem(cases.SUITES, "decode", {"first": case, "second": case})
    suite = ("--suite", "decode", "--into", file)

    codes = [benchmark(*suite, "--cases", name, "--rounds", 1) for name in ("second", "first", "second")]

    record = read_record(file)
    assert codes == [0, 0, 0]
    assert [case.name for case in record.cases] == ["first", "second"]
    assert all(case.ours["densevit"].samples["1"] for case in record.cases)
    assert all(case.occasion is not None and case.occasion.settings["rounds"] == 1 for case in record.cases)


@pytest.mark.usefixtures("workers_here")
def test_command__runs_every_engine_of_our_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "r.json"
    task = Segmentation(classes=tuple("abcde"))
    bundle = Bundle(tiny_model("segmenter_mask"), {"main": task}, InferenceConfig(short_side=32), Card())
    save_bundle(bundle, tmp_path / "tiny.safetensors")
    spec = WorkloadSpec(kind="ours", source=str(tmp_path / "tiny.safetensors"), output="all")
    monkeypatch.setitem(cases.SUITES, "self", {"tiny": against(None, torch=spec)})
    monkeypatch.setattr(suites, "_with_new_rates", lambda gemm, folder: gemm)

    assert benchmark("--suite", "self", "--rounds", 1, "--engine", "warp", "--json", file) == 0

    ours = read_record(file).cases[0].ours
    assert len(ours["torch"].samples["1"]) == len(ours["torch"].memory) == 1
    assert "there is no engine 'warp'" in ours["warp"].problem


def test_quick_run__leaves_out_long_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "measure_case", lambda name, *_: CaseRecord(name=name, title=name))

    record = run_suite("training", Plan().as_quick(), ignore)

    assert [case.problem for case in record.cases] == ["", *["left out by --quick"] * 3]


def test_run__keeps_what_was_measured_before_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "r.json"

    def measured(name: str, *_: Any) -> CaseRecord:
        if name == "camvid":
            raise KeyboardInterrupt
        return CaseRecord(name=name, title=name)

    monkeypatch.setattr(suites, "measure_case", measured)

    with pytest.raises(KeyboardInterrupt):
        run_suite("decode", Plan(), ignore, keep=lambda record: write_json(file, record.plain()))

    assert [case.name for case in read_record(file).cases] == ["ade20k", "cityscapes"]


def test_engine__that_is_unknown_is_refused() -> None:
    with pytest.raises(DensevitError, match="there is no engine 'warp'"):
        build_workload(WorkloadSpec(kind="ours", source="default", engine="warp"))


def test_deadline__ends_a_run(tmp_path: Path) -> None:
    plan = Plan(deadline=time.monotonic() - 1)

    record = measure_case("x", against(None, torch=form("densevit")), plan, tmp_path, ignore)

    assert record.problem == "left out: the time of this run was over"
    assert record.ours == {}


def test_deadline__is_that_of_every_answer(tmp_path: Path) -> None:
    with (
        WorkerProcess(threads=1, log=tmp_path / "log", deadline=time.monotonic() + 1) as worker,
        pytest.raises(WorkerError, match="left out: the time of this run was over"),
    ):
        worker.ask("gemm", seconds=600)
