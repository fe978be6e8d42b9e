"""Distillation: the model in training also learns from the outputs of a trained model for the same images.

Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, at temperature 1; Beyer et al.,
"Knowledge distillation: A good teacher is patient and consistent", 2022: the teacher gets the same augmented view.
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
    """The teacher and the weight of its loss.

    Attributes:
        checkpoint: a trained model in any format that densevit reads, or "default"; its heads teach those of the same
            name.
        weight: of the loss against its outputs, which is added to the loss against the labels.
    """

    checkpoint: str
    weight: float = Field(default=1.0, gt=0, le=1e6)


class Teacher:
    """A model in evaluation mode whose heads teach those of the same name; it is not trained itself.

    Attributes:
        channels: per head with a teacher, the teacher's channels in the student's order.

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
                f"the teacher {config.checkpoint} takes {channels[0]} channels but the model in training "
                f"{channels[1]}, and both get the same images; take another teacher"
            )
        _log.info("%s learn from %s too, weight %g", ", ".join(self.channels), config.checkpoint, config.weight)
        self.tasks = tasks
        self.model = bundle.model.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def logits(self, images: Tensor, sizes: dict[str, Size]) -> dict[str, Tensor]:
        """Images (B, C, H, W) in [0, 1] -> the teacher's logits (B, K, *size), in the student's order of channels.

        Args:
            images: the batch, resized here to the nearest multiples of the teacher's patch.
            sizes: of the student's logits, by head; heads without a teacher are left out of the result.
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
        """The weighted losses, float32, of the student's outputs against the teacher's for the same images."""
        sizes = {head: (output.logits.shape[-2], output.logits.shape[-1]) for head, output in outputs.items()}
        targets = self.logits(images, sizes)
        with torch.autocast(images.device.type, enabled=False):
            return {
                head: self.weight * self.tasks[head].distillation_loss(outputs[head].logits.float(), target)
                for head, target in targets.items()
            }


def _matching(head: str, task: Task, teacher: Task, source: str) -> list[int]:
    """The teacher's channels that the student has, in the student's order."""
    names = teacher.channel_names
    if missing := [name for name in task.channel_names if name not in names]:
        raise ConfigError(
            f"head {head!r} has channels {missing} but head {head!r} of the teacher {source} has {list(names)}; "
            "take a teacher that has all of them, or give the head another name"
        )
    if task.kind != teacher.kind:
        raise ConfigError(
            f"head {head!r} learns {task.kind} but head {head!r} of the teacher {source} learnt {teacher.kind}; "
            "take another teacher, or give the head another name"
        )
    return [names.index(name) for name in task.channel_names]
