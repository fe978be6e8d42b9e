"""What the words in names of files and folders say: photo or mask, and of which split."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Role = Literal["images", "masks", "depth", "values", "none", ""]
"""What a file is; "none" for pictures made for the eye, single objects or heights, "" where its names do not tell."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PHOTO = _words(
    "image images img imgs photo photos picture pictures pic pics rgb color colour colors colours input inputs jpeg "
    "jpegs frame frames original originals leftimg im ims"
)
_MASK = _words(
    "mask masks label labels labelid labelids labeltrainid labeltrainids lbl lbls annotation annotations annot annots "
    "ann anns gt groundtruth ground truth seg segs segm segmentation segmentations segmentationclass "
    "segmentationclassaug semantic target targets trimap trimaps gtfine gtcoarse manual"
)
_DEPTH = _words("depth depths depthmap depthmaps")
_VALUES = _words("values normal normals")
_SHOWN = _words(
    "instance instances instanceid instanceids segmentationobject panoptic polygons overlay overlays "
    "preview previews vis viz visual visualization visualisation visualizations blend blended blends thumb thumbs "
    "thumbnail thumbnails pred preds prediction predictions confidence uncertainty "
    "colormap colormaps colourmap colourmaps superpixel superpixels"
)
_HEIGHTS = _words("dsm ndsm dem dtm chm")
"""What is measured upwards from the ground, which is no depth."""

_COLOURED = _words("color colour colors colours rgb colored coloured colorized colourized")
_FILLERS = _words("id ids train fine coarse class classes aug map maps png jpg bit left file files")
"""Words that say nothing by themselves, and are part of an affix next to one that does."""

_SPLITS = "train|training|val|valid|validation|test|testing|dev"
_JOINT = "train_val|train-val|trainval"
_KIND_AHEAD = "(?=annot|label|mask|image|img|gt)"
_SPLIT = re.compile(
    "|".join(
        rf"(?<![A-Za-z]){word}(?![a-z])|(?<=[a-z]){word.capitalize()}(?![a-z])|(?<![A-Za-z]){word}{_KIND_AHEAD}"
        for text in (*_JOINT.split("|"), *sorted(_SPLITS.split("|"), key=len, reverse=True))
        for word in dict.fromkeys((text, text.capitalize(), text.upper(), text.replace("trainval", "TrainVal")))
    )
)
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_JOINED = re.compile(rf"({_SPLITS})(annot\w*|labels?|masks?|images?|imgs?|gt)\Z")
OLD = _words("old backup backups copy copies deprecated unused trash bak orig")
"""Words of folders that hold what nobody uses any more."""

SET = re.compile(r"(?i)\b(?:data[ _-]?set|version|ver|v)[ _-]?[0-9a-z]{0,3}\b|\A(?:png|jpe?g|tiff?|bmp)\Z")
"""Names of folders that are data sets by themselves, such as "Dataset 2", or the same one in another format."""


@dataclass(frozen=True, slots=True)
class Affixes:
    """A stem without the words that say what it is.

    Attributes:
        prefix, core, suffix: its parts; a core that is empty has no name of its own.
        role: what the words say.
        coloured: a mask in colours, for the eye or not.
    """

    prefix: str
    core: str
    suffix: str
    role: Role = ""
    coloured: bool = False


@lru_cache(maxsize=100_000)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a name in lower case, also where they are joined as in JPEGImages or trainannot."""
    words = [piece.lower() for piece in _PIECE.findall(text)]
    joined: list[str] = []
    for word in words:
        found = _JOINED.match(word)
        joined.extend(found.groups() if found else (word,))
    whole = text.lower()
    return (whole,) if whole in _MASK or whole in _SHOWN else tuple(joined)


@lru_cache(maxsize=100_000)
def role_of(words: tuple[str, ...]) -> Role:
    """What words say; masks go before photos, since a mask is often said to be an image too."""
    found = {*words}
    if found & (_SHOWN | _HEIGHTS) or (found & _DEPTH and found & (_COLOURED - {"rgb"} | {"mask", "masks", "valid"})):
        return "none"
    for role, known in (("depth", _DEPTH), ("masks", _MASK), ("values", _VALUES), ("images", _PHOTO)):
        if found & known:
            return role  # type: ignore[return-value]
    return ""


def is_coloured(words: Sequence[str]) -> bool:
    """Whether the words say that a mask is in colours."""
    return bool({*words} & _COLOURED and {*words} & _MASK)


@lru_cache(maxsize=100_000)
def split_of(component: str) -> tuple[str, str]:
    """A folder's name with ``{split}`` in the place of the split that it names, and that split; "" if it names none."""
    found = _SPLIT.search(component)
    if found is None:
        return component, ""
    return f"{component[: found.start()]}{{split}}{component[found.end() :]}", found[0]


def is_joint(split: str) -> bool:
    """Whether a split is train and val together."""
    return re.fullmatch(_JOINT, split.lower()) is not None


def affixes_of(stem: str) -> Affixes:
    """Take the words that say what a file is from both ends of its stem."""
    tokens = [token for token in re.split(r"([_\-. ]+)", stem) if token]
    first, last = 0, len(tokens)
    while first < last and (_says(tokens[first]) or (first and _separates(tokens[first]))):
        first += 1
    while first < last and (_says(tokens[last - 1]) or (last < len(tokens) and _separates(tokens[last - 1]))):
        last -= 1
    head, core, tail = ("".join(part) for part in (tokens[:first], tokens[first:last], tokens[last:]))
    if not head and not tail:
        head, core, tail = _beside_digits(stem)
    words = words_of(head) + words_of(tail)
    if not (role := role_of(words)) or (core and role == "images" and not any(c.isalnum() for c in core)):
        return Affixes("", stem, "")
    return Affixes(head, core, tail, role, is_coloured(words))


@lru_cache(maxsize=100_000)
def _says(token: str) -> bool:
    """Whether a token says what a file is, and nothing else."""
    words = [word for word in words_of(token) if not word.isdigit()]
    return (
        not (token[0].isdigit() or token[-1].isdigit())
        and any(role_of((word,)) for word in words)
        and all(word in _FILLERS or role_of((word,)) for word in words)
    )


def _separates(token: str) -> bool:
    return not any(character.isalnum() for character in token)


def _beside_digits(stem: str) -> tuple[str, str, str]:
    """img001 -> (img, 001, ""); 001mask -> ("", 001, mask)."""
    if (found := re.fullmatch(r"([A-Za-z]+)(\d[\w\-. ]*)", stem)) and role_of(words_of(found[1])):
        return found[1], found[2], ""
    if (found := re.fullmatch(r"([\w\-. ]*\d)([A-Za-z]+)", stem)) and role_of(words_of(found[2])):
        return "", found[1], found[2]
    return "", stem, ""
