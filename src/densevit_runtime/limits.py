"""What a file or a config may claim: one budget for all readers, checked before memory or time is spent.

The defaults are far above what honest inputs need. Whoever needs more sets ``DENSEVIT_LIMITS``, such as
``DENSEVIT_LIMITS=pixels=4e9,classes=200000``; it holds for the process and its workers.
"""

import os
from dataclasses import dataclass, fields
from functools import lru_cache

from densevit_runtime.errors import ConfigError

VARIABLE = "DENSEVIT_LIMITS"
"""The environment variable that overrides limits."""


@dataclass(frozen=True)
class Limits:
    """The budget.

    Attributes:
        pixels: of an image in memory; rasters that are streamed are never held, and are exempt.
        small_pixels: images up to this size may compress to nothing, since they cost little memory.
        pixels_per_byte: claimed pixels for each stored byte of a larger image.
        file_bytes: of one file that is unpacked from an archive, or an array that is read whole.
        download_bytes: of one file that is downloaded.
        text_bytes: of a JSON, list or annotation file.
        config_bytes: of a YAML, JSON or Python config.
        nesting: depth of lists and mappings in a config or a JSON file.
        nodes: values in a config, with those of YAML anchors counted as often as they are used.
        digits: of a number in a text file.
        blocks: transformer blocks of an encoder or a decoder.
        width: channels of a layer, patch size, tokens along one side, and other sizes in a model's config.
        parameters: of a model.
        files: below the folder of a data set.
        classes: of a head or a data set; the confusion matrix of 8,192 takes 0.5 GB, and grows with the square.
        class_id: largest number in a mask.
        workers: processes that read data.
        batch: examples of a batch, windows at once.
        scale: factor on an image's sides.
        input_pixels: of an image that was enlarged for the encoder.
        graph_nodes: nodes, tensors and other entries of an exported graph.
    """

    pixels: int = 1_000_000_000
    small_pixels: int = 64_000_000
    pixels_per_byte: int = 1_500
    file_bytes: int = 4 * 2**30
    download_bytes: int = 32 * 2**30
    text_bytes: int = 2 * 2**30
    config_bytes: int = 10_000_000
    nesting: int = 64
    nodes: int = 250_000
    digits: int = 1_000
    blocks: int = 1_000
    width: int = 1_000_000
    parameters: int = 100_000_000_000
    files: int = 2_000_000
    classes: int = 8_192
    class_id: int = 65_535
    workers: int = 1_024
    batch: int = 1_000_000
    scale: int = 64
    input_pixels: int = 100_000_000
    graph_nodes: int = 2_000_000


def limits() -> Limits:
    """The budget of this process.

    Raises:
        ConfigError: ``DENSEVIT_LIMITS`` names an unknown limit, or a value that is not a positive number.
    """
    return _parsed(os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=8)
def _parsed(text: str) -> Limits:
    known = {field.name for field in fields(Limits)}
    values: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        try:
            values[name.strip()] = int(float(value))
        except (ValueError, OverflowError):
            values[name.strip()] = 0
        if name.strip() not in known or values[name.strip()] < 1:
            raise ConfigError(
                f"{VARIABLE} holds {part!r}; NAME=NUMBER is accepted, separated by commas, where NAME is one of "
                f"{', '.join(sorted(known))}"
            )
    return Limits(**values)


def too_much(claim: str, limit: str) -> str:
    """The message for a claim beyond the budget; ``claim`` is "FILE has 31000 x 31000 pixels" or the like."""
    allowed = f"{getattr(limits(), limit):,}"
    return f"{claim}, and up to {allowed} are accepted; if it is right, set {VARIABLE}={limit}=NUMBER"
