"""The tables and rows of pictures of a training report, as HTML."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from densevit.evaluation.panels import PANELS
from densevit.limits import limits
from densevit.pages.html import escape, figure, in_line, number, table
from densevit.training.run.salvage import colour, is_count

MOST_CONFUSED = 8
_JPEG = b"\xff\xd8"


def class_table(per_class: Mapping[str, Any], palette: Any) -> str:
    """IoU, accuracy and pixels of each class, with a bar for the IoU; grey where the palette has no colour."""
    classes = {name: values if isinstance(values, dict) else {} for name, values in per_class.items()}
    total = sum(_count(values) for values in classes.values()) or 1
    rows = []
    for index, (name, values) in enumerate(classes.items()):
        red, green, blue = colour(palette, index)
        iou, count = values.get("IoU"), _count(values)
        named = f'<i class=swatch style="background:rgb({red},{green},{blue})"></i>{escape(name)}'
        bar = f'<div class=barcell><i class=bar style="width:{100 * iou:.1f}%"></i></div>' if _known(iou) else ""
        accuracy, share = _share(values.get("Acc")), f"{count / total:.2%}"
        rows.append((named, _share(iou), bar, accuracy, f"{count:,}", share))
    return table(("class", "IoU", "", "accuracy", "pixels", "share"), rows, numbers=(1, 3, 4, 5))


def confused_table(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """The pairs of classes that cost the most pixels."""
    pairs = []
    for row, line in enumerate(counts):
        pairs += [(count, row, column) for column, count in enumerate(line) if row != column and count]
    total = sum(map(sum, counts))
    rows = []
    for count, row, column in sorted(pairs, reverse=True)[:MOST_CONFUSED]:
        shares = (f"{count / sum(counts[row]):.1%}", f"{count / total:.2%}")
        rows.append((escape(names[row]), escape(names[column]), f"{count:,}", *shares))
    return table(("true", "taken for", "pixels", "of its class", "of all"), rows, numbers=(2, 3, 4)) if rows else ""


def metrics_table(metrics: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Every metric that is a number: in the last evaluation, and in that of the best checkpoint."""
    rows = [
        (escape(name), escape(in_line(value)), escape(in_line(best.get(name))))
        for name, value in metrics.items()
        if isinstance(value, int | float)
    ]
    return table(("metric", "last", "best checkpoint"), rows, numbers=(1, 2))


def picture_rows(folder: Path, images: Iterable[Mapping[str, Any]], metric: str) -> str:
    """The pictures of some images, embedded, with name and metric.

    Images whose file is missing, a link, or no JPEG are left out.
    """
    rows = []
    for image in images:
        try:
            path = folder / Path(str(image["file"])).name
            if path.is_symlink() or not path.is_file() or path.stat().st_size > limits().config_bytes:
                continue
            data = path.read_bytes()
        except (OSError, KeyError, ValueError):  # ValueError for a null byte in the name
            continue
        if not data.startswith(_JPEG):
            continue
        value = image.get("value")
        caption = f"{metric} {number(value)}" if _known(value) else ""
        rows.append(
            figure(
                f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", str(image.get("name", "")), value=caption
            )
        )
    if not rows:
        return ""
    heads = "".join(f"<span>{panel}</span>" for panel in PANELS)
    return f"<div class=panels>{heads}</div>{''.join(rows)}"


def _count(values: Mapping[str, Any]) -> int:
    count = values.get("pixels")
    return count if is_count(count) else 0


def _known(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _share(value: Any) -> str:
    return f"{value:.3f}" if _known(value) else "–"
