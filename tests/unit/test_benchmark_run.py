"""The benchmark's child processes, tiny runs of its suites, and its command line."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.cli.main import main
from densevit.errors import DensevitError
from densevit.inference.predictor import Predictor
from densevit.io import write_json
from densevit_lab.benchmark import gpu, measure, sides, suites
from densevit_lab.benchmark.child import ChildError, Worker
from densevit_lab.benchmark.decode import FORMS, DecodeCase, open_form
from densevit_lab.benchmark.flops import count_flops
from densevit_lab.benchmark.machine import facts, gemm_rates, occasion
from densevit_lab.benchmark.measure import PEER, Plan, measure_sides
from densevit_lab.benchmark.peers import segmenter
from densevit_lab.benchmark.photo import write_photo
from densevit_lab.benchmark.record import CaseRecord, read_record
from densevit_lab.benchmark.sides import SideSpec
from densevit_lab.benchmark.suites import Options, run_suite
from tests.factories import random_images, tiny_model

MB = 1_000_000
SMALL = {"num_classes": 5, "grid": (4, 4), "size": (32, 32)}


def benchmark(*arguments: object) -> int:
    """The exit code of ``densevit benchmark ARGUMENTS``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["densevit", "benchmark", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def test_child__measures_memory_and_goes_on_after_an_error(tmp_path: Path) -> None:
    sizes = SMALL | {"num_classes": 200, "size": (500, 500)}
    wrong, right = (SideSpec(kind="decode", source=f"interpolate, argmax{end}", options=sizes) for end in ("x", ""))
    with Worker(threads=1, log=tmp_path / "log") as worker:
        with pytest.raises(ChildError, match="did you mean 'interpolate, argmax'"):
            worker.ask("load", side=wrong.plain(), threads=1)
        worker.ask("load", side=right.plain(), threads=1)
        memory = worker.ask("first", image=str(tmp_path))["memory"]
        worker._process.kill()
        with pytest.raises(ChildError, match="was killed, perhaps for lack of memory"):
            worker.ask("gemm")

    assert 195 * MB <= memory["transient"] <= 300 * MB  # 200 x 500 x 500 floats, and the labels


def test_sides__that_differ_are_invalid_and_not_timed(tmp_path: Path) -> None:
    other = SideSpec(kind="decode", source="densevit", options=SMALL | {"seed": 1})
    specs = {PEER: SideSpec(kind="decode", source="interpolate, argmax", options=SMALL), "other": other}

    found = measure_sides(
        "x", "x", specs, {key: key for key in specs}, Plan(rounds=1, memory=1), tmp_path, lambda _: None
    )

    assert found.peer is not None
    assert found.peer.samples == {}
    assert found.ours["other"].samples == {}
    assert found.ours["other"].problem.startswith("invalid: the outputs differ (")


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


def test_machine__is_described() -> None:
    found = facts()

    assert found["cpu"]
    assert found["packages"]["torch"] == torch.__version__.split("+")[0]
    assert occasion(["benchmark"])["command"] == ["densevit", "benchmark"]
    assert occasion(["--into", "/home/me/record.json"])["command"] == ["densevit", "--into", "record.json"]
    assert all(rate > 0 for rates in gemm_rates(0.0).values() for rate in rates)


def test_official_arithmetic__is_reproduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(segmenter.NAMED_SIZES, "Ti", {"embed_dim": 64, "depth": 2, "num_heads": 1})
    photo = tmp_path / "p.jpg"
    write_photo(photo, (48, 80))

    peer = segmenter.build({"width": "Ti", "num_classes": 6, "window": 32, "stride": 16}, "cpu")
    bundle = peer.bundle()

    theirs, ours = peer.predict(photo), Predictor(bundle, device="cpu").predict(photo, protocol="segmenter").labels
    assert theirs.shape == (48, 80)
    assert len(np.unique(theirs)) > 1
    assert np.mean(theirs == ours) == 1.0


def test_gpu_suite__runs_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = gpu.measure_model(
        "x", "x", tiny_model("segmenter_mask"), random_images((3, 3)), rounds=2, only=(gpu.EAGER, "bfloat16")
    )

    assert found.peer is not None
    assert len(found.peer.samples["1"]) == len(found.ours["bfloat16"].samples["1"]) == 2
    agreement = found.ours["bfloat16"].agreement
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
        (("--from", "nowhere.json"), "cannot read nowhere.json"),
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
    monkeypatch.setattr(sides, "find_spec", lambda name: None)
    monkeypatch.setattr(suites, "_sampled", lambda gemm, folder: gemm)

    code = benchmark("--cases", "dpt-b-smp", "--json", tmp_path / "r.json")
    again = benchmark("--from", tmp_path / "r.json", "--markdown", tmp_path / "r.md")

    reason = "not measured: install densevit[benchmark] (segmentation-models-pytorch missing)"
    assert (code, again) == (0, 0)
    assert json.loads((tmp_path / "r.json").read_text())["cases"][0]["problem"] == reason
    assert reason in (tmp_path / "r.md").read_text()
    assert "dpt-b-smp" in capsys.readouterr().out


def small_decode(name: str) -> DecodeCase:
    return DecodeCase(name, 7, (5, 6), (33, 40))


def test_command__measures_a_suite_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, cases = tmp_path / "r.json", {"first": small_decode("first"), "second": small_decode("second")}
    monkeypatch.setattr(suites, "DECODE_CASES", cases)
    monkeypatch.setattr(suites, "FORMS", {"interpolate, argmax": None, "densevit": None})
    suite = ("--suite", "decode", "--into", file)

    codes = [benchmark(*suite, "--cases", name, "--rounds", 1) for name in ("second", "first", "second")]

    found = read_record(file)
    assert codes == [0, 0, 0]
    assert [case.name for case in found.cases] == ["first", "second"]
    assert all(case.ours["densevit"].samples["1"] for case in found.cases)
    assert all(case.occasion is not None and case.occasion.settings["rounds"] == 1 for case in found.cases)


def test_command__keeps_what_was_measured_before_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "r.json"

    def measured(name: str, *_: Any, **__: Any) -> CaseRecord:
        if name == "camvid":
            raise KeyboardInterrupt
        return CaseRecord(name=name, title=name)

    monkeypatch.setattr(suites, "measure_sides", measured)

    with pytest.raises(KeyboardInterrupt):
        run_suite("decode", Options(), print, lambda record: write_json(file, record.plain()))

    names = list(suites.DECODE_CASES)
    assert [case.name for case in read_record(file).cases] == names[: names.index("camvid")]


def test_engine__that_is_unknown_is_a_problem_of_its_side() -> None:
    with pytest.raises(DensevitError, match="there is no engine 'warp'"):
        sides.load_predictor(SideSpec(kind="ours", source="default", engine="warp"))


def test_deadline__ends_a_run(tmp_path: Path) -> None:
    spec = {"torch": SideSpec(kind="decode", source="densevit", options=SMALL)}
    plan = Plan(deadline=time.monotonic() - 1)

    found = measure_sides("x", "x", spec, {"torch": "t"}, plan, tmp_path, lambda _: None)

    assert found.problem == "left out: the time of this run was over"
    assert measure.PEER not in found.ours


def test_deadline__is_that_of_every_answer(tmp_path: Path) -> None:
    with (
        Worker(threads=1, log=tmp_path / "log", until=time.monotonic() + 1) as worker,
        pytest.raises(ChildError, match="left out: the time of this run was over"),
    ):
        worker.ask("gemm", seconds=600)
