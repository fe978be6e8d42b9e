"""Laptop mode: heads on a frozen encoder, with all settings from the data and from the time that there is.

The encoder and one step of every head are timed once, on this machine. The budget then becomes an input size, a number
of photos and views, and a number of steps, which are written to the run's config; nothing is timed again when the run
is resumed, so it stays a function of its config.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from densevit.checkpoints.open import model_facts
from densevit.config import merge
from densevit.data.sample import Target
from densevit.errors import ConfigError
from densevit.inference_config import InferenceConfig
from densevit.training.config import TrainConfig
from densevit.training.published_recipes import Plain
from densevit.training.resolve_config import FROZEN, complete, head_settings
from densevit.training.run.progress import duration
from densevit.training.survey import Survey, survey_sources
from densevit.training.timing import Costs, measure
from densevit.types import Size

DEFAULT_TIME = "10m"

SUITABLE: Mapping[Target, tuple[str, ...]] = {"labels": ("dpt", "setr_mla"), "depth": ("dpt",), "values": ("dpt",)}
"""Heads by what is learnt, the best first; the next one is for machines where its steps take too long. On cells of
300 x 300 pixels setr_mla has mIoU 0.922, and dpt 0.930 without its branch on the image and 0.957 with it."""
ENOUGH_STEPS = 150
"""The input becomes smaller until the budget allows so many steps."""
NUM_LEVELS = 4  # taps that DPT reads; of an encoder with fewer, some twice
DETAIL_CHANNELS = 16  # of the branch on the image that DPT has for classes
CROP = (16, 16)
"""What such a head sees of a larger input in a step, in tokens: its branch learns from scratch and needs many steps. On
cell membranes mIoU is 0.786 with crops, 0.775 without, and 0.672 without the branch."""

DETAILED_SIDE = 480
"""Short side to which smaller photos are enlarged for such a head. On cells of 300 x 300 pixels mIoU is 0.941 at 304
and 0.946 at 480; on membranes of 512 x 512 0.792 at 512 and 0.790 at 640."""
PATCHES_ACROSS = 5
"""How many patches the thinnest objects should be across for other heads: on these cells setr_mla has 0.912 at 304 and
0.932 at 480, where they are."""
ENLARGED = 3.0
"""Largest factor on the sides of photos."""
SIDES = (192, 1024)
"""Least and largest short side of the input; the latter is 4,096 tokens, where attention begins to dominate."""
PLAIN_SIDE = 384
"""Short side for depth and other values, whose head needs the whole scene more than detail."""

ENCODING, LEARNING = 0.6, 0.3
"""Shares of the budget: at most for encoding photos, at least for steps with evaluations; the rest is for files."""
FEW_PHOTOS = 100
"""Rather than fewer training photos than this, smaller ones are encoded."""
MAX_VIEWS = 8
"""With four views of 24 photos, mIoU on membranes fell after 800 steps."""
STEPS, PASSES = (60, 2000), 40
"""Least and largest number of steps, and of passes over the encoded views."""
EVALUATIONS, PATIENCE = 8, 4
FEWEST_EVALUATIONS = 5
EVALUATION_SHARE = 0.25
"""Largest share of the time for learning that evaluations get, unless they are only ``FEWEST_EVALUATIONS``."""
BATCH = 4
DICE = 1.0
"""Weight of the Dice loss beside cross-entropy. At equal time mIoU on membranes is 0.793 with it and 0.788 without; on
blood cells both have 0.949."""

FIXED: Plain = {
    **{key: FROZEN[key] for key in ("ema", "optim")},
    "schedule": {"kind": "cosine"},
    "freeze": "encoder",
    "select": "best",
    "probe": True,
    "augment": {"scale": (0.8, 1.25), "flip": 0.0, "colour": 0.2, "cat_max_ratio": 1.0},
}
"""Settings that depend on nothing; photos are mirrored as features."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and how it came about.

    Attributes:
        raw: all that was given, with its gaps filled.
        lines: what a person should know before work begins.
    """

    raw: Plain
    lines: tuple[str, ...]


def plan(
    raw: Mapping[str, Any],
    decoders: Sequence[str],
    budget_s: float,
    *,
    device: str = "cpu",
    check: Callable[[TrainConfig], None] | None = None,
) -> Planned:
    """Fill what is not given: head, input size, photos, views, steps and evaluations.

    Args:
        raw: the config as given; it needs ``sources``.
        decoders: keys of ``DECODERS``, one head each; by default the one that suits the data.
        budget_s: for the whole run on this machine, in seconds.
        device: that it runs on.
        check: called with a draft of the run before time is spent; it may raise.

    Raises:
        ConfigError: the data or the settings cannot be used.
        DataError: the data cannot be read.
    """
    given = dict(raw)
    if given.get("features", {}) is None:
        raise ConfigError(
            "features is null, but laptop mode learns from cached features; leave features out, or name --init, such "
            "as --init default, for a run with settings of its own"
        )
    train, num_val = survey_sources(given)
    given = merge({} if given.get("encoder_weights") else {"init": "default"}, given)
    if not num_val:
        given = merge({"select": "last", "probe": False}, given)
    candidates = [decoders] if decoders else [(kind,) for kind in SUITABLE[train.target]]
    every_kind = [kind for kinds in candidates for kind in kinds]
    taps = None if given.get("init") is None else model_facts(str(given["init"])).model.encoder.taps
    drafted = merge(_heads(every_kind, train, taps), given)
    short_side = given.get("fit", {}).get("short_side")
    draft = TrainConfig.parse(complete(_with_size(drafted, min(short_side or PLAIN_SIDE, PLAIN_SIDE), iterations=1)))
    if check is not None:
        check(draft)
    measured = measure(draft, train.size, device)
    costs_of = [replace(measured.of(kinds), crop=_crop(drafted, kinds)) for kinds in candidates]
    sizes = [_choose_size(train, num_val, costs, budget_s, short_side) for costs in costs_of]
    for kinds, costs, (size, num_train) in zip(candidates, costs_of, sizes, strict=True):  # noqa: B007 - the last stays
        if ENOUGH_STEPS * costs.step_s(size, BATCH) <= LEARNING * budget_s:
            break
    given = merge(_heads(kinds, train, taps), given)
    views = 1 if num_train < train.count else _choose_views(num_train, num_val, costs, budget_s, size)
    views = (given.get("features") or {}).get("views", views)
    room = (ENCODING + LEARNING) * budget_s - (num_train * views + num_val) * costs.encode_s(size)
    steps, evaluations = _choose_steps(num_train * views, num_val, costs, room, size)
    every = max(steps // evaluations, 1)
    settings: Plain = {
        "schedule": {"warmup": min(FROZEN["schedule"]["warmup"], every * evaluations // 10)},
        "iterations": every * evaluations,
        "eval_every": every,
        "checkpoint_every": every,
        "log_every": max(every // 4, 1),
        "augment": {"crop": list(size)},
        "features": {
            "views": views,
            **({} if num_train == train.count else {"images": num_train}),
            **({} if costs.crop is None else {"crop": list(costs.seen(size))}),
        },
    }
    if num_val:
        settings["patience"] = PATIENCE
    filled = merge(settings, _with_size(given, min(size)))
    lines = _lines(filled, train, num_val, num_train, size, views, costs, budget_s)
    return Planned(filled, lines)


def _heads(decoders: Sequence[str], train: Survey, taps: Sequence[int] | None) -> Plain:
    """Model and tasks of heads, with settings from the data."""
    values = {"channels": list(train.channels), "unit_vectors": train.normals}
    settings = head_settings(decoders, train.target, values)
    for name, task in settings["tasks"].items():
        settings["tasks"][name] = dict(task)
        head = settings["model"]["heads"][name]
        if name == "dpt" and taps is not None and len(taps) != NUM_LEVELS:
            last = len(taps) - 1
            head["taps"] = [taps[round(i * last / (NUM_LEVELS - 1))] for i in range(NUM_LEVELS)]
        if name == "dpt" and train.target == "labels":
            head["decoder"]["detail_channels"] = DETAIL_CHANNELS
        if train.max_depth_m is not None:
            settings["tasks"][name]["max_depth_m"] = train.max_depth_m
            if (output := head["decoder"].get("head")) is not None:
                output["max_depth_m"] = train.max_depth_m
        elif train.target == "labels":
            settings["tasks"][name]["dice_weight"] = DICE
    return settings


def _crop(drafted: Plain, kinds: Sequence[str]) -> Size | None:
    """What heads see in a step, in tokens: as given, a crop if a branch on the image learns, or None for all of it."""
    given: Size | None = (drafted.get("features") or {}).get("crop")
    heads = drafted["model"]["heads"]
    return given or (
        CROP if any(heads[name]["decoder"].get("detail_channels") for name in kinds if name in heads) else None
    )


def _wanted_side(train: Survey, *, detail: bool) -> int:
    """That of the photos for heads with a branch on the image; else the thinnest objects decide."""
    short = min(train.size)
    if train.thickness is None:
        return PLAIN_SIDE
    if detail:
        return min(max(short, DETAILED_SIDE), SIDES[1])
    factor = min(PATCHES_ACROSS * 16 / train.thickness, ENLARGED)
    return round(min(max(short * factor, min(short, PLAIN_SIDE)), SIDES[1]))


def _input(side: int, size: Size, patch: Size) -> Size:
    return InferenceConfig(short_side=side).input_size(size, patch)


def _choose_size(train: Survey, num_val: int, costs: Costs, budget_s: float, given: int | None) -> tuple[Size, int]:
    """The input size, and how many training photos can be encoded at it.

    The largest one wanted at which the budget allows all photos, or ``FEW_PHOTOS`` where they are not enlarged.
    """
    side = given or _wanted_side(train, detail=costs.crop is not None)
    patch, floor = costs.patch, min(side, SIDES[0], max(min(train.size), SIDES[0] // 2))
    sides = [side] if given else [*range(side, floor, -patch[0]), floor]
    size, fitting = _input(side, train.size, patch), 0
    for candidate in sides:
        size = _input(candidate, train.size, patch)
        each = costs.encode_s(size)
        room = ENCODING * budget_s - num_val * each
        fitting = int(room / each)
        enlarged = candidate > min(train.size)
        enough_photos = fitting >= (train.count if enlarged else min(FEW_PHOTOS, train.count))
        learning_s = costs.step_s(size, BATCH) * ENOUGH_STEPS + FEWEST_EVALUATIONS * num_val * costs.evaluate_s(size)
        if enough_photos and learning_s <= LEARNING * budget_s:
            break
    size = size if given else _input(min(size), train.size, patch)  # as the config's short side will give it
    return size, min(max(fitting, BATCH), train.count)


def _choose_views(num_train: int, num_val: int, costs: Costs, budget_s: float, size: Size) -> int:
    """Views of each photo."""
    room = ENCODING * budget_s - (num_train + num_val) * costs.encode_s(size)
    return min(max(1 + int(room / max(num_train * costs.encode_s(size), 1e-9)), 1), MAX_VIEWS)


def _choose_steps(num_views: int, num_val: int, costs: Costs, room: float, size: Size) -> tuple[int, int]:
    """Numbers of steps and of evaluations for ``room`` seconds."""
    evaluation = num_val * costs.evaluate_s(size)
    evaluations = EVALUATIONS if num_val else 1
    while evaluations > FEWEST_EVALUATIONS and evaluations * evaluation > EVALUATION_SHARE * room:
        evaluations -= 1
    steps = int((room - evaluations * evaluation) / costs.step_s(size, BATCH))
    passes = max(round(PASSES * num_views / costs.share_seen(size)) // BATCH, 300)
    return min(max(steps, STEPS[0]), STEPS[1], passes), evaluations


def _with_size(given: Plain, side: int, **facts: Any) -> Plain:
    """The fixed settings, and the input size in all keys that depend on it, below what is given."""
    sources = [{"batch_size": BATCH, **source} for source in given["sources"]]
    below = merge(FIXED, {"fit": {"short_side": side}, "features": {"directory": "features", "flip": True}, **facts})
    return {**merge(below, given), "sources": sources}


def _lines(
    filled: Plain, train: Survey, num_val: int, num_train: int, size: Size, views: int, costs: Costs, budget_s: float
) -> tuple[str, ...]:
    """What the plan says to a person: what is used, why, and what every head costs."""
    steps, every = filled["iterations"], filled["eval_every"]
    encoded = (num_train * views + num_val) * costs.encode_s(size)
    evaluations = -(-steps // every) * num_val * costs.evaluate_s(size)
    objects = "" if train.thickness is None else f" with objects from {train.thickness:.0f} pixels across"
    lines = [
        f"laptop mode: {duration(budget_s)} on this machine (--time changes that)",
        f"photos of {train.size[0]} x {train.size[1]}{objects}, run as {size[0]} x {size[1]} (fit.short_side)",
    ]
    if train.thickness is not None:
        across = train.thickness * min(size) / min(train.size) / min(costs.patch)
        if across < 1 and costs.crop is None:
            lines.append(
                f"the thinnest objects are then thinner than a patch ({across:.2g} of one), so that their outlines "
                "will be rough; --decoder dpt has a branch on the image for them, and a longer --time allows a larger "
                "input"
            )
    if num_train < train.count:
        lines.append(f"{num_train} of {train.count} training photos are used; a longer --time uses more")
    lines.append(
        f"encoding once, for all heads: {num_train} photos x {views} {'views' if views > 1 else 'view'} + "
        f"{num_val} of val, {costs.encode_s(size):.2g} s each, {duration(encoded)}"
    )
    if train.channels:
        head = next(iter(costs.heads))
        learnt = "surface normals" if train.normals else "the mean absolute error"
        lines.append(
            f"value maps {', '.join(train.channels)} are learnt by {learnt}; tasks.{head}.channels names them, and "
            f"tasks.{head}.unit is their unit"
        )
    for head, seconds in costs.step_by_head(size, BATCH).items():
        total = steps * seconds + evaluations / len(costs.heads)
        lines.append(f"head {head}: {1000 * seconds:.0f} ms a step, {steps} steps, {duration(total)} with evaluations")
    if num_val:
        lines.append(
            f"an evaluation every {every} steps; the run ends after {filled.get('patience')} of them without a gain "
            "(patience), and model.safetensors is the model of the best one (select)"
        )
    return tuple(lines)
