"""One page that shows the pictures of many predictions side by side."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from densevit.io import write_bytes_atomic

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222; }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.1rem; }
.row { display: flex; flex-wrap: wrap; gap: .75rem; }
figure { margin: 0; flex: 1 1 320px; }
img { width: 100%; border-radius: 6px; display: block; }
figcaption { color: #555; font-size: .9rem; padding-top: .3rem; }
"""


def write_gallery(path: Path, records: Sequence[dict[str, Any]], *, title: str) -> None:
    """Write an HTML page beside the pictures: per photo the primary segmentation, and everything that is not one.

    Args:
        path: of the page; the records' pictures lie in its folder.
        records: as ``Prediction.save`` returns them.
        title: of the page.

    Raises:
        DataError: if the page cannot be written.
    """
    parts = [f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"]
    parts.append(f"<h1>{html.escape(title)}</h1>")
    for record in records:
        name = html.escape(Path(str(record.get("source", ""))).name)
        parts.append(f"<h2>{name} <small>{record['width']} x {record['height']}</small></h2><div class=row>")
        for head, result in record["heads"].items():
            if result["task"] != "segmentation" or head == record["primary"]:
                parts.append(_figure(head, result))
        parts.append("</div>")
    write_bytes_atomic(path, "\n".join(parts).encode())


def _figure(head: str, result: dict[str, Any]) -> str:
    if result["task"] == "segmentation":
        ranked = sorted(result["shares"].items(), key=lambda item: -item[1])
        text = f"{head}: " + ", ".join(f"{name} {share:.0%}" for name, share in ranked[:5] if share >= 0.01)
        picture = result["overlay"]
    else:
        picture = result["colours"]
        unit = f" {result['unit']}" if result.get("unit") else ""
        text = f"{head}: {result['min']} to {result['max']}{unit}" if "min" in result else head
    source, caption = quote(picture), html.escape(text)  # an address: '#' and '%' in a file's name mean something there
    return f'<figure><img src="{source}" alt="{caption}" loading=lazy><figcaption>{caption}</figcaption></figure>'
