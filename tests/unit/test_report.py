"""The report of a run folder and what it is made of: pictures, what an evaluation saw, charts, the page."""

import base64
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from densevit.data.sample import Sample
from densevit.errors import DataError
from densevit.evaluation.evaluate import evaluate
from densevit.evaluation.inspection import EvaluationRecorder, fixed_indices
from densevit.evaluation.panels import GAP, SIDE, compare
from densevit.evaluation.selection import open_dataset
from densevit.evaluation.snapshots import KEPT, load_evaluation, save_evaluation
from densevit.inference_config import InferenceConfig
from densevit.pages.charts import confusion_chart, depth_chart, line_chart
from densevit.pages.html import number
from densevit.tasks import Task, parse_task
from densevit.tasks.metrics import DepthMetrics
from densevit.tasks.segmentation import WRONG
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import complete
from densevit.training.run.report import write_report
from densevit.training.train import train
from tests.e2e.scenes import recipe
from tests.factories import tiny_model

LABELS = parse_task({"kind": "segmentation", "classes": ["a", "b"], "palette": [[200, 0, 0], [0, 200, 0]]})
DEPTH = parse_task({"kind": "depth", "max_depth_m": 10.0})
DISPARITY = parse_task({"kind": "depth", "quantity": "disparity"})
VALUES = parse_task({"kind": "regression", "channels": ["m"]})


def photo(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def panels(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    width = (picture.shape[1] - 3 * GAP) // 4
    return [picture[:, k * (width + GAP) : k * (width + GAP) + width] for k in range(4)]


# Pictures


@pytest.mark.parametrize(
    ("size", "panel"), [((40, 60), (40, 60)), ((3000, 1500), (SIDE, SIDE // 2)), ((1, 4000), (1, SIDE))]
)
def test_picture__is_four_small_panels(size: tuple[int, int], panel: tuple[int, int]) -> None:
    target = torch.zeros(size, dtype=torch.long)
    picture = compare(LABELS, photo(*size), target, target)
    assert (picture.shape, picture.dtype) == ((panel[0], 4 * panel[1] + 3 * GAP, 3), np.uint8)


@pytest.mark.parametrize(("channels", "kind"), [(1, "uint8"), (2, "uint8"), (5, "uint16"), (4, "float32")])
def test_picture__of_other_cameras_shows_their_first_bands(channels: int, kind: str) -> None:
    bands = np.random.default_rng(0).random((8, 12, channels)) * {"uint8": 255, "uint16": 65535, "float32": 1}[kind]
    target = torch.zeros(8, 12, dtype=torch.long)
    first = panels(compare(LABELS, Sample("camera", bands.astype(kind)).picture, target, target))[0]
    assert first.max() > 200
    assert (first[..., 0] == first[..., 1]).all() == (channels < 3)


def test_label_picture__shows_what_is_wrong() -> None:
    target = torch.zeros(4, 6, dtype=torch.long)
    target[:, 5] = 255
    prediction = torch.zeros(4, 6, dtype=torch.long)
    prediction[0] = 1
    _, true, found, error = panels(compare(LABELS, photo(4, 6), target, prediction))
    assert [tuple(true[1, 0]), tuple(true[1, 5]), tuple(found[0, 0])] == [(200, 0, 0), (0, 0, 0), (0, 200, 0)]
    wrong = (error == WRONG).all(axis=2)
    assert (wrong[0, :5].all(), wrong[1:].any(), wrong[:, 5].any()) == (True, False, False)


@pytest.mark.parametrize("task", [DEPTH, DISPARITY], ids=["depth", "disparity"])
def test_depth_picture__of_a_right_prediction_is_the_target_without_an_error(task: Task) -> None:
    target = torch.linspace(1, 8, 24).view(4, 6)
    prediction = target if task is DEPTH else 3 / target + 1  # of any scale and shift
    _, true, found, error = panels(compare(task, photo(4, 6), target, prediction))
    assert np.abs(true.astype(int) - found.astype(int)).max() <= 2
    assert error.max() <= 1


def test_depth_picture__without_a_valid_pixel_is_black() -> None:
    empty = torch.zeros(4, 6)
    assert panels(compare(DEPTH, photo(4, 6), empty, empty + 1))[1].max() == 0


def test_value_picture__has_one_scale_for_target_and_prediction() -> None:
    target = torch.tensor([[[0.0, 1.0, float("nan")]]])
    prediction = torch.tensor([[[1.0, 2.0, 2.0]]])
    _, true, found, error = panels(compare(VALUES, photo(1, 3), target, prediction))
    assert (true[0, 1] == found[0, 0]).all()
    assert error[0, 2].max() == 0


def test_value_picture__without_any_value_is_drawn() -> None:
    empty = torch.full((1, 4, 6), float("nan"))
    assert compare(VALUES, photo(4, 6), empty, empty).shape[0] == 4


# What an evaluation saw


def look(watch: EvaluationRecorder, values: dict[int, float], total: int) -> EvaluationRecorder:
    """Show depth images by index whose relative error is given; NaN for one without a valid pixel."""
    for index, value in values.items():
        target = torch.full((4, 6), 2.0 if value == value else 0.0)
        prediction = torch.full((4, 6), 2.0 * (1 + (value if value == value else 0.0)))
        metrics = DEPTH.new_metrics()
        metrics.update(prediction, target)
        watch.see("depth", (index, total, f"image {index}"), photo(4, 6), target, prediction, metrics)
    return watch


def begun(pictures: int) -> EvaluationRecorder:
    watch = EvaluationRecorder(pictures)
    watch.begin({"depth": DEPTH})
    return watch


ERRORS = dict(enumerate([0.1, 0.9, 0.3, 0.3, float("nan"), 0.8, 0.05, 0.3]))


def seen(watch: EvaluationRecorder) -> tuple[list[int], list[int]]:
    kept = watch.heads["depth"]
    return [one.index for one in kept.fixed], [one.index for one in kept.worst]


def test_watch__keeps_the_worst_images_and_fixed_ones() -> None:
    assert seen(look(begun(4), ERRORS, 8)) == ([1, 3, 5, 7], [1, 5, 2, 3])


def test_watch__keeps_the_same_whatever_the_order() -> None:
    backwards = look(begun(4), dict(reversed(ERRORS.items())), 8)
    assert seen(backwards)[1] == [1, 5, 2, 3]


@pytest.mark.parametrize("processes", [2, 3])
def test_watches__of_several_processes_merge_to_that_of_one(processes: int) -> None:
    parts = [look(begun(3), {i: v for i, v in ERRORS.items() if i % processes == rank}, 8) for rank in range(processes)]
    for other in parts[1:]:
        parts[0].merge(other)
    whole = look(begun(3), ERRORS, 8)
    assert seen(parts[0]) == seen(whole)
    counts, wanted = parts[0].heads["depth"].counts, whole.heads["depth"].counts
    assert counts is not None
    assert wanted is not None
    assert torch.equal(counts, wanted)


def test_watch__grows_with_no_data_set() -> None:
    watch = look(begun(2), {i: (i * 37 % 101) / 100 for i in range(101)}, 101)
    assert [len(part) for part in seen(watch)] == [2, 2]


@pytest.mark.parametrize(
    ("total", "wanted", "indices"), [(3, 4, {0, 1, 2}), (8, 4, {1, 3, 5, 7}), (1000, 2, {250, 750})]
)
def test_fixed_images__are_spread_over_the_data_set(total: int, wanted: int, indices: set[int]) -> None:
    assert fixed_indices(total, wanted) == indices


def test_evaluate__gives_the_same_figures_when_watched(dataset: Path) -> None:
    facts = {"classes": ["wall", "red", "green", "blue"]}
    task = parse_task({"kind": "segmentation", **facts})
    model = tiny_model("segmenter_linear")
    data = open_dataset(_config(dataset, "setr").sources[0].val, ("main",), {"main": task})  # type: ignore[arg-type]
    five = parse_task({"kind": "segmentation", "classes": ["wall", "red", "green", "blue", "none"]})
    samples = _Five(data)
    watch = EvaluationRecorder(2)
    plain = evaluate(model, {"main": five}, InferenceConfig(short_side=48), samples)
    watched = evaluate(model, {"main": five}, InferenceConfig(short_side=48), samples, recorder=watch)
    assert watched == plain or json.dumps(watched) == json.dumps(plain)
    counts = watch.heads["main"].counts
    assert counts is not None
    assert int(counts.sum()) == plain["main"]["num_pixels"]
    assert [one.value for one in watch.heads["main"].worst] == sorted(one.value for one in watch.heads["main"].worst)


class _Five:
    """A data set without class names, for a model of five."""

    classes = None

    def __init__(self, samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def test_metres__are_what_the_metrics_compare() -> None:
    draw = torch.Generator().manual_seed(0)
    target = torch.rand(6, 8, generator=draw) * 8 + 1
    target[0] = 0
    disparity = 2 / target.clamp(min=1) + 0.1 * torch.rand(6, 8, generator=draw)
    metrics = DepthMetrics(max_depth_m=10.0, align="scale_shift")
    metrics.update(disparity, target)
    metres, valid = metrics.in_metres(disparity, target)
    true = target.double()[valid]
    assert int(valid.sum()) == 40
    assert ((metres[valid] - true).abs() / true).mean().item() == pytest.approx(metrics.compute()["AbsRel"], rel=1e-12)


# The folder of evaluations


def test_evaluations__are_thinned_but_the_first_and_last_stay(tmp_path: Path) -> None:
    for iteration in range(10, 10 * (KEPT + 30), 10):
        save_evaluation(tmp_path, iteration, begun(1))
    kept = sorted(int(path.name) for path in (tmp_path / "evaluations").iterdir())
    assert (len(kept), kept[0], kept[-1]) == (KEPT, 10, 10 * (KEPT + 29))
    assert max(np.diff(kept)) <= 10 * 12


def test_evaluation__that_is_not_whole_is_passed_over(tmp_path: Path) -> None:
    save_evaluation(tmp_path, 10, begun(1))
    (tmp_path / "evaluations" / "00000020").mkdir()
    (tmp_path / "evaluations" / "00000030").mkdir()
    (tmp_path / "evaluations" / "00000030" / "details.json").write_text("{")
    found = load_evaluation(tmp_path, until=40)
    assert found is not None
    assert found[0].name == "00000010"


# Charts


def test_curve__of_many_points_is_drawn_with_few() -> None:
    chart = line_chart({"loss": [(i, 1 / (i + 1)) for i in range(100_000)]})
    assert len(chart) < 20_000
    assert "<polygon" in chart  # the range of what was averaged


@pytest.mark.parametrize(
    "points",
    [[(1, 0.5)], [(1, 0.0), (2, 0.0)], [(0, -3.0), (5, 1e-9)], [(1, float("nan")), (2, 1.0)], [(1, 1e-12), (2, 1e12)]],
)
def test_curve__of_any_values_has_finite_places(points: list[tuple[float, float]]) -> None:
    for from_zero in (False, True):
        chart = line_chart({"a": points}, from_zero=from_zero)
        assert "<svg" in chart
        assert not re.search(r"\b(nan|inf)\b", chart)


def test_curve__without_points_says_so() -> None:
    assert "Nothing to draw" in line_chart({"a": [], "b": [(1, float("inf"))]})


def test_confusion__has_shares_of_rows_and_empty_classes() -> None:
    chart = confusion_chart([[90, 10, 0], [0, 50, 0], [0, 0, 0]], ["a", "b<", "c"])
    assert "a taken for b&lt;: 10.0%, 10 px" in chart
    assert ">90</text>" in chart


def test_confusion__of_many_classes_stays_small() -> None:
    counts = np.ones((150, 150), int) + 1000 * np.eye(150, dtype=int)
    chart = confusion_chart(counts.tolist(), [f"class {i}" for i in range(150)])
    assert chart.count("<rect") < 200


def test_depth_chart__shows_the_range_that_occurs() -> None:
    counts = np.zeros((64, 64), int)
    counts[3, 4] = 7
    chart = depth_chart(counts.tolist(), 64.0)
    assert chart.count("<rect") == 1
    assert "No pixel" in depth_chart(np.zeros((64, 64), int).tolist(), 10.0)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (160_000.0, "160000"), (6e-5, "6e-5"), (0.123456, "0.1235"), (1.5e9, "1.5e9")]
)
def test_number__is_short(value: float, text: str) -> None:
    assert number(value) == text


# The page


def _config(dataset: Path, *heads: str, **facts: Any) -> TrainConfig:
    return TrainConfig.parse(complete(recipe(dataset, *heads, **{"iterations": 4, "eval_every": 2, **facts})))


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "<i>mine"
    train(_config(dataset, "setr", "depth", pictures=2), out)
    return out


def page(out: Path) -> str:
    return write_report(out).read_text(encoding="utf-8")


def test_page__needs_nothing_else(finished: Path) -> None:
    text = page(finished)
    assert "<script" not in text
    sources = re.findall(r'(?:src|href|srcset)="?([^" >]+)', text)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search(r"url\(|@import", text)


def test_page__has_every_part(finished: Path) -> None:
    text = page(finished)
    for heading in ("Curves", "setr, after 4 iterations", "depth, after 4 iterations", "Environment", "Config"):
        assert f"<h2>{heading}</h2>" in text
    for part in (
        "learning rate",
        "most confused",
        "worst images by mIoU",
        "worst images by AbsRel",
        "predicted against true depth",
    ):
        assert f"<h3>{part}" in text, part
    assert text.count("<img") == 2 * (2 + 2)
    assert "eval_every: 2" in text
    assert torch.__version__ in text


def test_page__escapes_names(finished: Path) -> None:
    text = page(finished)
    assert "<i>mine" not in text
    assert "&lt;i&gt;mine" in text


def test_page__of_hostile_files_is_still_a_page(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(_config(dataset, "setr", iterations=2, pictures=1), out)
    (out / "config.yaml").write_text("card: {name: '<script>alert(1)</script>'}")
    (out / "environment.json").write_text('{"sessions": [{"command": ["<img src=x>"]}]}')
    details = out / "evaluations" / "00000002" / "details.json"
    data = json.loads(details.read_text())
    data["heads"]["setr"]["fixed"][0] |= {"name": '"<svg onload=x>'}
    data["heads"]["setr"]["worst"][0] |= {"file": "../../../config.yaml"}
    details.write_text(json.dumps(data))
    text = page(out)
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "<svg onload" not in text
    assert 'alt="&quot;&lt;svg onload=x&gt;"' in text
    assert text.count("<img") == 1


@pytest.mark.parametrize("gone", ["config.yaml", "environment.json", "evaluations"])
def test_page__is_written_without_what_is_gone(dataset: Path, tmp_path: Path, finished: Path, gone: str) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for name in {"config.yaml", "environment.json", "log.jsonl"} - {gone}:
        (out / name).write_bytes((finished / name).read_bytes())
    assert "<h2>Curves</h2>" in page(out)


@pytest.mark.parametrize("damage", ["{", "[1, 2]", "null", "\x00\xff"])
def test_page__is_written_from_damaged_files(tmp_path: Path, finished: Path, damage: str) -> None:
    (tmp_path / "log.jsonl").write_bytes((finished / "log.jsonl").read_bytes() + b'{"event": "step", "iter')
    for name in ("config.yaml", "environment.json"):
        (tmp_path / name).write_text(damage, encoding="latin-1")
    assert "<h2>Curves</h2>" in page(tmp_path)


def test_page__of_a_run_before_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"event": "start", "iteration": 0, "seconds": 0.1}\n')
    assert "not finished" in page(tmp_path)


def test_folder_without_a_run__is_refused(cli: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no log\.jsonl with lines of a run"):
        write_report(tmp_path)
    result = cli("report", tmp_path)
    assert result.code == 2
    assert "name a run folder" in result.err
    assert not (tmp_path / "report.html").exists()


def test_command__writes_the_page_again(cli: Any, finished: Path) -> None:
    (finished / "report.html").unlink()
    result = cli("report", finished)
    assert (result.code, result.out.strip()) == (0, str(finished / "report.html"))
    assert (finished / "report.html").exists()


# Damaged run folders


@pytest.fixture(scope="module")
def sound_run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("damaged") / "sound"
    train(TrainConfig.parse(complete(recipe(dataset, "coarse", "depth", iterations=2, eval_every=1))), out)
    return out


@pytest.fixture
def run(sound_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound_run, tmp_path / "run", ignore=shutil.ignore_patterns("*.safetensors", "*.pt")))


def last_details(run: Path) -> Path:
    return sorted(run.glob("evaluations/*/details.json"))[-1]


def report_of(run: Path) -> str:
    return write_report(run).read_text()


LAUGHS = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
LEFT_OUT = "left out, since it is damaged"


def test_report_of_a_sound_run__leaves_nothing_out(run: Path) -> None:
    assert LEFT_OUT not in report_of(run)


@pytest.mark.parametrize(
    ("name", "text", "note"),
    [
        ("config.yaml", "seed: !!timestamp x", "config.yaml ("),
        ("config.yaml", "seed: 2026-02-30", "config.yaml (ValueError"),
        ("config.yaml", "[" * 5000, "config.yaml ("),
        ("config.yaml", LAUGHS, "config.yaml (ValueError: it"),
        ("environment.json", "[" * 100_000, "environment.json (ValueError: it is nested too deep"),
        ("environment.json", "5", "environment.json (ValueError: it holds int"),
        ("details.json", "[" * 100_000, "details.json"),
        ("details.json", '{"heads": 5}', "details.json"),
        ("log.jsonl", "[" * 100_000, "log.jsonl (1 lines that cannot be read"),
        ("log.jsonl", '{"event": "eval", "iteration": 1e400}', "log.jsonl (1 lines that cannot be read"),
        ("log.jsonl", '{"event": "x", "iteration": 1, "seconds": "abc"}', "1 lines without a valid time"),
        ("log.jsonl", '{"event": "x", "iteration": 1, "seconds": Infinity}', "1 lines without a valid time"),
    ],
)  # fmt: skip
def test_report__is_written_with_what_is_good_and_names_the_rest(name: str, text: str, note: str, run: Path) -> None:
    path = last_details(run) if name == "details.json" else run / name
    path.write_text(f"{path.read_text()}{text}\n" if name == "log.jsonl" else text)

    page = report_of(run)

    assert LEFT_OUT in page
    assert note in page
    assert all(part in page for part in ("<h2>Curves", "<h2>coarse, after 2", "<h2>depth, after 2"))


ODD: tuple[Any, ...] = (
    None, True, -1, 5, 1e308, 5e-324, -1e308, float("inf"), float("nan"), int("9" * 400), "abc", "", "\0", "\ud800",
    "<script>alert(1)</script>", "'\"><script>", "../../secret.jpg", [], [[]], {}, {"<script>": ["<script>"]},
    [["red", "x", "y"]], [{"file": 5}], [1, [2, [3, [4, [5, [6, [7, [8, [9, [10]]]]]]]]]],
)  # fmt: skip


def mutated(data: Any, draw: random.Random) -> Any:
    """A copy of plain data with one value, at any depth, replaced by an odd one."""
    if isinstance(data, dict | list) and data and draw.random() < 0.85:
        key = draw.choice(list(data)) if isinstance(data, dict) else draw.randrange(len(data))
        if isinstance(data, dict) and draw.random() < 0.05:
            return {(f"<script>{k}" if k == key else k): value for k, value in data.items()}
        copy: Any = dict(data) if isinstance(data, dict) else list(data)
        copy[key] = mutated(data[key], draw)
        return copy
    return draw.choice(ODD)


@pytest.mark.parametrize("seed", range(4))
def test_report__of_any_damage_is_written_and_escaped(seed: int, run: Path) -> None:
    draw = random.Random(seed)
    files = {run / "environment.json", last_details(run)}
    sound = {path: json.loads(path.read_text()) for path in files}
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for _ in range(30):
        for path, data in sound.items():
            path.write_text(json.dumps(mutated(data, draw)))
        changed = [mutated(row, draw) if draw.random() < 0.5 else row for row in rows]
        (run / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [rows[0], *changed]))

        page = report_of(run)

        assert "<script" not in page
        assert page.endswith("</html>\n")


def test_report__does_not_wait_for_a_pipe(run: Path) -> None:
    for path in (run / "config.yaml", next(run.glob("evaluations/*2/*.jpg"))):
        path.unlink()
        os.mkfifo(path)
    assert "config.yaml (it is no file" in report_of(run)


@pytest.mark.parametrize("kind", ["link", "text"])
def test_report__embeds_nothing_but_pictures(kind: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    picture = next(last_details(run).parent.glob("*.jpg"))
    count = report_of(run).count("<img")
    picture.unlink()
    picture.symlink_to(tmp_path / "key") if kind == "link" else picture.write_text("secret")

    page = report_of(run)

    assert base64.b64encode(b"secret").decode() not in page
    assert page.count("<img") == count - 1
