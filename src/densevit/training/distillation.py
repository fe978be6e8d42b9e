"""Distillation: a trained model answers for every photo, and the model in training also learns from its answers.

Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, at temperature 1; Beyer et al.,
"Knowledge distillation: A good teacher is patient and consistent", 2022: the teacher sees the same augmented view.
"""

import logging

import torch
from pydantic import Field
from torch import Tensor

from densevit.checkpoints.open import open_model
from densevit.config import Config
from densevit.errors import ConfigError
from densevit.layers import resize
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.types import DenseOutput, Size

_log = logging.getLogger(__name__)


class TeacherConfig(Config):
    """Who teaches, and how much it counts.

    Attributes:
        checkpoint: a trained model in any format that densevit reads, or "default"; its heads teach those of the same
            name.
        weight: of the loss against its answers, beside the loss against the labels.
    """

    checkpoint: str
    weight: float = Field(default=1.0, gt=0)


class Teacher:
    """A model in evaluation mode whose heads teach those of the same name. It is no part of what is trained.

    Args:
        config: the checkpoint.
        student: the model in training.
        tasks: its tasks.
        device: of both.

    Attributes:
        channels: per head that is taught, the teacher's channels in the student's order.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
        ConfigError: if it has nothing to teach, or a head of the same name means something else.
    """

    def __init__(
        self, config: TeacherConfig, student: DenseModel, tasks: dict[str, Task], device: torch.device | str
    ) -> None:
        bundle = open_model(config.checkpoint)
        self.weight = config.weight
        self.channels = {
            head: _matching(head, task, bundle.tasks[head], config.checkpoint)
            for head, task in tasks.items()
            if head in bundle.tasks
        }
        if not self.channels:
            raise ConfigError(
                f"the teacher {config.checkpoint} has heads {sorted(bundle.tasks)} but the model in training has "
                f"{sorted(tasks)}; name a head alike in both, or unset teacher"
            )
        channels = (bundle.model.config.encoder.in_channels, student.config.encoder.in_channels)
        if channels[0] != channels[1]:
            raise ConfigError(
                f"the teacher {config.checkpoint} sees {channels[0]} channels but the model in training {channels[1]}; "
                "both must see the same photos; take another teacher"
            )
        _log.info("%s learn from %s too, weight %g", ", ".join(self.channels), config.checkpoint, config.weight)
        self.tasks = tasks
        self.model = bundle.model.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def answers(self, images: Tensor, sizes: dict[str, Size]) -> dict[str, Tensor]:
        """Images (B, C, H, W) in [0, 1] -> logits (B, K, *size) of every head that is taught, in the student's order.

        Args:
            images: the batch, resized here to the nearest multiples of the teacher's patch.
            sizes: of the student's logits, by head; heads that are not taught are left out of the answer.
        """
        heads = tuple(head for head in sizes if head in self.channels)
        if not heads:
            return {}
        height, width = (
            max(round(side / patch), 1) * patch
            for side, patch in zip(images.shape[-2:], self.model.config.encoder.patch_size, strict=True)
        )
        outputs = self.model(resize(images, (height, width), align_corners=False), heads)
        return {
            head: resize(
                outputs[head].logits[:, self.channels[head]].float(),
                sizes[head],
                align_corners=self.model.decoder(head).align_corners,
            )
            for head in heads
        }

    def losses(self, images: Tensor, outputs: dict[str, DenseOutput]) -> dict[str, Tensor]:
        """The weighted losses, float32, of the student's outputs against the teacher's answers for the same images."""
        answers = self.answers(images, {head: _size(output.logits) for head, output in outputs.items()})
        with torch.autocast(images.device.type, enabled=False):
            return {
                head: self.weight * self.tasks[head].distillation_loss(outputs[head].logits.float(), answer)
                for head, answer in answers.items()
            }


def _matching(head: str, task: Task, taught: Task, source: str) -> list[int]:
    """The teacher's channels that the student has, in the student's order."""
    names = taught.channel_names
    if missing := [name for name in task.channel_names if name not in names]:
        raise ConfigError(
            f"head {head!r} has channels {missing} but head {head!r} of the teacher {source} has {list(names)}; "
            "a teacher must know all of them; take another teacher, or give the head another name"
        )
    if task.kind != taught.kind:
        raise ConfigError(
            f"head {head!r} learns {task.kind} but head {head!r} of the teacher {source} gives {taught.kind}; "
            "both must be of one kind; take another teacher, or give the head another name"
        )
    return [names.index(name) for name in task.channel_names]


def _size(logits: Tensor) -> Size:
    return logits.shape[-2], logits.shape[-1]
