"""What a run consists of, and the run itself."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from densevit.benchmark.cases import CASES
from densevit.benchmark.child import Worker
from densevit.benchmark.decode import DECODE_CASES, FORMS
from densevit.benchmark.gpu import GPU_CASES, measure_model
from densevit.benchmark.machine import facts
from densevit.benchmark.measure import PEER, Keeps, Plan, Say, measure_case, measure_sides
from densevit.benchmark.peers import PEERS
from densevit.benchmark.record import CaseRecord, Record
from densevit.benchmark.sides import TORCH, SideSpec
from densevit.checkpoints.native import preset_bundle
from densevit.config import nearest
from densevit.errors import ConfigError
from densevit.inference.predictor import pick_device

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
        rounds: most samples of each side.
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

    def plan(self) -> Plan:
        """How thoroughly to measure."""
        threads = tuple(dict.fromkeys((1, *self.threads)))
        plan = Plan(rounds=self.rounds, threads=threads, keep_freed_memory=self.keep_freed_memory)
        if not self.quick:
            return plan
        return replace(
            plan, rounds=min(self.rounds, 5), least=1, budget_s=30.0, memory=1, deadline=time.monotonic() + QUICK_S
        )


def run_suite(suite: str, options: Options, say: Say) -> Record:
    """Measure a suite.

    Raises:
        ConfigError: if there is no such suite, or no case of it has such a name.
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


def run_peers(options: Options, say: Say) -> Record:
    """Our predictions against those of other programs."""
    machine = facts()
    chosen, plan = choose(list(CASES), options.pattern), options.plan()
    engines = tuple(dict.fromkeys((TORCH, *options.engines)))
    gemm = Rates(plan)

    def measure(name: str, folder: Path) -> CaseRecord:
        case = CASES[name]
        if options.quick and options.pattern == "*" and not case.quick:
            record = CaseRecord(name=name, title=case.title, against=PEERS[case.peer].title, bars=case.bars)
            return record.model_copy(update={"problem": LEFT_OUT})
        gemm.sample(folder)
        return measure_case(name, case, plan, folder, engines=engines, say=lambda text: say(f"{name}: {text}"))

    cases = _each(chosen, measure)
    return Record(suite="peers", machine=machine, settings=_settings(plan, options.quick), gemm=gemm.found, cases=cases)


class Rates:
    """The machine's rates of matrix products, sampled all through a run."""

    def __init__(self, plan: Plan) -> None:
        self.found: dict[str, tuple[float, ...]] = {}
        self._plan = plan

    def sample(self, folder: Path, seconds: float = 0.25) -> None:
        """Add samples from a fresh process."""
        if time.monotonic() > self._plan.deadline:
            return
        with Worker(threads=1, log=folder / "gemm.log") as worker:
            for shape, rates in worker.ask("gemm", seconds=seconds)["rates"].items():
                self.found[shape] = (*self.found.get(shape, ()), *rates)


def _each(names: Sequence[str], measure: Callable[[str, Path], CaseRecord]) -> tuple[CaseRecord, ...]:
    with tempfile.TemporaryDirectory(prefix="densevit-benchmark-") as folder:
        return tuple(measure(name, Path(folder)) for name in names)


def _settings(plan: Plan, quick: bool) -> dict[str, Any]:
    settings = asdict(plan)
    del settings["deadline"]
    return {"quick": quick, **settings}


def run_self(options: Options, say: Say) -> Record:
    """Our model that ships and presets of every size, alone."""
    machine = facts()
    chosen, plan = choose(list(OWN), options.pattern), options.plan()
    engines = tuple(dict.fromkeys((TORCH, *options.engines)))
    gemm = Rates(plan)

    def measure(name: str, folder: Path) -> CaseRecord:
        if options.quick and options.pattern == "*" and name not in OWN_QUICK:
            return CaseRecord(name=name, title=OWN[name], problem=LEFT_OUT)
        gemm.sample(folder)
        specs = {engine: SideSpec(kind="ours", source=name, engine=engine, output="all") for engine in engines}
        titles = {engine: f"densevit, {engine}" for engine in engines}
        return measure_sides(name, OWN[name], specs, titles, plan, folder, lambda text: say(f"{name}: {text}"))

    cases = _each(chosen, measure)
    return Record(suite="self", machine=machine, settings=_settings(plan, options.quick), gemm=gemm.found, cases=cases)


def run_decode(options: Options, say: Say) -> Record:
    """Upsampling and arg max in several forms."""
    machine = facts()
    chosen, plan = choose(list(DECODE_CASES), options.pattern), options.plan()
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

    cases = _each(chosen, measure)
    return Record(suite="decode", machine=machine, settings=_settings(plan, options.quick), cases=cases)


def run_gpu(options: Options, say: Say) -> Record:
    """ViT-L on a GPU, in this process.

    Raises:
        ConfigError: if there is no such device.
    """
    machine = facts()
    device = pick_device(options.device or "cuda")
    rounds = min(options.rounds, 5) if options.quick else options.rounds

    def measure(name: str, _: Path) -> CaseRecord:
        case = GPU_CASES[name]
        say(f"{name}: {case.preset} on {device}")
        model = preset_bundle(case.preset).model.eval().to(device)
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(case.batch, 3, *case.image_size, generator=generator).to(device)
        return measure_model(name, case.title, model, images, rounds=rounds)

    cases = _each(choose(list(GPU_CASES), options.pattern), measure)
    settings = {"quick": options.quick, "rounds": rounds, "device": str(device)}
    return Record(suite="gpu", machine=machine, settings=settings, cases=cases)


SUITES: dict[str, Callable[[Options, Say], Record]] = {
    "peers": run_peers,
    "self": run_self,
    "decode": run_decode,
    "gpu": run_gpu,
}
