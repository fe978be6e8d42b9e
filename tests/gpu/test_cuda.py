"""The same results on CUDA as on the CPU, whole passes in bfloat16, and a run that learns there."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import densevit
from densevit.evaluation.evaluate import evaluate
from densevit.evaluation.selection import open_dataset
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import complete
from densevit.training.train import train
from tests.e2e.scenes import HEADS, recipe, scene
from tests.factories import VARIANTS, random_images, tiny_model
from tests.tolerances import relative_l2

pytestmark = pytest.mark.gpu

DEVICES = 1e-4
"""Relative L2 between two devices in float32: other kernels, other orders of summation."""


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """Products in float32 proper: TF32 keeps 10 bits of the mantissa."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
    torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits__on_cuda_are_those_of_the_cpu(name: str) -> None:
    model, images = tiny_model(name, prefix="cls+dist"), random_images((3, 5))

    with torch.no_grad():
        reference = model(images)["main"].logits
        logits = model.to("cuda")(images.to("cuda"))["main"].logits

    assert relative_l2(logits.cpu(), reference) <= DEVICES


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients__on_cuda_are_those_of_the_cpu(name: str) -> None:
    gradients = []
    for device in ("cpu", "cuda"):
        model = tiny_model(name, prefix="cls+dist").to(device)  # in evaluation mode, so nothing is dropped
        logits = model(random_images((3, 5)).to(device))["main"].logits
        (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(3)).to(device)).sum().backward()
        gradients.append(model.encoder.patch_embed.proj.weight.grad.cpu())

    assert relative_l2(gradients[1], gradients[0]) <= 10 * DEVICES


@pytest.mark.parametrize("name", VARIANTS)
def test_autocast__gives_finite_logits_and_gradients(name: str) -> None:
    model = tiny_model(name, prefix="cls+dist").train().to("cuda")

    with torch.autocast("cuda", dtype=torch.bfloat16):
        output = model(random_images((2, 3)).to("cuda"))["main"]
    outputs = (output.logits, *output.aux)
    torch.stack([o.float().sum() for o in outputs]).sum().backward()

    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(bool(t.isfinite().all()) for t in (*outputs, *gradients))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_train__on_cuda_lowers_every_loss(precision: str, dataset: Path, tmp_path: Path) -> None:
    config = complete(recipe(dataset, *HEADS, iterations=40, precision=precision))

    train(TrainConfig.parse(config), tmp_path / "run", device="cuda")

    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [row for row in log if row["event"] == "step"]
    falls = {
        head: np.mean([row[f"loss/{head}"] for row in steps[-5:]]) / np.mean([row[f"loss/{head}"] for row in steps[:5]])
        for head in HEADS
    }
    assert all(fall < 0.9 for fall in falls.values()), falls


def test_train__from_cached_features_on_cuda_lowers_the_loss(dataset: Path, tmp_path: Path) -> None:
    frozen = {"freeze": "encoder", "features": {"directory": str(tmp_path / "features"), "flip": True}}
    config = complete(recipe(dataset, "setr", iterations=40, **frozen))

    train(TrainConfig.parse(config), tmp_path / "run", device="cuda")

    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [row["loss/setr"] for row in log if row["event"] == "step"]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_train__resumed_on_cuda_goes_on_where_it_was(dataset: Path, tmp_path: Path) -> None:
    def run(iterations: int, *, resume: bool) -> None:
        facts = {"checkpoint_every": 5, "schedule": {"kind": "constant"}}
        config = complete(recipe(dataset, "setr", iterations=iterations, **facts))
        train(TrainConfig.parse(config), tmp_path / "run", resume=resume, device="cuda")

    run(5, resume=False)
    run(8, resume=True)

    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in log if row["event"] == "step"] == list(range(1, 9))


def test_predict__on_cuda_gives_what_the_cpu_gives(trained: Path) -> None:
    photo = scene(7, (57, 83)).image

    cpu, cuda = (densevit.load(trained, device=device).predict(photo) for device in ("cpu", "cuda"))

    assert {head: (cpu[head].labels == cuda[head].labels).mean() > 0.999 for head in ("setr", "segmenter", "dpt")} == {
        "setr": True,
        "segmenter": True,
        "dpt": True,
    }
    assert relative_l2(torch.from_numpy(cuda.depth), torch.from_numpy(cpu.depth)) <= DEVICES


def test_evaluate__on_cuda_gives_what_the_cpu_gives(trained: Path, dataset: Path) -> None:
    figures = []
    for device in ("cpu", "cuda"):
        model = densevit.load(trained, device=device)
        tasks = {head: model.tasks[head] for head in ("dpt", "depth")}
        config = TrainConfig.parse(complete(recipe(dataset, *tasks, iterations=1))).sources[0].val
        assert config is not None
        found = evaluate(model.model, tasks, model.fit, open_dataset(config, tuple(tasks), model.tasks))
        figures.append((found["dpt"]["mIoU"], found["depth"]["AbsRel"]))

    assert figures[1] == pytest.approx(figures[0], abs=2e-3)
