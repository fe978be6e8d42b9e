"""Class names of the data sets that published models were trained on, and the tasks made of them."""

import logging
from collections.abc import Sequence
from typing import Any

from densevit.tasks import Depth, Segmentation

_log = logging.getLogger(__name__)

_ADE20K = (
    "wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person, earth, door, "
    "table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror, rug, field, "
    "armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base, box, column, signboard, "
    "chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, "
    "case, pool table, pillow, screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, "
    "book, hill, bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, "
    "hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television receiver, airplane, "
    "dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet, poster, stage, van, ship, "
    "fountain, conveyer belt, canopy, washer, plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, "
    "minibike, cradle, oven, ball, food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, "
    "screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, "
    "monitor, bulletin board, shower, radiator, glass, clock, flag"
)
_CITYSCAPES = (
    "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person, "
    "rider, car, truck, bus, train, motorcycle, bicycle"
)
_PASCAL_CONTEXT = (
    "background, aeroplane, bag, bed, bedclothes, bench, bicycle, bird, boat, book, bottle, building, bus, cabinet, "
    "car, cat, ceiling, chair, cloth, computer, cow, cup, curtain, dog, door, fence, floor, flower, food, grass, "
    "ground, horse, keyboard, light, motorbike, mountain, mouse, person, plate, platform, pottedplant, road, rock, "
    "sheep, shelves, sidewalk, sign, sky, snow, sofa, table, track, train, tree, truck, tvmonitor, wall, water, "
    "window, wood"
)

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "ade20k": tuple(_ADE20K.split(", ")),
    "cityscapes": tuple(_CITYSCAPES.split(", ")),
    "pascal_context": tuple(_PASCAL_CONTEXT.split(", ")),
}


def segmentation(
    num_classes: int, *, dataset: str | None = None, classes: Sequence[Any] = (), **facts: Any
) -> Segmentation:
    """The task of a model of so many classes.

    Names are those that the source states, else those of its data set, else numbers.
    """
    names = tuple(str(name).strip() for name in classes) or CLASS_NAMES.get(dataset or "", ())
    if len(names) != num_classes or len(set(names)) != num_classes:
        if names:
            _log.warning("%d class names for %d classes do not fit; classes are numbered", len(set(names)), num_classes)
        names = tuple(f"class {index}" for index in range(num_classes))
    return Segmentation(classes=names, **facts)


def disparity() -> Depth:
    """Relative inverse depth."""
    return Depth(quantity="disparity")


def metres(max_depth_m: float) -> Depth:
    """Metric depth."""
    return Depth(quantity="depth", max_depth_m=max_depth_m)
