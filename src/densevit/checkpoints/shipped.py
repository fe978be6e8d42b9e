"""What was set and measured for the model that ships after its file was written.

Another copy of 89 MB of weights, for a kilobyte of metadata, would double what every clone and package downloads. So
these are in a file next to the weights until the weights themselves change.
"""

import hashlib
from pathlib import Path
from typing import Any

from densevit.plain_data import parse_json_config, read_text

ADDITIONS = Path(__file__).parent.parent / "weights" / "default.json"
SHIPPED = "77ad2adc53338fe0fc478d891f038d5757c2dd394325fdbc7f4617fec3165ab7"
"""SHA-256 of the metadata that the additions belong to, as they are in the file of the weights."""


def with_additions(text: str, metadata: Any) -> Any:
    """The metadata of a checkpoint, with the additions if it is the model that ships, under whatever name.

    Args:
        text: the metadata as they are in the file.
        metadata: the same as plain data.

    Raises:
        ValueError: if the file of the additions cannot be read.
    """
    if hashlib.sha256(text.encode()).hexdigest() != SHIPPED:
        return metadata
    try:
        added = parse_json_config(read_text(ADDITIONS))
    except OSError as error:
        raise ValueError(f"{ADDITIONS}, which belongs to it, cannot be read: {error.strerror}") from None
    card, measured = metadata["card"], added["card"]["metrics"]
    # What the file says was measured at quality best, when there was no other.
    metrics = {head: {**measured.get(head, {}), "best": best} for head, best in card["metrics"].items()}
    return metadata | {"fit": metadata["fit"] | added["fit"], "card": card | {"metrics": metrics}}
