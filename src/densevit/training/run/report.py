"""``report.html`` of a run folder: one self-contained file, written from the other files in the folder."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from densevit.errors import DataError
from densevit.evaluation.snapshots import load_evaluation
from densevit.io import write_bytes_atomic
from densevit.pages.charts import confusion_chart, depth_chart, line_chart
from densevit.pages.html import cards, escape, facts_table, folded, in_line, page, section, titled
from densevit.plain_data import parse_yaml
from densevit.tasks import TASKS, Task
from densevit.training.run.log import Row, in_words, read_log
from densevit.training.run.progress import duration
from densevit.training.run.report_tables import class_table, confused_table, metrics_table, picture_rows
from densevit.training.run.salvage import counts, mapping, mappings, number, parse_json, parse_mapping, read_text

REPORT = "report.html"
_log = logging.getLogger(__name__)
_ROW_KEYS = ("event", "head", "iteration", "seconds", "evaluation_seconds", "per_class")
_NO_CURVE = ("iteration", "seconds", "evaluation_seconds", "mean_entropy")


def write_report(out: Path) -> Path:
    """Write the report of a run, finished or not, into its folder; returns its path.

    Raises:
        DataError: the folder holds no run, or the report cannot be written.
    """
    notes: list[str] = []
    rows = read_log(out / "log.jsonl", notes)
    if not rows:
        raise DataError(f"{out} has no log.jsonl with lines of a run; name a run folder that densevit train wrote")
    text = read_text(out / "config.yaml", notes)
    config = parse_mapping(text, "config.yaml", parse_yaml, notes)
    record = parse_mapping(read_text(out / "environment.json", notes), "environment.json", parse_json, notes)
    last = max(row["iteration"] for row in rows)
    folder, details = load_evaluation(out, until=last, notes=notes) or (out, {"heads": {}})
    heads = mapping(details["heads"])
    title = _title(out, config)
    makers: dict[str, Callable[[], str]] = {
        "the heading": lambda: _head(out, title, config, rows, record, heads),
        "the curves": lambda: _curves(rows),
        **{f"head {h}": partial(_result, h, rows, folder, mapping(heads.get(h)), notes) for h in _evaluated(rows)},
        "the environment": lambda: _environment(record, text, rows),
    }
    heading, *parts = [_part(name, make, notes) for name, make in makers.items()]
    path = out / REPORT
    write_bytes_atomic(path, page(f"{title} - densevit", heading, _left_out(notes), *parts).encode())
    return path


def _part(name: str, make: Callable[[], str], notes: list[str]) -> str:
    """A part of the report; empty, with a note, if what it shows is damaged."""
    try:
        return make()
    except Exception as error:  # what a damaged file holds may be wrong in any way
        notes.append(f"{name} ({type(error).__name__}: {error})")
        return ""


def _left_out(notes: list[str]) -> str:
    """What the report could not show, which is logged too."""
    if not notes:
        return ""
    _log.warning("the report leaves out what is damaged in the run folder: %s", "; ".join(notes))
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<div class='finding warning'><b>left out, since it is damaged</b><ul>{items}</ul></div>"


def _head(
    out: Path, title: str, config: dict[str, Any], rows: list[Row], record: dict[str, Any], heads: dict[str, Any]
) -> str:
    last = max(row["iteration"] for row in rows)
    end = rows[-1] if rows[-1]["event"] == "end" else {}
    outcome = str(end.get("outcome", "not finished"))
    state = f"<span class='state {escape(outcome)}'>{escape(outcome)}</span>"
    error = f"<p class=soft>{escape(end['error'])}</p>" if "error" in end else ""
    written = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    evaluations = {row["iteration"]: row.get("evaluation_seconds", 0.0) for row in _of(rows, "eval")}
    evaluating = sum(evaluations.values())  # the heads of one evaluation have the same time
    seconds = float(rows[-1].get("seconds", 0.0))
    values = {"iterations": f"{last} of {in_line(config.get('iterations', '?'), levels=0)}", "time": duration(seconds)}
    if evaluating:
        values["of which evaluation"] = duration(evaluating)
    if best := _of(rows, "best"):
        values["best at iteration"] = str(best[-1]["iteration"])
    for head in _evaluated(rows):
        row = _evals_of(rows, head)[-1]
        name = mapping(heads.get(head)).get("headline")
        name = name if isinstance(name, str) else _first_metric(row)
        if name in row:
            values[f"{name} of {head}"] = in_line(row[name])
    sessions = mappings(record.get("sessions"))
    if sessions and (parameters := number(sessions[-1].get("parameters"))) is not None:
        values["parameters"] = f"{parameters / 1e6:.1f} M"
    return (
        f"<h1>{escape(title)} {state}</h1><p class=soft>{escape(out.resolve().name)}, "
        f"report of {written}</p>{error}{cards(values)}"
    )


def _curves(rows: list[Row]) -> str:
    steps = _of(rows, "step")
    losses = sorted({name for row in steps for name in row if name.startswith("loss/")})
    boxes = []
    if losses:
        curves = {name.removeprefix("loss/"): _points(steps, name) for name in losses}
        boxes.append(titled("loss" if len(losses) == 1 else "losses by head", line_chart(curves)))
        boxes.append(titled("learning rate", line_chart({"lr": _points(steps, "lr")}, from_zero=True)))
        if any("images_per_second" in row for row in steps):
            boxes.append(
                titled("images per second", line_chart({"": _points(steps, "images_per_second")}, from_zero=True))
            )
    for head in _evaluated(rows):
        head_rows = _evals_of(rows, head)
        for names in _chart_groups(head_rows[-1]):
            curves = {name: _points(head_rows, name) for name in names}
            boxes.append(titled(f"{head}: {', '.join(names)}", line_chart(curves)))
    return section("Curves", f"<div class=grid>{''.join(boxes)}</div>" if boxes else "")


def _chart_groups(row: Row) -> list[list[str]]:
    """The metrics of a head by chart: shares that are better when higher in one, each other metric in its own."""
    names = [name for name, value in row.items() if isinstance(value, float) and name not in _NO_CURVE]
    shares = [name for name in names if name in ("mIoU", "aAcc", "mAcc") or name.startswith("delta")]
    return [*([shares] if shares else []), *([name] for name in names if name not in shares)]


def _result(head: str, rows: list[Row], folder: Path, details: dict[str, Any], notes: list[str]) -> str:
    """The section on the last evaluation of a head."""
    row = _evals_of(rows, head)[-1]
    best = _of(rows, "best")[-1:]
    at_best = [r for r in _evals_of(rows, head) if best and r["iteration"] == best[0]["iteration"]]
    metrics = {name: value for name, value in row.items() if name not in _ROW_KEYS}
    parts = [titled("metrics", metrics_table(metrics, at_best[-1] if at_best else {}))]
    if probes := [r for r in _of(rows, "probe") if r.get("head") == head]:
        numbers = {name: value for name, value in probes[-1].items() if name not in _ROW_KEYS}
        parts.append(titled("a linear probe of the same features", f"<p>{escape(in_words(numbers))}</p>"))
    per_class = mapping(row.get("per_class"))
    if per_class:
        parts.append(titled("classes", class_table(per_class, details.get("palette", ()))))
    max_depth_m = number(details.get("max_depth_m"))
    if (depths := counts(details.get("depths"))) is not None and max_depth_m is not None and max_depth_m > 0:
        chart = depth_chart(depths, max_depth_m)
        parts.append(titled("predicted against true depth, all valid pixels", chart))
    elif details.get("depths") is not None:
        notes.append(f"the depths of head {head}")
    tables = f"<div class=two>{''.join(parts)}</div>"
    confusions = ""
    names = [str(name) for name in details["classes"]] if isinstance(details.get("classes"), list) else []
    if (confusion := counts(details.get("confusion"), len(names))) is not None:
        chart = titled("confusion: rows are true, columns predicted, in percent", confusion_chart(confusion, names))
        confusions = f"<div class=two>{chart}{titled('most confused', confused_table(confusion, names))}</div>"
    elif details.get("confusion") is not None:
        notes.append(f"the confusion of head {head}")
    metric = str(details.get("ranked_by", ""))
    worst = picture_rows(folder, mappings(details.get("worst")), metric)
    fixed = picture_rows(folder, mappings(details.get("fixed")), metric)
    key = f"<p class=soft>{TASKS.get(str(details.get('task')), Task).error_key}</p>"
    worst = f"<h3>worst images by {escape(metric)}</h3>{key}{worst}" if worst else ""
    fixed = f"<h3>the same images at every evaluation</h3>{fixed}" if fixed else ""
    return section(f"{head}, after {row['iteration']} iterations", tables, confusions, worst, fixed)


def _environment(record: dict[str, Any], config: str, rows: list[Row]) -> str:
    sessions = mappings(record.get("sessions"))
    parts = []
    if sessions:
        session = {name: value for name, value in sessions[-1].items() if name != "packages"}
        command = session.get("command", "")
        session["command"] = " ".join(map(str, command)) if isinstance(command, list) else command
        packages = mapping(sessions[-1].get("packages"))
        parts = [facts_table(session), folded(f"{len(packages)} packages", facts_table(packages))]
        if len(sessions) > 1:
            times = ((f"from iteration {s.get('start')}", s.get("time")) for s in sessions)
            parts.append(folded(f"{len(sessions)} sessions", facts_table(dict(times))))
    seconds = {f"until iteration {r['iteration']}": duration(float(r.get("seconds", 0))) for r in _of(rows, "eval")}
    if seconds:
        parts.append(folded("time used", facts_table(seconds)))
    body = section("Environment", *parts)
    return body + section("Config", folded("config.yaml", f"<pre>{escape(config)}</pre>") if config else "")


def _title(out: Path, config: dict[str, Any]) -> str:
    name = mapping(config.get("card")).get("name")
    return name if isinstance(name, str) and name else out.resolve().name


def _first_metric(row: Row) -> str | None:
    """The first metric of a row that is a number; tasks list an important one first."""
    return next((n for n, v in row.items() if isinstance(v, float) and n not in _NO_CURVE), None)


def _of(rows: list[Row], event: str) -> list[Row]:
    return [row for row in rows if row["event"] == event and (event != "eval" or isinstance(row.get("head"), str))]


def _evaluated(rows: list[Row]) -> list[str]:
    """The heads that have been evaluated, in the order of the log."""
    return list(dict.fromkeys(row["head"] for row in _of(rows, "eval")))


def _evals_of(rows: list[Row], head: str) -> list[Row]:
    """The evaluations of a head, in the order of the log; at least one for a head of ``_evaluated``."""
    return [row for row in _of(rows, "eval") if row["head"] == head]


def _points(rows: list[Row], name: str) -> list[tuple[float, float]]:
    points = ((row["iteration"], number(row.get(name))) for row in rows)
    return [(x, y) for x, y in points if y is not None]
