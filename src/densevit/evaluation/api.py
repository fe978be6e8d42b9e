"""``densevit.evaluate``: the metrics of a model on a data set, as a function call."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from densevit.data import Dataset, as_config
from densevit.data.base import DataConfig
from densevit.errors import ConfigError
from densevit.evaluation import run_data
from densevit.evaluation.evaluate import check_measured, evaluate_predictor
from densevit.evaluation.selection import choose_head
from densevit.inference.exported import ExportedModel
from densevit.inference.pipeline import InferenceOptions
from densevit.inference.predictor import Predictor
from densevit.inference_config import Quality
from densevit_runtime.runtime import is_exported

_log = logging.getLogger(__name__)


def evaluate(
    model: str | Path | Predictor,
    data: str | Path | Mapping[str, Any] | DataConfig | Dataset | Callable[..., Dataset] | None = None,
    *,
    split: str | None = None,
    task: str | None = None,
    heads: str | Sequence[str] | None = None,
    options: InferenceOptions | None = None,
    quality: Quality | None = None,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure a model on a data set, as ``densevit evaluate`` does.

    Where the data mean something else than in the run that trained the model, a warning says what.

    Args:
        model: what ``load`` takes, a predictor, or an exported file (.onnx or .xml).
        data: a folder, zip archive or dataset.yaml; the keys of a data set, or its config; a ``densevit.data.Dataset``,
            or a function that gives one. By default that of the run, for a model in its run folder.
        split: by default that of the run's evaluations, or val.
        task: kind of task; by default that of all heads, or segmentation.
        heads: to measure; by default the one whose task and classes fit.
        options: windows, scales, mirror images or a protocol, see ``Predictor.options``.
        quality: "fast" or "best"; by default that of ``options``, else the predictor's, which is "fast" if not said.
        device: by default a GPU if there is one; a predictor stays where it is.
        progress: called with (images done, images).

    Returns:
        Metrics by head, fractions and metres.

    Raises:
        ConfigError: no head fits, or several do; no data was named, or a split of a ``Dataset``.
        DataError: the data cannot be used, or have no target for a head.
    """
    if isinstance(data, Dataset) and split is not None:
        raise ConfigError(f"split is {split!r}, but a densevit.data.Dataset has no splits; give the data of this split")
    predictor: Predictor | ExportedModel
    if isinstance(model, Predictor):
        predictor = model
    else:
        opened = ExportedModel if is_exported(model) else Predictor
        predictor = opened.load(model, device=device, quality=quality)
    views = options or InferenceOptions()
    chosen_quality = quality or views.quality or predictor.quality
    if isinstance(predictor, ExportedModel):
        views = predictor.options(**{**dict(views), "quality": chosen_quality})
    views = InferenceOptions.parse({**dict(views), "quality": chosen_quality}, source="the set of inference options")
    source = "" if isinstance(model, Predictor) else str(model)
    kind = run_data.kind_to_measure(predictor.tasks, task)
    wanted: Sequence[str] | Sequence[None] = [heads] if isinstance(heads, str) else heads or [None]
    if isinstance(data, Dataset):
        chosen = [choose_head(predictor.tasks, data, kind, name) for name in wanted]
    else:
        place = data if data is None else Path(data) if isinstance(data, str | Path) else as_config(data)
        known = run_data.Model(source, predictor.tasks, predictor.trained_on)
        selected = [run_data.select(known, kind, name, place, split, {}) for name in wanted]
        for message in dict.fromkeys(message for one in selected for message in one.messages):
            _log.log(logging.WARNING if message.startswith("not as in") else logging.INFO, "%s", message)
        chosen = [(one.head, one.dataset) for one in selected]
    found: dict[str, dict[str, Any]] = {}
    for head, dataset in chosen:
        found[head] = evaluate_predictor(predictor, head, dataset, views, progress=progress)
        check_measured({head: found[head]}, predictor.tasks, len(dataset))
    return found
