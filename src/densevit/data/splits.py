"""Splits of photos that have none: at random, in groups, or by lists of names."""

from typing import Annotated

from pydantic import Field

from densevit.config import Config

Share = Annotated[float, Field(ge=0, lt=1)]


class SplitConfig(Config):
    """How photos are divided into train, val and test.

    Attributes:
        val, test: shares of the photos, or of their groups, that are drawn at random; the others are train.
        seed: of the draw, which does not depend on the order of the photos.
        by: regular expression whose first group (or whole match) in a photo's name is its group, such as a patient or
            a video; groups are never divided.
        names: names of the photos of each split, instead of a draw; those that no list has are train.
    """

    val: Share = 0.2
    test: Share = 0.0
    seed: int = 0
    by: str | None = None
    names: dict[str, tuple[str, ...]] | None = None
