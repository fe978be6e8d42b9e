"""Every finding of the doctor, as a table of literals. Codes are stable: scripts and the documentation rely on them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
"""error: training would stop or learn something wrong; warning: the result suffers; note: good to know."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Check:
    """What a code means; ``fixable`` says whether ``--write-fixed`` fixes it where that is safe."""

    severity: Severity
    why: str
    fix: str
    fixable: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of a data set.

    Attributes:
        code: a key of ``CHECKS``.
        what: a sentence with counts.
        files: all files concerned.
        split: name of the split; "" for the whole data set.
        hint: advice for this case, which precedes the general one.
    """

    code: str
    what: str
    files: tuple[str, ...] = ()
    split: str = ""
    hint: str = ""

    @property
    def check(self) -> Check:
        """What the code means."""
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
        """The finding as one line of a log."""
        example = f", for example {self.files[0]}" if self.files else ""
        return f"{self.code}: {self.what}{example}; {self.check.why}; {self.fix}"


class Findings(list[Finding]):
    """The findings so far, in the order of the checks. Files are paths, or facts that have a ``path``."""

    def add(self, code: str, what: str, files: Iterable[Any] = (), *, split: str = "", hint: str = "") -> None:
        """Add a finding."""
        assert code in CHECKS, code
        paths = tuple(str(getattr(file, "path", file)) for file in files)
        self.append(Finding(code, what, paths, split, hint))

    def add_share(
        self, code: str, files: Sequence[Any], total: int, text: str, *, split: str = "", hint: str = ""
    ) -> None:
        """Add a finding "3 of 12 ``text``" if there are any files."""
        if files:
            self.add(code, f"{len(files)} of {total} {text}", files, split=split, hint=hint)

    def by_severity(self) -> list[Finding]:
        """The findings with errors first."""
        return sorted(self, key=lambda finding: SEVERITIES.index(finding.severity))


def listed(items: Sequence[str], most: int) -> str:
    """The first few items in words."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


# One finding in two or three lines: severity and why it hurts; what to do; whether it is fixable.
# fmt: off
CHECKS: dict[str, Check] = {
    # names and folders
    "classes-missing": Check("error", "a head needs the class names or their number",
        'write classes.json into the root, {"classes": ["road", "sky"], "ignore_index": 255}, or set train.classes'),
    "classes-broken": Check("error", "training reads it first and stops",
        "fix classes.json; see docs/how-to/check-your-data.md"),
    "classes-twice": Check("warning", "metrics are kept by name, so one of the two hides the other",
        "give every class a different name"),
    "ignore-is-class": Check("error", "every pixel of that class is ignored, so it is never learnt",
        "set ignore_index in classes.json to a number that no class has, such as 255"),
    "split-empty": Check("error", "there is nothing to train on or to evaluate", "copy the photos into this folder"),
    "split-without-photos": Check("warning", "the targets of a split without photos are never read",
        "give the folder the name of the photos' folder"),
    "split-missing": Check("note", "without a validation split nobody knows how good the model is",
        "move some photos to images/val"),
    "no-targets": Check("warning", "photos without targets can be predicted but not learnt from",
        "add masks/, depth/ or values/"),
    "target-missing": Check("error", "a split in which photos lack targets is refused",
        "add the files, or move these photos elsewhere"),
    "target-orphan": Check("warning", "it is never read; often its photo has a different name",
        "rename or remove it", True),
    "name-case": Check("error", "names must be equal; on Linux, Photo and photo are two names",
        "rename the target like the photo", True),
    "name-twice": Check("error", "photos and targets are matched by stem, and either file could be meant",
        "rename or remove one"),
    "file-stray": Check("note", "it is skipped", "move it elsewhere, or convert it if it should be used", True),
    "file-dangling": Check("error", "the target of the link does not exist", "copy the file, or fix the link"),
    "empty-file": Check("error", "training stops when it reads the file", "copy or download the file again", True),
    "not-an-image": Check("error", "training stops when it reads the file", "replace it by the real file", True),
    "unreadable": Check("error", "training stops when it reads the file", "copy or download the file again", True),
    # photos
    "photo-sizes": Check("note", "odd ones out are often there by mistake", "look at them"),
    "photo-small": Check("warning", "it is enlarged to fill the crop and becomes blurred",
        "lower augment.crop, or leave the photo out"),
    "photo-aspect": Check("warning", "a crop shows a small part of it, and resizing to a fixed side makes it huge",
        "cut it into tiles"),
    "photo-grey": Check("note", "encoders pre-trained on colour do a little worse on grey",
        "nothing, if photos will be grey in use too"),
    "photo-transparent": Check("warning", "transparent parts are composited on white, so the network sees white",
        "save it without alpha"),
    "photo-dark": Check("warning", "16-bit photos are scaled from 0..65535, so 10- and 12-bit values are almost black",
        "scale the values up to 65535, or save 8-bit photos"),
    "photo-blank": Check("warning", "there is nothing to learn from it", "leave it out"),
    "photo-frames": Check("note", "only the first frame of the file is read", "save the other frames as files"),
    "exif-mask-unturned": Check("error", "the EXIF tag turns the photo but not the mask, so they do not match",
        "turn the mask like the photo", True),
    "exif-unclear": Check("warning", "the EXIF tag turns the photo, and the size does not show if the mask is turned",
        "look at one in the page of --html; turn the masks where they are wrong"),
    "photo-twice": Check("warning", "it counts more than others, in training and in the metrics",
        "keep one of each group"),
    "photo-twice-masks-differ": Check("warning", "equal photos with different masks teach contradictions",
        "keep the right mask"),
    "photo-near": Check("note", "nearly equal photos, such as frames of a video, add little", "keep every n-th frame"),
    "leak-exact": Check("warning", "metrics on training photos are too good and say nothing about new photos",
        "remove them from one of the splits"),
    "leak-near": Check("warning", "nearly equal photos in both splits make the metrics too good",
        "split by scene, place or video instead of by photo"),
    # masks
    "mask-jpeg": Check("error", "JPEG blurs class numbers, and the mask is refused",
        "export the masks again as PNG; JPEG masks cannot be fixed"),
    "mask-colours": Check("error", "colours are not class numbers, and the mask is refused",
        "replace each colour by its class number; --colours FILE with --write-fixed does it", True),
    "mask-0-255": Check("error", "255 means ignore, so the class is never learnt and only 0 is left",
        "write 1 instead of 255", True),
    "mask-stretched": Check("error", "the numbers were spread over 0..255 for display and are not classes",
        "write 0, 1, 2, ... instead", True),
    "mask-off-by-one": Check("error", "numbers count from 1, so each is taken for the next class",
        "set reduce_zero_label: true", True),
    "mask-range": Check("error", "training stops at a number without a class",
        "fix the masks, or list the classes in classes.json"),
    "mask-blurred": Check("error", "numbers between classes along every outline come from smooth resizing or JPEG",
        "resize masks with nearest neighbour; make these again from their source"),
    "mask-floats": Check("error", "class numbers are integers, and the mask is refused", "save them as integers", True),
    "mask-size": Check("error", "photo and mask must have the same size",
        "resize the mask with nearest neighbour", True),
    "mask-transposed": Check("error", "height and width are swapped, so the mask does not match the photo",
        "transpose or rotate it; look which is right"),
    "mask-turned": Check("warning", "the outlines of masks match those of the photos better when mirrored or turned",
        "look at the pictures"),
    "mask-palettes": Check("warning", "the number counts, not the colour; different palettes mean different numbers",
        "save all masks with one palette, or replace colours by numbers"),
    "mask-ignored": Check("warning", "nothing is learnt from a mask without a class", "leave the photo out"),
    "mask-ignored-share": Check("note", "ignored pixels count neither in the loss nor in the metrics",
        "nothing, if that is intended"),
    "mask-one-class": Check("note", "the whole mask has a single class", "nothing, if that is intended"),
    "class-unseen": Check("warning", "it cannot be learnt, and its output is noise",
        "add photos of it, or take it off the list"),
    "class-val-only": Check("warning", "it is evaluated but never learnt, so its IoU is 0",
        "move some of its photos to the training split"),
    "class-train-only": Check("note", "it is learnt but never evaluated", "move some of its photos to the val split"),
    "class-rare": Check("note", "it hardly contributes to the loss",
        "set tasks.NAME.class_weights or lovasz_weight: 1.0"),
    # depth and values
    "depth-8-bit": Check("error", "256 steps are too coarse, or it is a picture of depth; it is refused",
        "export 16-bit PNG or floats"),
    "depth-colours": Check("error", "a colour picture of depth is no measurement; it is refused",
        "export 16-bit PNG or floats"),
    "depth-size": Check("error", "photo and depth map must have the same size", "export the depth at the photo's size"),
    "depth-transposed": Check("error", "height and width are swapped, so the depth does not match the photo",
        "transpose or rotate it; look which is right"),
    "depth-negative": Check("error", "depth below 0 is refused", "write 0 where there is no measurement"),
    "depth-empty": Check("warning", "nothing is learnt from a map without a measurement", "leave the photo out"),
    "depth-constant": Check("warning", "one depth everywhere is no measurement", "leave the photo out"),
    "depth-sparse": Check("note", "few pixels are measured, and gradient losses need neighbours",
        "set l1_weight, and gradient_weight: 0"),
    "depth-nan": Check("note", "NaN and infinity mean no measurement", "nothing, if that is intended"),
    "depth-unit": Check("warning", "a metric model learns the wrong scale, and max_depth_m cuts off the rest",
        "set depth_unit_m"),
    "depth-units-differ": Check("warning", "maps in different units contradict each other", "convert all to one unit"),
    "depth-normalised": Check("warning", "depth scaled to 0..1 photo by photo has no unit",
        "export metres, or learn quantity: disparity"),
    "depth-inverted": Check("warning", "values grow towards the bottom, where things are near, as in disparity",
        "export depth; it is focal length x baseline / disparity"),
    "depth-saturated": Check("warning", "65535 often means no measurement, but is read as the largest depth",
        "write 0 instead"),
    "depth-levels": Check("note", "few different values: it was 8-bit once, and fine differences are lost",
        "export it from its source"),
    "values-broken": Check("error", "the value map is refused", "save a .npy of (H, W, K) floats"),
    "values-size": Check("error", "photo and value map must have the same size", "export it at the photo's size"),
    "values-channels": Check("error", "all value maps need the same number of channels", "export them alike"),
    "values-empty": Check("warning", "nothing is learnt from a map that is NaN everywhere", "leave the photo out"),
}
# fmt: on
