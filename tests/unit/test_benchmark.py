"""The benchmark's statistics, bars, comparison and report on made-up samples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densevit.errors import ConfigError, DataError
from densevit.io import write_json
from densevit_lab.benchmark.bars import all_bars, bars_of, best_engine, share_of_peak, speed_ratio
from densevit_lab.benchmark.cases import CASES, Bars
from densevit_lab.benchmark.measure import compare
from densevit_lab.benchmark.peers import PEERS
from densevit_lab.benchmark.peers.smp import rename
from densevit_lab.benchmark.plot import write_plot
from densevit_lab.benchmark.record import (
    Agreement,
    CaseRecord,
    MemorySample,
    Occasion,
    Record,
    Sample,
    SideRecord,
    joined,
    read_record,
)
from densevit_lab.benchmark.report import closing, page, run_rows, tables
from densevit_lab.benchmark.statistics import ratio_of_medians

BARS = Bars(eager=2.0, best=4.0, memory=6.0, share=0.65, best_share=0.7)
SAME = Agreement(equal=1.0, max_error=0.0, passed=True)


def side(title: str, *cpu: float, transient: int | None = None, **facts: Any) -> SideRecord:
    samples = {"1": tuple(Sample(cpu=value, wall=2 * value) for value in cpu)} if cpu else {}
    memory = ()
    if transient is not None:
        memory = (MemorySample(before=10, peak=10 + transient, transient=transient, exact=True),)
    return SideRecord(title=title, samples=samples, memory=memory, **facts)


def case(**changes: Any) -> CaseRecord:
    facts: dict[str, Any] = {
        "name": "made-up",
        "title": "a model, 512",
        "against": "a program",
        "bars": BARS,
        "peer": side("a program", 3.0, 3.1, 2.9, transient=600, flops=80),
        "ours": {"torch": side("densevit, torch", 1.0, 1.1, 0.9, transient=150, flops=70, agreement=SAME)},
    }
    return CaseRecord(**(facts | changes))


def record(*cases: CaseRecord) -> Record:
    machine = {"cpu": "made up", "packages": {"torch": "2"}}
    return Record(suite="peers", machine=machine, gemm={"s": (90.0, 100.0)}, cases=cases)


def occasion(commit: str) -> Occasion:
    return Occasion(commit=commit, time="2026-01-01T00:00:00Z", settings={"rounds": 3})


def test_ratio__is_that_of_medians_inside_its_interval() -> None:
    ratio = ratio_of_medians([4.0, 4.2, 9.0, 4.1, 3.9], [2.0, 2.1, 2.2, 1.9, 2.0])

    assert ratio.value == pytest.approx(4.1 / 2.0)
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.pairs == 5


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


def test_bars__are_met_or_not_by_the_value() -> None:
    found = {bar.what: (bar.verdict, bar.value) for bar in bars_of(case(), 100.0)}

    assert found["eager"] == ("met", pytest.approx(3.0))
    assert found["memory"] == ("not met", pytest.approx(4.0))
    assert found["share, eager"] == ("met", pytest.approx(0.7))
    assert found["best path"][0] == found["share, best path"][0] == "not measured"


def test_best_path__is_the_fastest_engine() -> None:
    engines = {**case().ours, "fast": side("densevit, fast", 0.5, 0.5, 0.5), "slow": side("densevit, slow", 2.0)}
    found = case(ours=engines)

    bars = {bar.what: bar for bar in bars_of(found, 100.0)}

    assert best_engine(found) == bars["best path"].engine == "fast"
    assert (bars["best path"].verdict, bars["best path"].value) == ("met", pytest.approx(6.0))
    assert share_of_peak(found, "fast", 100.0) == pytest.approx(1.4)


def test_limit__is_the_ratio_at_the_machines_peak() -> None:
    bars = {bar.what: bar.limit for bar in bars_of(case(), 100.0)}

    assert bars["eager"] == pytest.approx(3.0 * 100 / 70)  # the peer's seconds over those of 70 operations at the peak
    assert bars["memory"] is None
    assert {bar.limit for bar in bars_of(case(), None)} == {None}


def test_bars__of_a_missing_peer_are_not_measured() -> None:
    missing = case(peer=None, ours={}, problem="not measured: install densevit[benchmark] (mmseg missing)")

    assert {bar.verdict for bar in bars_of(missing, None)} == {"not measured"}
    assert speed_ratio(missing, "torch") is None


def test_bars__of_differing_outputs_are_invalid() -> None:
    differs = case(ours={"torch": side("densevit, torch", problem="invalid: the outputs differ")})

    bars = {bar.what: bar.verdict for bar in bars_of(differs, 100.0)}

    assert bars["eager"] == bars["memory"] == bars["share, eager"] == "invalid"


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


def test_report__says_every_verdict() -> None:
    left_out = case(name="later", peer=None, ours={}, problem="left out by --quick")
    run = record(case(), left_out)

    text = page(run, plot="images/p.png")

    assert [title for title, _, _ in tables(run)] == ["measured", "bars"]
    assert "| a model, 512 | a program | eager | >= 2x | 3.00x |" in text
    assert "not measured: left out by --quick" in text
    assert "![How many times faster than each peer](images/p.png)" in text
    assert "bars: 2 met, 1 not met, 7 not measured" in closing(run)
    assert len(all_bars(run)) == 10


def test_record__comes_back_from_its_file(tmp_path: Path) -> None:
    run, file = record(case()), tmp_path / "r.json"

    write_json(file, run.plain())

    assert read_record(file) == run
    assert json.loads(file.read_text())["cases"][0]["peer"]["samples"]["1"][0] == {"cpu": 3.0, "wall": 6.0}


def test_joined_record__holds_the_last_measurement_of_every_case() -> None:
    old = record(case(name="b", occasion=occasion("1")), case(name="a", occasion=occasion("1")))
    left_out = case(name="a", ours={}, problem="left out by --quick", occasion=None)
    new = record(case(name="b", title="anew", occasion=occasion("2")), left_out, case(name="c", occasion=None))

    found = joined(old, new, order=("a", "b", "c"))

    assert [(c.name, c.title, c.occasion and c.occasion.commit) for c in found.cases] == [
        ("a", "a model, 512", "1"),
        ("b", "anew", "2"),
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
def test_joined_record__is_of_one_suite_and_machine(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        joined(record(case()), record(case()).model_copy(update=changes), order=())


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


def test_cases__name_peers_and_bars() -> None:
    for name, row in CASES.items():
        assert row.peer in PEERS, name
        assert row.bars.eager, name
        assert row.bars.best, name


def test_names_of_smp__become_those_of_dpt() -> None:
    assert rename("encoder.model.blocks.3.attn.qkv.weight") == "pretrained.model.blocks.3.attn.qkv.weight"
    assert rename("decoder.reassemble_blocks.0.upsample.bias") == "pretrained.act_postprocess1.4.bias"
    assert (
        rename("decoder.fusion_blocks.1.residual_conv_block2.batch_norm_1.weight")
        == "scratch.refinenet3.resConfUnit2.bn1.weight"
    )
