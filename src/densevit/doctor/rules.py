"""Every finding of the doctor, as a table of literals. Codes are stable: scripts and the documentation rely on them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
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


def listed(items: Sequence[object], most: int) -> str:
    """The first few items in words."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


_error = partial(Check, "error")
_warning = partial(Check, "warning")
_note = partial(Check, "note")

# Why it hurts; what to do; whether it is fixable.
# fmt: off
CHECKS: dict[str, Check] = {
    # names and folders
    "classes-missing": _error("a head needs the class names or their number",
        'set classes (--classes), or write classes.json, {"classes": ["road", "sky"], "ignore_index": 255}'),
    "classes-broken": _error("training stops at it", "fix classes.json; see docs/how-to/check-your-data.md"),
    "classes-twice": _warning("metrics are kept by name, so one hides the other", "give every class a different name"),
    "ignore-is-class": _error("every pixel of that class is ignored, so it is never learnt",
        "set ignore_index in classes.json to a number that no class has, such as 255"),
    "split-empty": _error("there is nothing to train on or to evaluate", "copy the photos into this folder"),
    "split-without-photos": _warning("targets without photos are never read",
        "name the folder like that of the photos"),
    "split-missing": _note("without a validation split, quality is unknown", "move some photos to images/val"),
    "no-targets": _warning("nothing can be learnt from photos without targets", "add masks/, depth/ or values/"),
    "target-missing": _error("a split that lacks targets is refused", "add the files, or move these photos elsewhere"),
    "target-left-out": _warning("nothing is learnt from a photo without a target", "nothing, if that is intended"),
    "target-orphan": _warning("it is never read; often its photo has a different name", "rename or remove it", True),
    "name-case": _error("names must be equal; Linux tells Photo from photo", "rename the target like the photo", True),
    "name-twice": _error("files are matched by stem, and either could be meant", "rename or remove one"),
    "file-stray": _note("it is skipped", "move it elsewhere, or convert it if it should be used", True),
    "file-dangling": _error("the target of the link does not exist", "copy the file, or fix the link"),
    "empty-file": _error("training stops when it reads the file", "copy or download the file again", True),
    "not-an-image": _error("training stops when it reads the file", "replace it by the real file", True),
    "unreadable": _error("training stops when it reads the file", "copy or download the file again", True),
    # photos
    "photo-sizes": _note("odd ones out are often there by mistake", "look at them"),
    "photo-small": _warning("it is blurred when enlarged to fill the crop",
        "lower augment.crop, or leave the photo out"),
    "photo-aspect": _warning("a crop shows little of it, and resizing to a fixed side makes it huge",
        "cut it into tiles"),
    "photo-grey": _note("encoders pre-trained on colour do slightly worse",
        "nothing, if photos will be grey in use too"),
    "photo-transparent": _warning("transparent parts are composited on white", "save it without alpha"),
    "photo-dark": _warning("16-bit photos are scaled from 0..65535, so 10- and 12-bit values are almost black",
        "scale the values up to 65535, or save 8-bit photos"),
    "photo-blank": _warning("there is nothing to learn from it", "leave it out"),
    "photo-frames": _note("only the first frame of the file is read", "save the other frames as files"),
    "exif-mask-unturned": _error("the EXIF tag turns the photo but not the mask", "turn the mask like the photo", True),
    "exif-unclear": _warning("the EXIF tag turns the photo, and the size does not show if the mask is turned",
        "look at one in the page of --html; turn the masks where they are wrong"),
    "photo-twice": _warning("it counts more than others, in training and in the metrics", "keep one of each group"),
    "photo-twice-masks-differ": _warning("equal photos with different masks are contradictory", "keep the right mask"),
    "photo-near": _note("nearly equal photos, such as frames of a video, add little", "keep every n-th frame"),
    "leak-exact": _warning("metrics on training photos are too good", "remove them from one of the splits"),
    "leak-near": _warning("nearly equal photos in both splits make the metrics too good",
        "split by scene, place or video instead of by photo (splits.by, --split-by)"),
    "leak-groups": _note("photos of one video, patient or place in both splits make the metrics too good",
        "nothing, if the names mean something else"),
    # masks
    "mask-jpeg": _error("JPEG blurs class numbers, and the mask is refused",
        "export the masks again as PNG; JPEG masks cannot be fixed"),
    "mask-colours": _error("colours are not class numbers, and the mask is refused",
        "replace each colour by its class number; --colours FILE with --write-fixed does it", True),
    "mask-0-255": _error("255 means ignore, so only class 0 is left to learn", "write 1 instead of 255", True),
    "mask-stretched": _error("numbers spread over 0..255 for display are not classes",
        "write 0, 1, 2, ... instead", True),
    "mask-spread": _error("numbers that stand for classes but do not count them are refused",
        "set class_values in dataset.yaml", True),
    "mask-strays": _error("numbers that no class has are refused",
        "set stray_values: nearest, if they come from resizing or compression", True),
    "mask-nearest": _note("stray numbers of resized or compressed masks are taken for the nearest class",
        "nothing; stray_values: refuse stops at them"),
    "mask-off-by-one": _error("numbers count from 1, so each is taken for the next class",
        "set reduce_zero_label: true", True),
    "mask-range": _error("a number without a class stops training", "fix the masks, or complete classes.json"),
    "mask-blurred": _error("numbers between classes along every outline come from smooth resizing or JPEG",
        "resize masks with nearest neighbour; make these again from their source"),
    "annotations-broken": _error("training stops at it", "fix the file, or export it again"),
    "annotations-passed-over": _warning("what is passed over is not learnt, and its pixels count as background",
        "give it an outline, or remove it if that is intended"),
    "annotations-no-photo": _warning("their annotations are not used",
        "add the photos, or nothing if they were removed on purpose"),
    "mask-floats": _error("class numbers are integers, and the mask is refused", "save them as integers", True),
    "mask-size": _error("photo and mask must have the same size", "resize the mask with nearest neighbour", True),
    "mask-transposed": _error("height and width are swapped", "transpose or rotate it; look which is right"),
    "mask-turned": _warning("masks match their photos better mirrored or turned", "look at the pictures"),
    "mask-palettes": _warning("the number counts, not the colour; different palettes mean different numbers",
        "save all masks with one palette, or replace colours by numbers"),
    "mask-ignored": _warning("nothing is learnt from a mask without a class", "leave the photo out"),
    "mask-ignored-share": _note("ignored pixels count in neither loss nor metrics", "nothing, if that is intended"),
    "mask-one-class": _note("the whole mask has a single class", "nothing, if that is intended"),
    "mask-all-one-class": _warning("nothing is learnt, and metrics look perfect",
        "check that outlines and masks were exported, or which values stand for which class"),
    "class-unseen": _warning("it is never learnt, and its output is noise",
        "add photos of it, or take it off the list"),
    "class-val-only": _warning("it is evaluated but never learnt: IoU 0", "move some of its photos to the train split"),
    "class-train-only": _note("it is learnt but never evaluated", "move some of its photos to the val split"),
    "class-rare": _note("it hardly contributes to the loss", "set tasks.NAME.class_weights or lovasz_weight: 1.0"),
    # depth and values
    "depth-8-bit": _error("256 steps are too coarse for depth; it is refused", "export 16-bit PNG or floats"),
    "depth-colours": _error("a colour picture is no depth measurement; it is refused", "export 16-bit PNG or floats"),
    "depth-size": _error("photo and depth map must have the same size", "export the depth at the photo's size"),
    "depth-transposed": _error("height and width are swapped", "transpose or rotate it; look which is right"),
    "depth-negative": _error("depth below 0 is refused", "write 0 where there is no measurement"),
    "depth-empty": _warning("nothing is learnt from a map without a measurement", "leave the photo out"),
    "depth-constant": _warning("one depth everywhere is no measurement", "leave the photo out"),
    "depth-sparse": _note("gradient losses need measured neighbours", "set l1_weight, and gradient_weight: 0"),
    "depth-nan": _note("NaN and infinity mean no measurement", "nothing, if that is intended"),
    "depth-unit": _warning("a metric model learns the wrong scale, cut off at max_depth_m",
        "set depth_unit_m for integers, depth_scale_m for floats"),
    "depth-units-differ": _warning("maps in different units contradict each other", "convert all to one unit"),
    "depth-normalised": _warning("depth scaled to 0..1 per photo has no unit",
        "export metres, or learn quantity: disparity"),
    "depth-inverted": _warning("values grow towards the bottom, where things are near, as in disparity",
        "export depth; it is focal length x baseline / disparity (quantity: disparity takes depth too)"),
    "depth-saturated": _warning("a frequent largest value often means no measurement but is read as far away",
        "write 0 instead"),
    "depth-levels": _note("few different values: it was 8-bit once, or the camera measures in coarse steps",
        "export it from its source, if there is more"),
    "values-broken": _error("the value map is refused", "save a .npy of (H, W, K) floats"),
    "values-size": _error("photo and value map must have the same size", "export it at the photo's size"),
    "values-channels": _error("all value maps need the same number of channels", "export them alike"),
    "values-empty": _warning("nothing is learnt from a map that is NaN everywhere", "leave the photo out"),
}
# fmt: on
