"""Weights of others as our models. A new source is one file with its list of renames and one row in ``IMPORTERS``."""

from collections.abc import Mapping

from torch import Tensor

from densevit.checkpoints.encoder_names import looks_like_encoder
from densevit.checkpoints.importers import depth_anything, dpt_official, mmseg, segmenter, setr_paper, transformers
from densevit.checkpoints.importers.base import Importer, ImportOverrides, Source
from densevit.checkpoints.importers.build import Counts, Imported, build
from densevit.checkpoints.rename import collapse
from densevit.errors import CheckpointError

__all__ = [
    "IMPORTERS",
    "Counts",
    "ImportOverrides",
    "Imported",
    "Importer",
    "Source",
    "build",
    "detect",
]


IMPORTERS: dict[str, Importer] = {
    "segmenter": segmenter.IMPORTER,
    "setr": setr_paper.IMPORTER,
    "mmseg": mmseg.IMPORTER,
    "dpt": dpt_official.IMPORTER,
    "depth_anything": depth_anything.IMPORTER,
    "transformers": transformers.IMPORTER,
}


def detect(state: Mapping[str, Tensor], source: str) -> str:
    """The key in ``IMPORTERS`` of the source whose names the tensors bear.

    Raises:
        CheckpointError: if there is none, or several.
    """
    found = [name for name, importer in IMPORTERS.items() if importer.recognises(Source(source, state))]
    if len(found) == 1:
        return found[0]
    if found:
        titles = " and ".join(IMPORTERS[name].title for name in found)
        raise CheckpointError(
            f"{source} has the names of {titles} in one file; weights of one source are needed; take the file apart"
        )
    if looks_like_encoder(state):
        raise CheckpointError(
            f"{source} is a plain encoder without a decoder, so there is no model to make of it; "
            "train a decoder on it: name the file as encoder_weights in a training config"
        )
    names = ", ".join(collapse(sorted(state))[:5])
    raise CheckpointError(
        f"{source} has names of no known source ({names}, ...); known: "
        f"{', '.join(importer.title for importer in IMPORTERS.values())}; check the file"
    )
