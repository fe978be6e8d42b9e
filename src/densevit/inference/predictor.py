"""Predictor: a photo of any kind and size in, typed results out. The CLI, a server and the examples all call it."""

import logging
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import torch

from densevit.checkpoints.hub import resolve
from densevit.checkpoints.native import Bundle, Card, load_bundle, preset_bundle
from densevit.config import nearest
from densevit.errors import CheckpointError, ConfigError
from densevit.inference.results import Prediction, head_result
from densevit.io import as_image
from densevit.model import DenseModel
from densevit.pixels import FitConfig, fit_photo
from densevit.presets import PRESETS
from densevit.tasks import Task

DEFAULT = Path(__file__).parent.parent / "weights" / "default.safetensors"
_log = logging.getLogger(__name__)


def pick_device(name: str | None) -> torch.device:
    """The device of that name; where none is named, a GPU if there is one.

    Raises:
        ConfigError: if there is no such device here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an AssertionError where torch was built without CUDA
        cause = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used ({cause}); name another such as cpu, or none") from None
    return device


class Predictor:
    """A model ready to predict.

    Attributes:
        model: the network, in evaluation mode.
        tasks: what each head means.
        fit: how photos are brought to the encoder.
        card: provenance, licence and figures of the weights.
        heads: the heads that run.
    """

    def __init__(self, bundle: Bundle, *, heads: Sequence[str] | None = None, device: str | None = None) -> None:
        wanted = (heads,) if isinstance(heads, str) else tuple(heads or bundle.tasks)
        if unknown := [head for head in wanted if head not in bundle.tasks]:
            raise ConfigError(f"there is no head {unknown[0]!r}{nearest(unknown[0], bundle.tasks)}")
        self.device = pick_device(device)
        self.model: DenseModel = bundle.model.eval().to(self.device)
        self.tasks: dict[str, Task] = bundle.tasks
        self.fit: FitConfig = bundle.fit
        self.card: Card = bundle.card
        self.heads = wanted

    @classmethod
    def load(cls, source: str | Path, **options: Any) -> Self:
        """From "default", a native checkpoint's path or hub name, or a preset's name (random weights, with a warning).

        Args:
            source: what to load.
            options: ``heads`` to run, all by default; ``device``, by default a GPU if there is one.

        Raises:
            CheckpointError: if the file cannot be used.
            ConfigError: if a head does not exist.
        """
        if source == "default":
            return cls(load_bundle(DEFAULT), **options)
        if str(source) in PRESETS and not Path(source).exists():
            _log.warning("preset %s has no weights of its own; its parameters are random until it is trained", source)
            return cls(preset_bundle(str(source)), **options)
        names = ("default", *PRESETS)
        if not Path(source).exists() and (close := get_close_matches(str(source), names, n=1)):
            raise CheckpointError(f"there is no model {str(source)!r}; did you mean {close[0]!r}?")
        return cls(load_bundle(resolve(str(source))), **options)

    def predict(self, image: Any) -> Prediction:
        """Run one photo through the encoder once and through every head.

        Args:
            image: a path, PIL image, array (H, W[, 3]) or tensor; see ``densevit.io.as_image``.

        Raises:
            DataError: if the photo cannot be read.
        """
        photo = as_image(image)
        size = self.fit.size_for((photo.shape[0], photo.shape[1]), self.model.config.encoder.patch_size)
        pixels = fit_photo(photo, size)
        with torch.inference_mode():
            outputs = self.model(pixels[None].to(self.device), self.heads)
        return Prediction(
            photo,
            {
                name: head_result(
                    name,
                    self.tasks[name],
                    photo,
                    output.logits[0].float().cpu(),
                    align_corners=self.model.decoder(name).align_corners,
                )
                for name, output in outputs.items()
            },
        )

    def __repr__(self) -> str:
        heads = ", ".join(f"{name} ({self.tasks[name].kind})" for name in self.heads)
        return (
            f"Predictor({self.card.name or 'unnamed'}: {heads}; {self.model.num_parameters() / 1e6:.1f} M parameters)"
        )
