"""Takes the package from the repository's src, or from the source distribution that it was put into."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "densevit_runtime"
IN_SDIST = "shared"
"""Folder of the package in a source distribution; hatch would find it by itself in others, and add it twice."""


class PackageHook(BuildHookInterface[Any]):
    """Adds the package to both distributions."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatch before it builds."""
        root = Path(self.root)
        source = next(filter(Path.is_dir, (root / IN_SDIST / PACKAGE, root.parent / "src" / PACKAGE)))
        inside = f"{IN_SDIST}/{PACKAGE}" if self.target_name == "sdist" else PACKAGE
        build_data["force_include"][str(source)] = inside
