"""``densevit merge``: join heads of several checkpoints on one encoder."""

from pathlib import Path
from typing import Annotated

import typer

from densevit.cli import options as shared


def merge(
    config: Annotated[Path, typer.Option(help="YAML file with heads (name: {checkpoint, head}), card and storage.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write.")],
    overwrite: shared.Overwrite = False,
) -> None:
    """Join heads that were trained on the same frozen encoder into one model."""
    from densevit.checkpoints.merge import MergeConfig, merge_bundles
    from densevit.checkpoints.native import save_bundle
    from densevit.config import read_yaml

    merge_config = MergeConfig.parse(read_yaml(config), source=str(config))
    read = [Path(name) for head in merge_config.heads.values() for name in head.checkpoints]
    shared.claim_outputs([out], [config, *read], overwrite=overwrite)
    bundle = merge_bundles(merge_config)
    save_bundle(bundle, out, merge_config.storage)
    typer.echo(f"{out}: {', '.join(bundle.tasks)}; {out.stat().st_size / 1e6:.1f} MB")
