"""The benchmark's statistics, comparison and report on made-up samples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densevit.errors import ConfigError, DataError
from densevit.io import write_json
from densevit_lab.benchmark.cases import PEER_CASES
from densevit_lab.benchmark.measure import compare
from densevit_lab.benchmark.peers import PEERS
from densevit_lab.benchmark.peers.smp import rename
from densevit_lab.benchmark.plot import write_plot
from densevit_lab.benchmark.record import (
    Agreement,
    CaseRecord,
    MemorySample,
    Record,
    RunInfo,
    Sample,
    WorkloadRecord,
    merge_records,
    read_record,
)
from densevit_lab.benchmark.report import closing_lines, measured_rows, page, run_rows
from densevit_lab.benchmark.statistics import ratio_of_medians

ROOT = Path(__file__).parents[2]
SAME = Agreement(equal=1.0, max_error=0.0, passed=True)


def workload(title: str, *cpu: float, transient: int | None = None, **facts: Any) -> WorkloadRecord:
    samples = {"1": tuple(Sample(cpu=value, wall=2 * value) for value in cpu)} if cpu else {}
    memory = ()
    if transient is not None:
        memory = (MemorySample(before=10, peak=10 + transient, transient=transient, exact=True),)
    return WorkloadRecord(title=title, samples=samples, memory=memory, **facts)


def case(**changes: Any) -> CaseRecord:
    facts: dict[str, Any] = {
        "name": "made-up",
        "title": "a model, 512",
        "against": "a program",
        "peer": workload("a program", 3.0, 3.1, 2.9, transient=600, flops=80),
        "ours": {"torch": workload("densevit, torch", 1.0, 1.1, 0.9, transient=150, flops=70, agreement=SAME)},
    }
    return CaseRecord(**(facts | changes))


def record(*cases: CaseRecord) -> Record:
    machine = {"cpu": "made up", "packages": {"torch": "2"}}
    return Record(suite="peers", machine=machine, gemm={"s": (90.0, 100.0)}, cases=cases)


def run_info(commit: str) -> RunInfo:
    return RunInfo(commit=commit, time="2026-01-01T00:00:00Z", settings={"rounds": 3})


def test_ratio__is_that_of_medians_inside_its_interval() -> None:
    ratio = ratio_of_medians([4.0, 4.2, 9.0, 4.1, 3.9], [2.0, 2.1, 2.2, 1.9, 2.0])

    assert ratio.value == pytest.approx(4.1 / 2.0)
    assert ratio.low <= ratio.value <= ratio.high


def test_ratio__cancels_what_hits_both_sides_of_a_pair() -> None:
    noise = np.random.default_rng(0).uniform(1, 3, size=40)

    ratio = ratio_of_medians(list(2 * noise), list(noise))

    assert (ratio.low, ratio.high) == (pytest.approx(2.0), pytest.approx(2.0))


def test_ratio__is_repeatable_and_covers_the_truth() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        a, b = 3 * generator.lognormal(0, 0.1, size=15), generator.lognormal(0, 0.1, size=15)
        ratio = ratio_of_medians(list(a), list(b))
        covered += ratio.low <= 3.0 <= ratio.high

    assert covered >= 52
    assert ratio == ratio_of_medians(list(a), list(b))


@pytest.mark.parametrize(("theirs", "ours"), [([], []), ([1.0, 2.0], [1.0])])
def test_ratio__needs_pairs(theirs: list[float], ours: list[float]) -> None:
    with pytest.raises(ValueError, match="pairs are needed"):
        ratio_of_medians(theirs, ours)


def test_figures__are_those_of_medians() -> None:
    ratio = case().speed_ratio("torch")

    assert ratio is not None
    assert ratio.value == pytest.approx(3.0)
    assert case().share_of_peak("torch", 100.0) == pytest.approx(0.7)
    assert case().ours["torch"].transient_bytes == 150


def test_fastest_engine__has_the_least_cpu_time() -> None:
    engines = {**case().ours, "fast": workload("fast", 0.5, 0.5, 0.5), "broken": workload("broken", problem="no")}
    measured = case(ours=engines)

    assert measured.fastest_engine() == "fast"
    assert measured.share_of_peak("fast", 100.0) == pytest.approx(1.4)
    assert measured.speed_ratio("broken") is None


def test_figures__of_a_missing_peer_are_none() -> None:
    missing = case(peer=None, ours={}, problem="not measured: install densevit[benchmark] (mmseg missing)")

    assert missing.speed_ratio("torch") is None
    assert missing.share_of_peak("torch", 100.0) is None
    assert missing.fastest_engine() is None


def test_comparison__takes_ties_and_refuses_differences() -> None:
    labels = np.random.default_rng(0).integers(0, 150, size=(100, 100))
    tie, other = labels.copy(), labels.copy()
    tie[0, 0] += 1
    other[:1] += 1

    assert compare(tie.astype(np.uint8), labels, values=False).passed
    assert not compare(other, labels, values=False).passed
    assert not compare(labels[:50], labels, values=False).passed


def test_comparison__of_depth_is_relative_to_its_range() -> None:
    depth = np.random.default_rng(0).uniform(0, 50, size=(20, 20)).astype(np.float32)
    spike = depth.copy()
    spike[3, 3] += 0.1

    assert compare(depth + 1e-3, depth, values=True).passed
    assert not compare(spike, depth, values=True).passed
    assert not compare(np.full_like(depth, np.nan), depth, values=True).passed


def test_page__holds_every_measurement() -> None:
    left_out = case(name="later", peer=None, ours={}, problem="left out by --quick")
    run = record(case(), left_out)

    text = page(run, plot="images/p.png")

    # The limit is the ratio at the machine's peak: 3 over a share of 0.7.
    assert measured_rows(run)[1][5:8] == ("3.00 (2.82 to 3.22)", "4.29", "0 (4.0x less)")
    assert "| a model, 512 | a program | 3 | 3 | 6 (1) |" in text
    assert "![How many times faster than each peer](images/p.png)" in text
    assert closing_lines(run)[-1] == "later: left out by --quick"
    assert "- later: left out by --quick" in text


def test_record__with_targets_of_older_versions_is_read(tmp_path: Path) -> None:
    run, file = record(case()), tmp_path / "r.json"
    old = run.plain()
    old["cases"][0]["bars"] = {"eager": 5.0, "best": 6.5, "memory": 6.0, "share": None, "best_share": None}

    write_json(file, old)

    assert read_record(file) == run


@pytest.mark.parametrize("name", ["peers", "training-step"])
def test_record__of_the_project_is_the_page_in_the_documentation(name: str) -> None:
    pages = {"peers": "benchmarks", "training-step": "training-step"}
    plot = "../images/benchmark-peers.png" if name == "peers" else None

    text = page(read_record(ROOT / "benchmarks" / f"{name}.json"), plot=plot)

    assert text == (ROOT / "docs" / "reference" / f"{pages[name]}.md").read_text(encoding="utf-8")


def test_record__comes_back_from_its_file(tmp_path: Path) -> None:
    run, file = record(case()), tmp_path / "r.json"

    write_json(file, run.plain())

    assert read_record(file) == run
    assert json.loads(file.read_text())["cases"][0]["peer"]["samples"]["1"][0] == {"cpu": 3.0, "wall": 6.0}


def test_merged_record__holds_the_last_measurement_of_every_case() -> None:
    old = record(case(name="b", occasion=run_info("1")), case(name="a", occasion=run_info("1")))
    left_out = case(name="a", ours={}, problem="left out by --quick", occasion=None)
    new = record(case(name="b", title="again", occasion=run_info("2")), left_out, case(name="c", occasion=None))

    found = merge_records(old, new, order=("a", "b", "c"))

    assert [(c.name, c.title, c.occasion and c.occasion.commit) for c in found.cases] == [
        ("a", "a model, 512", "1"),
        ("b", "again", "2"),
        ("c", "a model, 512", None),
    ]
    assert found.gemm == {"s": (90.0, 100.0, 90.0, 100.0)}
    assert run_rows(found) == [
        ("1", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "rounds 3", "a"),
        ("2", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "rounds 3", "b"),
    ]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"suite": "self"}, "a record holds one suite"),
        ({"machine": {"cpu": "another", "packages": {"torch": "2"}}}, "with cpu made up but here it is another"),
        ({"machine": {"cpu": "made up", "packages": {"torch": "3"}}}, "one machine and its versions; name another"),
    ],
)
def test_merged_record__is_of_one_suite_and_machine(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        merge_records(record(case()), record(case()).model_copy(update=changes), order=())


@pytest.mark.parametrize(
    ("text", "error"), [(None, DataError), ("{", DataError), ("[]", DataError), ("{}", ConfigError)]
)
def test_record__of_another_kind_is_refused(text: str | None, error: type[Exception], tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    if text is not None:
        file.write_text(text)

    with pytest.raises(error):
        read_record(file)


def test_plot__is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    write_plot(record(case()), tmp_path / "p.png")

    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "match"), [("p.jpg", "a plot is .png or .svg"), ("p.png", "compared nothing")])
def test_plot__says_what_it_cannot(name: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=match):
        write_plot(record(case(peer=None, ours={})), tmp_path / name)


def test_cases__name_peers() -> None:
    assert {case.peer.source for case in PEER_CASES.values() if case.peer is not None} == PEERS.keys()


def test_names_of_smp__become_those_of_dpt() -> None:
    assert rename("encoder.model.blocks.3.attn.qkv.weight") == "pretrained.model.blocks.3.attn.qkv.weight"
    assert rename("decoder.reassemble_blocks.0.upsample.bias") == "pretrained.act_postprocess1.4.bias"
    assert (
        rename("decoder.fusion_blocks.1.residual_conv_block2.batch_norm_1.weight")
        == "scratch.refinenet3.resConfUnit2.bn1.weight"
    )
