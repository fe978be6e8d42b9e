"""Importers of other programs' checkpoints. A new one is a file with its renaming rules and a row in ``IMPORTERS``."""

from collections.abc import Mapping

from torch import Tensor

from densevit.checkpoints.importers import (
    depth_anything,
    depth_anything_3,
    dinov2_heads,
    dpt_official,
    mmseg,
    segmenter,
    setr_paper,
    smp,
    transformers,
)
from densevit.checkpoints.importers.base import Importer, ImportOverrides, Source
from densevit.checkpoints.importers.build import Counts, Imported, build
from densevit.checkpoints.importers.other_kinds import other_kind, refuse_relatives
from densevit.checkpoints.rename import collapse
from densevit.errors import CheckpointError

__all__ = ["IMPORTERS", "Counts", "ImportOverrides", "Imported", "Importer", "Source", "build", "detect"]

IMPORTERS: dict[str, Importer] = {
    "segmenter": segmenter.IMPORTER,
    "setr": setr_paper.IMPORTER,
    "mmseg": mmseg.IMPORTER,
    "dpt": dpt_official.IMPORTER,
    "depth_anything": depth_anything.IMPORTER,
    "depth_anything_3": depth_anything_3.IMPORTER,
    "transformers": transformers.IMPORTER,
    "smp": smp.IMPORTER,
    "dinov2": dinov2_heads.IMPORTER,
}


def detect(state: Mapping[str, Tensor], source: str) -> str:
    """The key in ``IMPORTERS`` of the program whose names the tensors have.

    Raises:
        CheckpointError: if there is none, or several, or the names tell another model.
    """
    refuse_relatives(state, source)
    matching = [name for name, importer in IMPORTERS.items() if importer.recognises(Source(source, state))]
    if len(matching) == 1:
        return matching[0]
    if matching:
        titles = " and ".join(IMPORTERS[name].title for name in matching)
        raise CheckpointError(f"{source} has the names of {titles} in one file; split it into one file per model")
    if (kind := other_kind(state)) is not None:
        raise CheckpointError(f"{source} is {kind}")
    names = ", ".join(collapse(sorted(state))[:5])
    raise CheckpointError(
        f"{source} has tensor names of no known program ({names}, ...); known: "
        f"{', '.join(importer.title for importer in IMPORTERS.values())}; check the file"
    )
