"""Rename the tensors of a foreign state dict by a list of rules, prove that none is lost, and report on each."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from densevit.errors import CheckpointError

# Regular expressions for {name} in a rule; any other name matches one segment between dots.
PLACEHOLDERS = {"i": r"\d+", "j": r"\d+", "param": "weight|bias", "rest": ".+"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a renaming table, such as ``Rule("layers.{i}.ln1.{param}", "blocks.{i}.norm1.{param}")``.

    Attributes:
        source: template of whole source names; ``{i}`` and ``{j}`` are numbers, ``{param}`` is weight or bias,
            ``{rest}`` anything, any other ``{name}`` one segment.
        target: template of the target name; None to ignore the tensor.
        reason: why a tensor is ignored.
        part: (index, number of parts) of tensors that are concatenated along the first axis, such as query, key, value.
        convert: applied to the tensor before it is joined, such as a transposition.
        note: what ``convert`` does, for the report.
    """

    source: str
    target: str | None = None
    reason: str = ""
    part: tuple[int, int] = (0, 1)
    convert: Callable[[Tensor], Tensor] | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if (self.target is None) != bool(self.reason):
            raise ValueError(f"rule for {self.source!r} needs either a target or the reason to ignore the tensor")


@dataclass(frozen=True, slots=True)
class Renamed:
    """The outcome of renaming, by which every source tensor is accounted for.

    Attributes:
        tensors: by target name.
        sources: target name -> the source names it was made of.
        ignored: source name -> the reason.
        unused: source names that no rule matches.
        notes: target name -> how its tensor differs from that of the file.
        absorbed: number of the file's parameters that the model has no parameter for: a bias folded into a running
            mean, the position of a token that is not in the sequence.
    """

    tensors: dict[str, Tensor]
    sources: dict[str, tuple[str, ...]]
    ignored: dict[str, str]
    unused: tuple[str, ...]
    notes: dict[str, str] = field(default_factory=dict)
    absorbed: int = 0

    def with_tensors(
        self, tensors: Mapping[str, Tensor], note: str, *, drop: Sequence[str] = (), absorbed: int = 0
    ) -> "Renamed":
        """A copy in which some tensors are replaced, each with the note, and others dropped."""
        kept = {name: tensor for name, tensor in self.tensors.items() if name not in drop}
        return replace(
            self,
            tensors=kept | dict(tensors),
            notes=self.notes | dict.fromkeys(tensors, note),
            absorbed=self.absorbed + absorbed,
        )


def prefixed(rules: Iterable[Rule], source: str, target: str) -> tuple[Rule, ...]:
    """The rules for names under a prefix on either side."""
    return tuple(
        replace(rule, source=source + rule.source, target=None if rule.target is None else target + rule.target)
        for rule in rules
    )


def rename(state: Mapping[str, Tensor], rules: Sequence[Rule]) -> Renamed:
    """Apply to every tensor the first rule that matches its name.

    Raises:
        CheckpointError: if two tensors get one name, or a part of a joined tensor is missing.
    """
    patterns = [(_pattern(rule.source), rule) for rule in rules]
    pieces: dict[str, dict[int, tuple[str, Tensor]]] = {}
    totals: dict[str, int] = {}
    ignored: dict[str, str] = {}
    unused: list[str] = []
    notes: dict[str, str] = {}
    for name, tensor in state.items():
        rule, match = next(((rule, m) for pattern, rule in patterns if (m := pattern.fullmatch(name))), (None, None))
        if rule is None or match is None:
            unused.append(name)
            continue
        if rule.target is None:
            ignored[name] = rule.reason
            continue
        target = rule.target.format(**match.groupdict())
        index, totals[target] = rule.part
        parts = pieces.setdefault(target, {})
        if index in parts:
            raise CheckpointError(f"{parts[index][0]} and {name} both become {target}; keep one of the two")
        parts[index] = (name, rule.convert(tensor) if rule.convert else tensor)
        if rule.convert is not None:
            notes[target] = rule.note or "converted"
        elif rule.part[1] > 1:
            notes[target] = f"joined from {rule.part[1]} tensors"
    tensors = {target: _join(target, parts, totals[target]) for target, parts in pieces.items()}
    sources = {target: tuple(parts[index][0] for index in sorted(parts)) for target, parts in pieces.items()}
    return Renamed(tensors, sources, ignored, tuple(unused), notes)


def _pattern(template: str) -> re.Pattern[str]:
    literals = re.split(r"\{(\w+)\}", template)  # text, name, text, name, ..., text
    expressions = [
        re.escape(piece) if index % 2 == 0 else f"(?P<{piece}>{PLACEHOLDERS.get(piece, '[^.]+')})"
        for index, piece in enumerate(literals)
    ]
    return re.compile("".join(expressions))


def _join(target: str, parts: Mapping[int, tuple[str, Tensor]], total: int) -> Tensor:
    if len(parts) != total:
        present = ", ".join(name for name, _ in parts.values())
        raise CheckpointError(
            f"{target} is joined from {total} tensors, but only {present} is there; download the file again"
        )
    tensors = [parts[index][1] for index in range(total)]
    if total == 1:
        return tensors[0]
    if len({t.shape[1:] for t in tensors}) != 1 or len({t.dtype for t in tensors}) != 1:
        shapes = ", ".join(f"{parts[index][0]} {tuple(parts[index][1].shape)}" for index in range(total))
        raise CheckpointError(f"{target} cannot be joined from {shapes}; all axes but the first must agree")
    return torch.cat(tensors)


def require_total(renamed: Renamed, targets: Mapping[str, torch.Size], *, source: str, advice: str) -> None:
    """Check that every source tensor is used or ignored for a reason, every target is filled, and all of them fit.

    They fit if shapes agree, weights are floating point of at least 16 bits, and counters integers; a file with others
    is quantised.

    Args:
        renamed: the outcome of ``rename``.
        targets: shapes of the model's tensors by name.
        source: what the message calls the weights.
        advice: the last line of the message.

    Raises:
        CheckpointError: naming every tensor for which this is not so.
    """
    known = [name for name in renamed.tensors if name in targets]
    wrong = [name for name in known if renamed.tensors[name].shape != targets[name]]
    problems = {
        "not understood": list(renamed.unused),
        "no such tensor in the model": [name for name in renamed.tensors if name not in targets],
        "not in the file": [name for name in targets if name not in renamed.tensors],
        "of another shape": [
            f"{name} {tuple(renamed.tensors[name].shape)} for {tuple(targets[name])}" for name in wrong
        ],
    }
    lines = [f"\n  {problem}: {', '.join(collapse(names))}" for problem, names in problems.items() if names]
    if lines:
        raise CheckpointError(f"{source} does not fit the model, and nothing was loaded:{''.join(lines)}\n{advice}")
    for name, tensor in renamed.tensors.items():
        is_weight = tensor.is_floating_point() and tensor.element_size() > 1
        is_counter = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool
        if not (is_counter if name.endswith("num_batches_tracked") else is_weight):
            raise CheckpointError(
                f"{source} has {', '.join(renamed.sources.get(name, (name,)))} as "
                f"{str(tensor.dtype).removeprefix('torch.')}, but weights must be floating point of at least 16 bits, "
                "and counters integers; dequantise the file with the program that wrote it"
            )


def collapse(names: Iterable[str]) -> list[str]:
    """Join the names that differ only in a number, such as those of twelve blocks: ``blocks.{0..11}.norm1.weight``."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for name in names:
        head, number, rest = match.groups() if (match := re.match(r"(\D*?\.)(\d+)(\..*)", name)) else (name, None, "")
        groups.setdefault((head, rest), []).extend([] if number is None else [int(number)])
    return [f"{head}{_ranges(numbers)}{rest}" for (head, rest), numbers in groups.items()]


def _ranges(numbers: list[int]) -> str:
    if not numbers:
        return ""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    text = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs)
    return text if text.isdigit() else f"{{{text}}}"


Status = Literal["loaded", "adapted", "ignored", "missing"]
STATUSES: tuple[Status, ...] = ("loaded", "adapted", "ignored", "missing")


@dataclass(frozen=True, slots=True)
class Row:
    """The report on one tensor.

    Attributes:
        name: in the model, or in the file if the tensor is ignored.
        note: how it was adapted, or why it is ignored or missing.
    """

    name: str
    status: Status
    note: str = ""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The report on every tensor of a file and of a model; ``str`` gives a table."""

    source: str
    rows: tuple[Row, ...]

    @property
    def counts(self) -> dict[Status, int]:
        """Number of tensors per status."""
        return {status: sum(row.status == status for row in self.rows) for status in STATUSES}

    def __str__(self) -> str:
        """A line of counts, then one line per group of tensors with the same status and note."""
        groups: dict[tuple[Status, str, str], list[str]] = {}
        for row in sorted(self.rows, key=lambda row: STATUSES.index(row.status)):
            groups.setdefault((row.status, row.note, row.name.split(".")[0]), []).append(row.name)
        lines = [(status, _group_name(names), str(len(names)), note) for (status, note, _), names in groups.items()]
        widths = [max((len(line[column]) for line in lines), default=0) for column in range(3)]
        table = [
            f"  {status:<{widths[0]}}  {name:<{widths[1]}}  {count:>{widths[2]}}  {note}".rstrip()
            for status, name, count, note in lines
        ]
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        return "\n".join([f"{self.source}: {counts}", *table])


def _group_name(names: list[str]) -> str:
    short = collapse(names)
    if len(short) == 1:
        return short[0]
    blocks = {match.group() for name in names if (match := re.match(r"\w+\.\d+(?=\.)", name))}
    if blocks and all(re.match(r"\w+\.\d+\.", name) for name in names):
        return collapse(f"{block}.*" for block in sorted(blocks))[0]
    return names[0].split(".")[0] + ".*"
