import zipfile
from pathlib import Path
from typing import Any

import pytest

from densevit.data.discover import discover
from tests.layouts import LAYOUTS


def pack(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder).as_posix())
    return archive


def plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_discover__recognises(name: str, packed: bool, tmp_path: Path) -> None:
    layout, root = LAYOUTS[name], tmp_path / "data"
    layout.make(root)

    found = discover(pack(root) if packed else root)

    assert {key: plain(getattr(found.config, key)) for key in layout.keys} == layout.keys
    assert found.config.masks is not None or layout.classes is None
    remarks = "\n".join(found.remarks)
    assert [text for text in layout.said if text not in remarks] == [], remarks
