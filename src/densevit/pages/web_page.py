"""The page that shows what a model predicts for a photo; its ``backend.js`` decides what predicts."""

from pathlib import Path

from densevit.pages.html import STYLE

FOLDER = Path(__file__).parent / "web"
"""The page's own files."""

_PARTS = (
    "index.html",
    "app.js",
    "colours.js",
    "facts.js",
    "photo.js",
    "png.js",
    "saving.js",
    "start.js",
    "icon.svg",
    "manifest.webmanifest",
)

_IN_THE_BROWSER = ("backend.js", "onnx-backend.js", "onnx-worker.js")


def page_files() -> dict[str, bytes]:
    """Name -> content of the page's files, without a back end."""
    files = {name: (FOLDER / name).read_bytes() for name in _PARTS}
    return files | {"style.css": (STYLE + (FOLDER / "web.css").read_text(encoding="utf-8")).encode()}


def browser_backend() -> dict[str, bytes]:
    """Name -> content of the files that run the model in the browser."""
    return {name: (FOLDER / name).read_bytes() for name in _IN_THE_BROWSER}


def read_part(name: str) -> bytes:
    """The content of another file of the folder."""
    return (FOLDER / name).read_bytes()
