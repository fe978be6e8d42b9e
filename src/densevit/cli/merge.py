"""``densevit merge``: heads of several checkpoints on one encoder."""

from pathlib import Path
from typing import Annotated

import typer


def merge(
    config: Annotated[Path, typer.Option(help="YAML file: heads (name: {checkpoint, head}), card, storage.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write.")],
) -> None:
    """Join heads that were trained on the same frozen encoder into one model."""
    from densevit.checkpoints.merge import MergeConfig, merge_bundles
    from densevit.checkpoints.native import save_bundle
    from densevit.config import read_yaml

    recipe = MergeConfig.parse(read_yaml(config), source=str(config))
    bundle = merge_bundles(recipe)
    save_bundle(bundle, out, recipe.storage)
    typer.echo(f"{out}: {', '.join(bundle.tasks)}; {out.stat().st_size / 1e6:.1f} MB")
