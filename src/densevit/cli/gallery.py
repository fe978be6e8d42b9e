"""An HTML page with the pictures of many predictions."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from densevit.io import write_bytes_atomic
from densevit.pages.html import escape, figure, page


def write_gallery(path: Path, records: Sequence[dict[str, Any]], *, title: str) -> None:
    """Write an HTML page: per image the primary segmentation, and everything that is not a segmentation.

    The records are those of ``Prediction.save``, whose pictures are in the folder of the page.

    Raises:
        DataError: if the page cannot be written.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    for record in records:
        name = Path(str(record.get("source", ""))).name
        shown = {
            head: result
            for head, result in record["heads"].items()
            if result["task"] != "segmentation" or head == record["primary"]
        }
        parts.append(f"<h2>{escape(name)} <small>{escape(record['width'])} x {escape(record['height'])}</small></h2>")
        parts.append(f"<div class=row>{''.join(_figure(head, result) for head, result in shown.items())}</div>")
    write_bytes_atomic(path, page(title, *parts).encode())


def _figure(head: str, result: dict[str, Any]) -> str:
    if result["task"] == "segmentation":
        ranked = sorted(result["shares"].items(), key=lambda item: -item[1])
        text = f"{head}: " + ", ".join(f"{name} {share:.0%}" for name, share in ranked[:5] if share >= 0.01)
        picture = result["overlay"]
    else:
        picture = result["colours"]
        unit = f" {result['unit']}" if result.get("unit") else ""
        text = f"{head}: {result['min']} to {result['max']}{unit}" if "min" in result else head
    return figure(quote(os.fsencode(picture)), text)  # an address, where '#' and '%' of a file's name have a meaning
