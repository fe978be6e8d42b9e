"""What fudan-zvg/SETR and mmsegmentation share about SETR: its head's config by shapes, taps of MLA, and windows."""

from typing import Literal

from densevit.checkpoints.importers.base import Plain
from densevit.checkpoints.shapes import Shapes
from densevit.presets import ADE20K, CITYSCAPES, PASCAL_CONTEXT

HEAD = "heads.labels"
Kind = Literal["naive", "pup", "mla"]

# Depth -> 0-based indices of the blocks that MLA taps.
MLA_TAPS = {24: (5, 11, 17, 23), 12: (2, 5, 8, 11)}

# Side of the training images -> bounds of the resize and stride of the windows.
WINDOWS = {data.image: data for data in (ADE20K, CITYSCAPES, PASCAL_CONTEXT)}


def setr_head(shapes: Shapes, kind: Kind, form: Literal["paper", "mmseg"]) -> Plain:
    """The head's config without its taps; the auxiliary heads of Naive and PUP read the first of them in order."""
    if kind == "mla":
        classifier = f"{HEAD}.classifier.weight"
        decoder: Plain = {
            "channels": shapes.of(f"{HEAD}.smooths.0.0.weight", 4)[0],
            "head_channels": shapes.of(f"{HEAD}.streams.0.0.0.weight", 4)[0],
            "aux": shapes.has(f"{HEAD}.aux_heads.0.weight"),
        }
    else:
        classifier = f"{HEAD}.head.classifier.weight"
        num_aux = shapes.count(f"{HEAD}.aux_heads.{{}}.")
        decoder = {"channels": shapes.of(classifier, 4)[1], "aux_taps": tuple(range(num_aux))}
    decoder |= {"kind": f"setr_{kind}", "form": form}
    return {"decoder": decoder, "out_channels": shapes.of(classifier, 4)[0]}
