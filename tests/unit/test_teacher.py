"""Distillation: what the teacher answers, what is learnt from it, and that it stays out of all else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.checkpoints.native import load_bundle
from densevit.errors import ConfigError
from densevit.training.batches import Batch
from densevit.training.build_model import build_model
from densevit.training.config import TrainConfig
from densevit.training.distillation import Teacher, TeacherConfig
from densevit.training.hooks import TrainHooks
from densevit.training.nonfinite_batches import replay
from densevit.training.resolve_config import complete
from densevit.training.train import train
from tests.e2e.scenes import CLASSES, ENCODER, TASKS, recipe, write_model
from tests.tolerances import EXACT, SAME_MATHS

SIZES = {"coarse": (6, 8), "setr": (24, 32), "depth": (6, 8)}


def config(dataset: Path, *heads: str, teacher: Path | None = None, iterations: int = 2, **facts: Any) -> TrainConfig:
    taught = {} if teacher is None else {"teacher": {"checkpoint": str(teacher)}}
    return TrainConfig.parse(complete(recipe(dataset, *heads, iterations=iterations, **taught, **facts)))


def teacher(checkpoint: Path, run: TrainConfig) -> Teacher:
    return Teacher(TeacherConfig(checkpoint=str(checkpoint)), build_model(run), dict(run.tasks), "cpu")


def images(height: int = 48, width: int = 64) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: Path, head: str) -> Tensor:
    """What a checkpoint's head says of ``images()``."""
    return load_bundle(model).model.eval()(images(), (head,))[head].logits


def weights(model: Path) -> dict[str, Tensor]:
    return load_bundle(model).model.state_dict()


def furthest(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def test_answers__are_the_teachers_logits_at_the_students_size(dataset: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "teacher.safetensors", "setr", "coarse", "depth", drop_path=0.5)

    answers = teacher(path, config(dataset, "setr", "depth")).logits(images(), SIZES)

    assert {head: answer.shape for head, answer in answers.items()} == {
        "setr": (2, 4, 24, 32),
        "depth": (2, 1, 6, 8),
    }
    torch.testing.assert_close(answers["setr"], logits(path, "setr"), **EXACT)


def test_answers__follow_the_students_order_of_classes(dataset: Path, tmp_path: Path) -> None:
    order = (2, 0, 3, 1)
    tasks = {"setr": {**TASKS["setr"], "classes": [CLASSES[i] for i in order]}}
    path = write_model(tmp_path / "teacher.safetensors", "setr", tasks=tasks)

    answers = teacher(path, config(dataset, "setr")).logits(images(), SIZES)

    torch.testing.assert_close(answers["setr"][:, order], logits(path, "setr"), **EXACT)


def test_teacher__of_another_patch_size_sees_the_nearest_size_that_it_can(dataset: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "teacher.safetensors", "setr", patch_size=7)

    model = teacher(path, config(dataset, "setr"))
    seen: list[tuple[int, ...]] = []
    model.model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    answers = model.logits(images(), {"setr": (12, 16)})

    assert seen == [(2, 3, 49, 63)]
    assert answers["setr"].shape == (2, 4, 12, 16)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            "coarse",
            "the teacher {} has heads ['coarse'] but the model in training has ['setr']; name a head alike in both, or "
            "unset teacher",
        ),
        (
            {"classes": ("wall", "red")},
            "head 'setr' has channels ['green', 'blue'] but head 'setr' of the teacher {} has ['wall', 'red']; "
            "take a teacher that has all of them, or give the head another name",
        ),
        (
            {"kind": "regression", "channels": CLASSES},
            "head 'setr' learns segmentation but head 'setr' of the teacher {} learnt regression; take another "
            "teacher, or give the head another name",
        ),
    ],
)
def test_teacher__that_has_nothing_to_teach_is_refused(
    head: str | dict[str, Any], message: str, dataset: Path, tmp_path: Path
) -> None:
    name, facts = ("setr", head) if isinstance(head, dict) else (head, {})
    described = {"kind": "segmentation", **facts} if facts else TASKS[name]
    path = write_model(tmp_path / "teacher.safetensors", name, tasks={name: described})

    with pytest.raises(ConfigError) as caught:
        teacher(path, config(dataset, "setr"))

    assert str(caught.value) == message.format(path)


def test_teacher__that_sees_other_channels_is_refused(dataset: Path, tmp_path: Path) -> None:
    run = config(dataset, "setr")
    path = write_model(tmp_path / "teacher.safetensors", "setr")
    channels = {**ENCODER, "in_channels": 4}
    wide = {"encoder": channels, "normalisation": {"mean": [0.5] * 4, "std": [0.5] * 4}}
    student = build_model(run.model_copy(update={"model": run.model.parse({**run.model.plain(), **wide})}))

    with pytest.raises(ConfigError, match="takes 3 channels but the model in training 4, and both get the same images"):
        Teacher(TeacherConfig(checkpoint=str(path)), student, dict(run.tasks), "cpu")


def test_teacher__needs_photos(dataset: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "teacher.safetensors", "setr")
    with pytest.raises(ConfigError, match="a teacher needs images, but features replaces them"):
        config(dataset, "setr", teacher=path, freeze="encoder", features={"directory": str(tmp_path)})


def test_training__with_a_teacher_brings_the_student_nearer_to_it(dataset: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "teacher.safetensors", "coarse", seed=3)
    run = config(dataset, "coarse", iterations=12, schedule={"kind": "constant"})

    def distance(model: Path) -> float:
        return float(run.tasks["coarse"].distillation_loss(logits(model, "coarse"), logits(path, "coarse")))

    alone = train(run, tmp_path / "alone")
    rule = TeacherConfig(checkpoint=str(path), weight=4.0)
    taught = train(run.model_copy(update={"teacher": rule}), tmp_path / "taught")

    assert distance(taught) < 0.2 * distance(alone)


def test_teacher__is_neither_trained_nor_saved(dataset: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "teacher.safetensors", "coarse", seed=3)
    before = path.read_bytes()

    train(config(dataset, "coarse", teacher=path), tmp_path / "taught")
    train(config(dataset, "coarse"), tmp_path / "alone")

    states = [torch.load(tmp_path / run / "states" / "state-00000002.pt") for run in ("taught", "alone")]
    assert states[0]["model"].keys() == states[1]["model"].keys()
    assert not all(torch.equal(states[0]["model"][name], states[1]["model"][name]) for name in states[0]["model"])
    assert path.read_bytes() == before


def test_accumulation__learns_the_same_from_a_teacher(dataset: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "teacher.safetensors", "coarse", seed=3)
    facts = {"teacher": path, "optim": {"kind": "sgd", "lr": 1e-2}}  # AdamW makes much of a rounding error
    models = [train(config(dataset, "coarse", accumulate=n, **facts), tmp_path / str(n)) for n in (1, 4)]
    assert furthest(*models) <= 1e-6


def test_replay__tells_the_loss_against_the_teacher(dataset: Path, tmp_path: Path) -> None:
    class Poison(TrainHooks):
        def before_step(self, iteration: int, batches: Sequence[Sequence[Batch]]) -> None:
            batches[0][0].inputs[0, :, 0, 0] = torch.nan

    path = write_model(tmp_path / "teacher.safetensors", "coarse")
    train(config(dataset, "coarse", teacher=path), tmp_path / "run", hooks=Poison())

    lines = replay(tmp_path / "run" / "bad" / "step-00000001-0-0.safetensors")

    assert "float32: loss/coarse nan" in lines
    assert "float32: loss/coarse nan, against the teacher" in lines


def test_losses__weigh_what_the_task_says(dataset: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "teacher.safetensors", "coarse", seed=3)
    run = config(dataset, "coarse")
    student = build_model(run).eval()
    outputs = student(images())

    for weight in (1.0, 2.5):
        rule = TeacherConfig(checkpoint=str(path), weight=weight)
        losses = Teacher(rule, student, dict(run.tasks), "cpu").losses(images(), outputs)
        expected = weight * run.tasks["coarse"].distillation_loss(outputs["coarse"].logits, logits(path, "coarse"))
        torch.testing.assert_close(losses["coarse"], expected, **SAME_MATHS)
        assert losses["coarse"].requires_grad
