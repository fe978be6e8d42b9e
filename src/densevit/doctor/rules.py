"""Every finding there is: a table of literals. The code is stable; scripts and the documentation rely on it."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""error: training would stop, or learn something wrong. warning: it works, and the result suffers. note: to know."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Check:
    """What a code stands for.

    Attributes:
        severity: see ``Severity``.
        why: why it hurts.
        fix: what to do: a command, a config key, or a step with another program.
        written: whether ``--write-fixed`` mends it, where that is safe.
    """

    severity: Severity
    why: str
    fix: str
    written: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        code: a key of ``CHECKS``.
        what: a sentence with counts.
        files: all files that it was seen in, as far as it belongs to files.
        split: where; "" for the whole data set.
        hint: what to do in this case, in front of the general fix.
    """

    code: str
    what: str
    files: tuple[str, ...] = ()
    split: str = ""
    hint: str = ""

    @property
    def check(self) -> Check:
        """What the code stands for."""
        return CHECKS[self.code]

    @property
    def severity(self) -> Severity:
        """error, warning or note."""
        return self.check.severity

    @property
    def fix(self) -> str:
        """What to do."""
        general = self.check.fix
        return f"{self.hint} {general[0].upper()}{general[1:]}" if self.hint else general

    def line(self) -> str:
        """The finding in a line of a log."""
        example = f", {self.files[0]} for one" if self.files else ""
        return f"{self.code}: {self.what}{example}; {self.check.why}; {self.fix}"


@dataclass(slots=True)
class Findings:
    """A list that is filled code by code."""

    found: list[Finding] = field(default_factory=list)

    def add(self, code: str, what: str, files: Any = (), *, split: str = "", hint: str = "") -> None:
        """Write a finding down; a code that ``CHECKS`` lacks is a mistake of ours."""
        assert code in CHECKS, code
        self.found.append(Finding(code, _agree(what), tuple(map(str, files)), split, hint))


_ONE = {"are": "is", "have": "has", "cannot": "cannot"} | {
    f"{v}": f"{v}s" for v in ("hold", "lead", "belong", "occur", "cover", "end")
}


def _agree(what: str) -> str:
    """Noun and verb in the singular, where a sentence is about one thing."""
    match = re.match(r"1 (?!of )(.*?)\b(" + "|".join(_ONE) + r")\b", what)
    if match is None:
        return what
    noun = re.sub(r"(?<=ss)es\b|(?<!s)s\b", "", match[1], count=1)
    return f"1 {noun}{_ONE[match[2]]}{what[match.end() :]}"


CHECKS: dict[str, Check] = {
    # names and folders
    "classes-missing": Check(
        "error",
        "without names or a number of classes no head can be built",
        'write classes.json into the root, {"classes": ["road", "sky"], "ignore_index": 255}, or set train.classes',
    ),
    "classes-broken": Check(
        "error", "training reads it first and stops", "mend classes.json; see docs/how-to/check-your-data.md"
    ),
    "classes-twice": Check(
        "warning", "figures are kept by name, so one of the two hides the other", "give every class a name of its own"
    ),
    "ignore-is-class": Check(
        "error",
        "every pixel of that class is ignored, so it is never learnt",
        "set ignore_index in classes.json to a number that no class has, 255 for one",
    ),
    "split-empty": Check("error", "there is nothing to train on or to measure", "copy the photos into this folder"),
    "split-without-photos": Check(
        "warning", "targets of a split without photos are never read", "rename the folder like that of the photos"
    ),
    "split-missing": Check(
        "note", "without a split to measure on nobody knows how good the model is", "put some photos into images/val"
    ),
    "no-targets": Check(
        "warning", "photos alone can be predicted, and nothing can be learnt", "add masks/, depth/ or values/"
    ),
    "target-missing": Check(
        "error", "a split whose photos lack targets is refused", "add the files, or move these photos elsewhere"
    ),
    "target-orphan": Check(
        "warning", "it is never read; often its photo has another name", "rename or remove it", True
    ),
    "name-case": Check(
        "error",
        "names must be equal; on Linux, Photo and photo are two names",
        "rename the target like the photo",
        True,
    ),
    "name-twice": Check(
        "error", "photo and target are brought together by the stem, and either could be meant", "rename or remove one"
    ),
    "file-stray": Check("note", "it is passed over", "move it elsewhere, or convert it if it was meant to count", True),
    "file-dangling": Check("error", "the file that the link names is not there", "copy the file, or mend the link"),
    "empty-file": Check("error", "training stops when it comes to it", "copy or download the file again", True),
    "not-an-image": Check("error", "training stops when it comes to it", "replace it by the real file", True),
    "unreadable": Check("error", "training stops when it comes to it", "copy or download the file again", True),
    # photos
    "photo-sizes": Check("note", "odd ones out are often there by mistake", "look at them"),
    "photo-small": Check(
        "warning", "it is enlarged to fill the crop, and blurred thereby", "lower augment.crop, or leave it out"
    ),
    "photo-aspect": Check(
        "warning", "a crop shows a small part of it, and resizing to a fixed side makes it huge", "cut it into tiles"
    ),
    "photo-grey": Check(
        "note", "encoders learnt on colours do a little worse on grey", "nothing, if photos will be grey in use too"
    ),
    "photo-transparent": Check(
        "warning", "white is put behind transparent parts, so the network sees white there", "save without alpha"
    ),
    "photo-dark": Check(
        "warning",
        "16-bit photos are scaled from 0..65535, so that 10- and 12-bit values come out almost black",
        "multiply the values up to 65535, or save 8-bit photos",
    ),
    "photo-blank": Check("warning", "there is nothing to see and nothing to learn", "leave it out"),
    "photo-frames": Check("note", "the first picture of the file is read alone", "save the others as files"),
    "exif-mask-unturned": Check(
        "error",
        "the photo is turned by its EXIF tag when it is read and the mask is not, so they don't fit",
        "turn the mask like the photo",
        True,
    ),
    "exif-unclear": Check(
        "warning",
        "the photo is turned by its EXIF tag; the size does not show whether its mask is drawn on the turned photo",
        "look at one in the page of --html; where wrong, turn the masks",
    ),
    "photo-twice": Check(
        "warning", "it counts more than others, in training and in the figures", "keep one of each group"
    ),
    "photo-twice-masks-differ": Check(
        "warning", "equal photos with different masks teach contradictions", "keep the right mask"
    ),
    "photo-near": Check(
        "note", "nearly equal photos, frames of a video for one, teach little new", "keep every n-th frame"
    ),
    "leak-exact": Check(
        "warning",
        "figures on photos that were trained on are too good, and say nothing about new photos",
        "remove them from one of the splits",
    ),
    "leak-near": Check(
        "warning",
        "nearly the same photos in both splits make the figures too good",
        "split by scene, place or video instead of by photo",
    ),
    # masks
    "mask-jpeg": Check(
        "error",
        "JPEG blurs class numbers, and the mask is refused",
        "export the masks again as PNG; none can be mended",
    ),
    "mask-colours": Check(
        "error",
        "colours are no class numbers, and the mask is refused",
        "replace each colour by its class number; --colours FILE with --write-fixed does it",
        True,
    ),
    "mask-0-255": Check(
        "error",
        "255 means ignore, so the class that was meant is never learnt and 0 is all there is",
        "write 1 instead of 255",
        True,
    ),
    "mask-stretched": Check(
        "error", "numbers were spread over 0..255 to be seen, and are no classes", "write 0, 1, 2, ... instead", True
    ),
    "mask-off-by-one": Check(
        "error", "numbers count from 1, so each is taken for the next class", "set reduce_zero_label: true", True
    ),
    "mask-range": Check(
        "error", "a number without a class stops training", "mend the masks, or list the classes in classes.json"
    ),
    "mask-blurred": Check(
        "error",
        "numbers between the classes come from resizing with smoothing or from JPEG, along every outline",
        "resize masks with nearest neighbour; make these again from their source",
    ),
    "mask-floats": Check("error", "class numbers are integers, and the mask is refused", "save them as integers", True),
    "mask-size": Check(
        "error", "photo and mask must have the same size", "resize the mask with nearest neighbour", True
    ),
    "mask-transposed": Check(
        "error", "height and width are swapped, so the mask lies across the photo", "transpose or turn it; look which"
    ),
    "mask-turned": Check(
        "warning", "outlines of masks fit those of the photos better when mirrored or turned", "look at the pictures"
    ),
    "mask-palettes": Check(
        "warning",
        "the number counts and not the colour; palettes that differ mean that numbers differ too",
        "save all masks with one palette, or replace colours by numbers",
    ),
    "mask-ignored": Check("warning", "nothing is learnt from a mask without a class", "leave the photo out"),
    "mask-ignored-share": Check(
        "note", "ignored pixels count neither in the loss nor in the figures", "nothing, if that is meant"
    ),
    "mask-one-class": Check("note", "there is one class in the whole mask", "nothing, if that is meant"),
    "class-unseen": Check(
        "warning", "it cannot be learnt, and its output is noise", "add photos of it, or take it off the list"
    ),
    "class-val-only": Check(
        "warning", "it is measured and never learnt, so its IoU is 0", "move some of its photos to the training split"
    ),
    "class-train-only": Check("note", "it is learnt and never measured", "move some of its photos to the val split"),
    "class-rare": Check(
        "note",
        "the loss hardly sees it",
        "set tasks.NAME.class_weights or lovasz_weight: 1.0",
    ),
    # depth and values
    "depth-8-bit": Check(
        "error", "256 steps are too coarse, or a picture of depth; it is refused", "export 16-bit PNG or floats"
    ),
    "depth-colours": Check(
        "error", "a picture of depth in colours is no measurement; it is refused", "export 16-bit PNG or floats"
    ),
    "depth-size": Check("error", "photo and depth map must have the same size", "export the depth at the photo's size"),
    "depth-transposed": Check(
        "error", "height and width are swapped, so the depth lies across the photo", "transpose or turn it; look which"
    ),
    "depth-negative": Check("error", "a depth below 0 is refused", "write 0 where there is no measurement"),
    "depth-empty": Check("warning", "nothing is learnt from a map without a measurement", "leave the photo out"),
    "depth-constant": Check("warning", "one depth everywhere is no measurement", "leave the photo out"),
    "depth-sparse": Check(
        "note", "few pixels are measured; gradient losses need neighbours", "set l1_weight, and gradient_weight: 0"
    ),
    "depth-nan": Check("note", "NaN and infinity are taken for no measurement", "nothing, if that is meant"),
    "depth-unit": Check(
        "warning", "a model of metres learns the wrong scale, and max_depth_m cuts the rest off", "set depth_unit_m"
    ),
    "depth-units-differ": Check(
        "warning", "maps of several units in one data set contradict each other", "bring all to one unit"
    ),
    "depth-normalised": Check(
        "warning", "depth scaled to 0..1 photo by photo has no unit", "export metres, or learn quantity: disparity"
    ),
    "depth-inverted": Check(
        "warning",
        "values grow towards the bottom of the photo, where things are near: it looks like disparity",
        "export depth; it is focal length x baseline / disparity",
    ),
    "depth-saturated": Check(
        "warning", "65535 often stands for no measurement, and is taken for the farthest depth", "write 0 instead"
    ),
    "depth-levels": Check(
        "note", "few different values: it was 8-bit once, and fine differences are lost", "export it from its source"
    ),
    "values-broken": Check("error", "the value map is refused", "save a .npy of (H, W, K) floats"),
    "values-size": Check("error", "photo and value map must have the same size", "export it at the photo's size"),
    "values-channels": Check("error", "all value maps need the same number of channels", "export them alike"),
    "values-empty": Check("warning", "nothing is learnt from a map without a number", "leave the photo out"),
}
