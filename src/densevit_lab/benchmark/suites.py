"""What a run consists of, and the run itself."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from densevit.checkpoints.native import preset_bundle
from densevit.config import nearest
from densevit.device import pick_device
from densevit.errors import ConfigError
from densevit_lab.benchmark.cases import CASES
from densevit_lab.benchmark.child import Worker
from densevit_lab.benchmark.decode import DECODE_CASES, FORMS
from densevit_lab.benchmark.gpu import GPU_CASES, measure_model
from densevit_lab.benchmark.machine import facts, occasion
from densevit_lab.benchmark.measure import PEER, Keeps, Plan, Say, measure_case, measure_sides
from densevit_lab.benchmark.peers import PEERS
from densevit_lab.benchmark.record import CaseRecord, Occasion, Record
from densevit_lab.benchmark.sides import TORCH, SideSpec
from densevit_lab.benchmark.training import OFFICIAL, OURS, TRAINING_CASES

OWN: dict[str, str] = {
    "default": "the default model, 512",
    "segmenter-ti-mask": "Segmenter-Ti, 512",
    "segmenter-s-mask": "Segmenter-S, 512",
    "segmenter-b-mask": "Segmenter-B, 512",
    "setr-pup-l-ade20k": "SETR-PUP ViT-L, 512",
    "dpt-base-ade20k": "DPT-Base labels, 512",
    "depth-anything-s": "Depth-Anything-V2-Small, 518",
    "dpt-large-depth": "DPT-Large depth, 384",
}
"""What ``Predictor.load`` takes -> title; on a photo of 512 x 512, by our own way."""
OWN_QUICK = ("default", "segmenter-ti-mask", "segmenter-s-mask")
LEFT_OUT = "left out by --quick"
QUICK_S = 270.0
"""A quick run ends after this, and its processes need a moment to do so."""


@dataclass(frozen=True)
class Options:
    """What a person asks for.

    Attributes:
        pattern: which cases.
        quick: few cases, few samples, and an end within five minutes.
        engines: of ours, beside eager torch.
        threads: numbers of threads, beside one.
        rounds: most samples of each side; memory takes three at most.
        keep_freed_memory: see ``Plan``.
        device: of the suite "gpu".
    """

    pattern: str = "*"
    quick: bool = False
    engines: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    rounds: int = 15
    keep_freed_memory: Keeps = "neither"
    device: str | None = None

    def with_torch(self) -> tuple[str, ...]:
        """Eager torch and the other engines."""
        return tuple(dict.fromkeys((TORCH, *self.engines)))

    def plan(self) -> Plan:
        """How thoroughly to measure."""
        threads = tuple(dict.fromkeys((1, *self.threads)))
        plan = Plan(
            rounds=self.rounds,
            threads=threads,
            memory=min(self.rounds, 3),
            keep_freed_memory=self.keep_freed_memory,
        )
        if not self.quick:
            return plan
        return replace(
            plan, rounds=min(self.rounds, 5), least=1, budget_s=30.0, memory=1, deadline=time.monotonic() + QUICK_S
        )


@dataclass(frozen=True)
class Suite:
    """Cases, and how one is measured.

    Attributes:
        cases: by name, as they stand in a record before they are measured.
        measure: a case, with a folder for its files.
        settings: how thoroughly, for the record.
        quick: the cases of a quick run.
        rates: whether the machine's rate of matrix products is sampled before every case.
        deadline: ``time.monotonic`` at which everything ends.
    """

    cases: dict[str, CaseRecord]
    measure: Callable[[str, Path], CaseRecord]
    settings: dict[str, Any]
    quick: tuple[str, ...]
    rates: bool = False
    deadline: float = float("inf")


def run_suite(suite: str, options: Options, say: Say, keep: Callable[[Record], None] = lambda record: None) -> Record:
    """Measure a suite.

    Args:
        suite: which.
        options: what is wanted of it.
        say: told what is going on.
        keep: called with the record so far, before the first case and after every one.

    Raises:
        ConfigError: if there is no such suite, or no case of it has such a name.
    """
    found = open_suite(suite, options, say)
    chosen = choose(list(found.cases), options.pattern)
    record = Record(suite=suite, machine=facts())
    keep(record)
    with tempfile.TemporaryDirectory(prefix="densevit-benchmark-") as name_of_folder:
        folder = Path(name_of_folder)
        for name in chosen:
            if options.quick and options.pattern == "*" and name not in found.quick:
                case, gemm = found.cases[name].model_copy(update={"problem": LEFT_OUT}), record.gemm
            else:
                now = Occasion.parse({**occasion(), "settings": found.settings})
                gemm = _sampled(record.gemm, folder) if found.rates and time.monotonic() < found.deadline else {}
                case = found.measure(name, folder).model_copy(update={"occasion": now})
            record = record.model_copy(update={"gemm": gemm or record.gemm, "cases": (*record.cases, case)})
            keep(record)
    return record


def open_suite(suite: str, options: Options, say: Say) -> Suite:
    """A suite by its name.

    Raises:
        ConfigError: if there is no such suite.
    """
    if suite not in SUITES:
        raise ConfigError(f"there is no suite {suite!r}{nearest(suite, SUITES)}")
    return SUITES[suite](options, say)


def choose(names: Sequence[str], pattern: str) -> list[str]:
    """The names of cases that a pattern such as ``setr-*`` fits.

    Raises:
        ConfigError: if there are none, with the nearest name.
    """
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ConfigError(f"there is no case {pattern!r}{nearest(pattern, names)}")
    return found


def _sampled(gemm: dict[str, tuple[float, ...]], folder: Path, seconds: float = 0.25) -> dict[str, tuple[float, ...]]:
    """The machine's rates of matrix products, with more samples from a fresh process."""
    with Worker(threads=1, log=folder / "gemm.log") as worker:
        new = worker.ask("gemm", seconds=seconds)["rates"]
    return {shape: (*gemm.get(shape, ()), *rates) for shape, rates in new.items()}


def _settings(options: Options, plan: Plan) -> dict[str, Any]:
    settings = asdict(plan)
    del settings["deadline"]
    return {"quick": options.quick, **settings}


def peers_suite(options: Options, say: Say) -> Suite:
    """Our predictions against those of other programs."""
    plan, engines = options.plan(), options.with_torch()

    def measure(name: str, folder: Path) -> CaseRecord:
        return measure_case(name, CASES[name], plan, folder, engines=engines, say=lambda text: say(f"{name}: {text}"))

    blank = {
        name: CaseRecord(name=name, title=case.title, against=PEERS[case.peer].title, bars=case.bars)
        for name, case in CASES.items()
    }
    quick = tuple(name for name, case in CASES.items() if case.quick)
    return Suite(blank, measure, _settings(options, plan), quick, rates=True, deadline=plan.deadline)


def self_suite(options: Options, say: Say) -> Suite:
    """Our model that ships and presets of every size, alone."""
    plan, engines = options.plan(), options.with_torch()

    def measure(name: str, folder: Path) -> CaseRecord:
        specs = {engine: SideSpec(kind="ours", source=name, engine=engine, output="all") for engine in engines}
        titles = {engine: f"densevit, {engine}" for engine in engines}
        return measure_sides(name, OWN[name], specs, titles, plan, folder, lambda text: say(f"{name}: {text}"))

    blank = {name: CaseRecord(name=name, title=title) for name, title in OWN.items()}
    return Suite(blank, measure, _settings(options, plan), OWN_QUICK, rates=True, deadline=plan.deadline)


def decode_suite(options: Options, say: Say) -> Suite:
    """Upsampling and arg max in several forms."""
    plan = options.plan()
    slowest, *others = FORMS

    def measure(name: str, folder: Path) -> CaseRecord:
        case = DECODE_CASES[name]
        sizes = {"num_classes": case.num_classes, "grid": case.grid, "size": case.size}
        specs = {
            PEER if form == slowest else form: SideSpec(kind="decode", source=form, options=sizes)
            for form in (slowest, *others)
        }
        titles = {PEER: slowest} | {form: form for form in others}
        return measure_sides(name, case.title, specs, titles, plan, folder, lambda text: say(f"{name}: {text}"))

    blank = {name: CaseRecord(name=name, title=case.title) for name, case in DECODE_CASES.items()}
    return Suite(blank, measure, _settings(options, plan), tuple(blank))


def training_suite(options: Options, say: Say) -> Suite:
    """A step of training against the official arithmetic."""
    plan = options.plan()

    def measure(name: str, folder: Path) -> CaseRecord:
        case = TRAINING_CASES[name]
        facts = {"kind": "training", "options": case.options, "engine": "autograd", "output": "depth"}
        specs = {key: SideSpec.parse({"source": side, **facts}) for key, side in ((PEER, OFFICIAL), (TORCH, OURS))}
        titles = {PEER: OFFICIAL, TORCH: OURS}
        found = measure_sides(name, case.title, specs, titles, plan, folder, lambda text: say(f"{name}: {text}"))
        # Operations inside the kernels of our backward pass are not seen, so their count would be too small.
        peer = None if found.peer is None else found.peer.model_copy(update={"flops": None})
        ours = {engine: side.model_copy(update={"flops": None}) for engine, side in found.ours.items()}
        return found.model_copy(update={"bars": case.bars, "peer": peer, "ours": ours})

    blank = {
        name: CaseRecord(name=name, title=case.title, against=OFFICIAL, bars=case.bars)
        for name, case in TRAINING_CASES.items()
    }
    return Suite(blank, measure, _settings(options, plan), ("segmenter-ti-linear",), deadline=plan.deadline)


def gpu_suite(options: Options, say: Say) -> Suite:
    """ViT-L on a GPU, in this process.

    Raises:
        ConfigError: if there is no such device.
    """
    device = pick_device(options.device or "cuda")
    rounds = min(options.rounds, 5) if options.quick else options.rounds

    def measure(name: str, _: Path) -> CaseRecord:
        case = GPU_CASES[name]
        say(f"{name}: {case.preset} on {device}")
        model = preset_bundle(case.preset).model.eval().to(device)
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(case.batch, 3, *case.image_size, generator=generator).to(device)
        return measure_model(name, case.title, model, images, rounds=rounds)

    blank = {name: CaseRecord(name=name, title=case.title) for name, case in GPU_CASES.items()}
    settings = {"quick": options.quick, "rounds": rounds, "device": str(device)}
    return Suite(blank, measure, settings, tuple(blank))


SUITES: dict[str, Callable[[Options, Say], Suite]] = {
    "peers": peers_suite,
    "self": self_suite,
    "decode": decode_suite,
    "training": training_suite,
    "gpu": gpu_suite,
}
