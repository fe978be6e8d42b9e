"""``densevit train``: runs that learn, resume to the bit, refuse bad configs and never end without a model."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from densevit.checkpoints.native import load_bundle
from tests.e2e.commands import command
from tests.e2e.scenes import CLASSES, COARSE, HEADS, recipe, write_dataset


@pytest.fixture
def write(tmp_path, dataset):
    """Write the config of a run and give its path; facts go over it."""

    def run(*heads: str, iterations: int = 3, name: str = "run.yaml", **facts: Any) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(_plain(recipe(dataset, *heads, iterations=iterations, **facts))))
        return path

    return run


@pytest.fixture
def train(cli):
    """``densevit train``, which must succeed."""

    def run(*arguments: object) -> None:
        result = cli("train", *arguments)
        assert result.code == 0, result.err

    return run


@pytest.fixture
def refusal(cli):
    """What ``densevit train`` says where it refuses."""

    def run(*arguments: object) -> str:
        result = cli("train", *arguments)
        assert (result.code, "Traceback" in result.err) == (2, False), result.err
        return result.err.partition("densevit: ")[2].rstrip("\n")

    return run


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(data))


def weights(run: Path) -> dict[str, Tensor]:
    return load_bundle(run / "model.safetensors").model.state_dict()


def rows(run: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Learning


@pytest.mark.parametrize("head", ["setr", "segmenter", "dpt", "coarse", "depth"])
def test_train__loss_falls(trained, head):
    losses = [row[f"loss/{head}"] for row in rows(trained.parent, "step")]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


@pytest.mark.parametrize(("head", "chance"), [("setr", 0.25), ("segmenter", 0.25), ("dpt", 0.25), ("coarse", 0.5)])
def test_train__segmentation_is_far_above_chance(trained, head, chance):
    figures = {row["head"]: row for row in rows(trained.parent, "eval")}
    assert figures[head]["mAcc"] > 1.7 * chance


def test_train__depth_beats_the_best_constant(trained, dataset):
    targets = [np.array(Image.open(path)) / 1000 for path in sorted((dataset / "depth" / "val").iterdir())]
    constants = np.linspace(1, 6, 51)
    errors = [[np.abs(c - t[t > 0]).__truediv__(t[t > 0]).mean() for t in targets] for c in constants]
    figures = {row["head"]: row for row in rows(trained.parent, "eval")}
    assert figures["depth"]["AbsRel"] < 0.8 * min(np.mean(error) for error in errors)


def test_train__class_names_come_from_the_data(trained):
    tasks = load_bundle(trained).tasks
    assert (tasks["setr"].classes, tasks["coarse"].classes) == (CLASSES, COARSE)


def test_train__card_holds_the_figures(trained):
    bundle = load_bundle(trained)
    measured = {row["head"]: row for row in rows(trained.parent, "eval")}
    assert bundle.card.metrics["dpt"]["mIoU"] == measured["dpt"]["mIoU"]
    assert bundle.card.licence == "Apache-2.0"


# Config file, --set, presets


def test_train__set_lies_over_the_config_file(train, write, tmp_path):
    train("--config", write("coarse"), "--set", "optim.lr=1e-4", "--set", "seed=7", "--out", tmp_path / "a")
    config = yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())
    assert (config["optim"]["lr"], config["optim"]["head_lr_mult"], config["seed"]) == (1e-4, 4.0, 7)


def test_train__the_merged_config_gives_the_same_weights(train, write, tmp_path):
    train("--config", write("coarse", "setr"), "--set", "seed=7", "--out", tmp_path / "a")
    train("--config", tmp_path / "a" / "config.yaml", "--out", tmp_path / "b")
    assert (tmp_path / "a" / "config.yaml").read_text() == (tmp_path / "b" / "config.yaml").read_text()
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_train__another_seed_gives_other_weights(train, write, tmp_path):
    for seed in (0, 1):
        train("--config", write("coarse"), "--set", f"seed={seed}", "--out", tmp_path / str(seed))
    assert not same(weights(tmp_path / "0"), weights(tmp_path / "1"))


TINY = ("embed_dim=32", "num_heads=2", "mlp_ratio=2", "positions.grid=[4,4]")
SHRUNK = {
    "setr-naive-b": ("encoder.taps=[0,1,2,3]", "heads.labels.decoder.channels=8"),
    "setr-pup-b": ("encoder.taps=[0,1,2,3]", "heads.labels.decoder.channels=8"),
    "setr-mla-b": (
        "encoder.taps=[0,1,2,3]",
        "heads.labels.decoder.channels=8",
        "heads.labels.decoder.head_channels=8",
    ),
    "segmenter-ti-mask": ("encoder.taps=[1]",),
    "segmenter-b8-linear": ("encoder.taps=[1]",),
    **dict.fromkeys(
        ("dpt-base-ade20k", "dpt-base-depth", "depth-anything-s"),
        (
            "encoder.taps=[0,1,2,3]",
            "heads.{}.decoder.channels=[8,8,8,8]",
            "heads.{}.decoder.fusion_channels=8",
        ),
    ),
}


@pytest.mark.parametrize("preset", SHRUNK)
def test_train__presets_train_on_a_data_folder(train, dataset, tmp_path, preset):
    head = "depth" if "depth" in preset else "labels"
    model = [*(f"encoder.{fact}" for fact in TINY), *(fact.format(head) for fact in SHRUNK[preset])]
    rest = ("iterations=2", "optim.lr=1e-4", "fit.short_side=56", "log_every=1")
    facts = [f"--set={fact}" for fact in (*(f"model.{fact}" for fact in model), *rest)]
    train("--preset", preset, "--data", dataset, *facts, "--out", tmp_path / "run")
    bundle = load_bundle(tmp_path / "run" / "model.safetensors")
    assert bundle.model.config.heads[head].out_channels == (1 if head == "depth" else len(CLASSES))
    (figures,) = rows(tmp_path / "run", "eval")
    assert 0 <= figures["delta1" if head == "depth" else "aAcc"] <= 1


def test_train__two_sources_train_a_head_each(train, write, dataset, tmp_path):
    split = {"root": str(dataset), "split": "train"}
    sources = [{"train": split, "heads": ["coarse"], "batch_size": 1}, {"train": split, "heads": ["depth"]}]
    train("--config", write("coarse", "depth", sources=sources), "--out", tmp_path / "a")
    assert {"loss/coarse", "loss/depth"} <= rows(tmp_path / "a", "step")[0].keys()


def test_train__init_starts_from_another_model(train, write, trained, tmp_path):
    train("--config", write("coarse", iterations=1, init=str(trained)), "--set=optim.lr=1e-9", "--out", tmp_path / "a")
    first, own = weights(trained.parent), weights(tmp_path / "a")
    assert all(torch.allclose(own[name], first[name], atol=1e-6) for name in own)


def test_train__worker_processes_change_nothing(train, write, tmp_path):
    config = write("coarse", augment=STEADY["augment"])
    for workers in (0, 1):
        train("--config", config, "--set", f"workers={workers}", "--out", tmp_path / str(workers))
    assert same(weights(tmp_path / "0"), weights(tmp_path / "1"))


def test_train__bf16_gives_nearly_the_losses_of_float32(train, write, tmp_path):
    config = write(*HEADS, iterations=2)
    for precision in ("float32", "bf16"):
        train("--config", config, "--set", f"precision={precision}", "--out", tmp_path / precision)
    full, half = (rows(tmp_path / precision, "step") for precision in ("float32", "bf16"))
    losses = [name for name in full[0] if name.startswith("loss/")]
    assert [row[name] for row in half for name in losses] == pytest.approx(
        [row[name] for row in full for name in losses], rel=0.05
    )


def test_train__a_class_that_never_occurs_has_no_figure_and_does_no_harm(train, write, tmp_path):
    data = write_dataset(tmp_path / "data", train=2, val=1)
    (data / "classes.json").write_text(json.dumps({"classes": [*CLASSES, "ghost"]}))
    sources = [{split: {"root": str(data), "split": split} for split in ("train", "val")}]
    train("--config", write("setr", iterations=1, sources=sources), "--out", tmp_path / "a")
    (figures,) = rows(tmp_path / "a", "eval")
    assert 0 <= figures["mIoU"] <= 1
    assert load_bundle(tmp_path / "a" / "model.safetensors").tasks["setr"].out_channels == 5


# Resuming


STEADY: dict[str, Any] = {
    "checkpoint_every": 4,
    "eval_every": 6,
    "ema": 0.9,
    "schedule": {"kind": "cosine", "warmup": 3},
    "augment": {"crop": [48, 64], "scale": [0.8, 1.2], "colour": 0.3},
}


def test_train__a_killed_run_resumes_to_the_same_bits(train, write, tmp_path):
    # dpt and segmenter have dropout, so the random generators count too.
    config = write("segmenter", "dpt", iterations=40, **STEADY)
    train("--config", config, "--out", tmp_path / "whole")
    process = subprocess.Popen(
        command("train", "--config", config, "--out", tmp_path / "killed"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not list((tmp_path / "killed" / "states").glob("state-*.pt")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    train("--resume", "--out", tmp_path / "killed")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert [row["loss/dpt"] for row in rows(tmp_path / "whole", "step")] == [
        row["loss/dpt"] for row in rows(tmp_path / "killed", "step")
    ]


def test_train__a_run_resumes_with_more_iterations(train, write, tmp_path):
    train("--config", write("coarse", iterations=3), "--out", tmp_path / "a")
    train("--resume", "--set", "iterations=5", "--out", tmp_path / "a")
    assert [row["iteration"] for row in rows(tmp_path / "a", "step")] == [1, 2, 3, 4, 5]


def test_train__a_run_resumed_without_ema_saves_its_own_weights(train, write, tmp_path):
    rate = {"schedule": {"kind": "constant"}}
    train("--config", write("coarse", iterations=3, **rate), "--out", tmp_path / "whole")
    train("--config", write("coarse", iterations=2, **rate, ema=0.99), "--out", tmp_path / "a")
    train("--resume", "--set", "iterations=3", "--set", "ema=null", "--out", tmp_path / "a")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "a"))


def test_train__a_second_run_in_the_same_folder_is_refused(train, refusal, write, tmp_path):
    config = write("coarse", iterations=1)
    train("--config", config, "--out", tmp_path / "a")
    before = (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns
    assert refusal("--config", config, "--out", tmp_path / "a") == (
        f"{tmp_path / 'a'} already holds a run; pass --resume to continue it, or another --out"
    )
    assert (tmp_path / "a" / "model.safetensors").stat().st_mtime_ns == before


def test_train__a_state_of_another_model_is_refused(train, refusal, write, tmp_path):
    train("--config", write("setr", iterations=1), "--out", tmp_path / "a")
    config = (tmp_path / "a" / "config.yaml").read_text()
    message = refusal("--resume", "--set", "model.heads.setr.decoder.channels=24", "--out", tmp_path / "a")
    assert message == (
        f"the states in {tmp_path / 'a' / 'states'} are those of another model or optimiser; resume with the config of "
        "the run, or train into a new folder"
    )
    assert (tmp_path / "a" / "config.yaml").read_text() == config


def test_train__a_run_that_failed_before_its_first_step_can_be_started_again(train, refusal, write, tmp_path):
    data = write_dataset(tmp_path / "data")
    config = write("coarse", sources=[{"train": {"root": str(data), "split": "train"}}])
    (data / "masks" / "train" / "001.png").rename(tmp_path / "mask.png")
    assert "1 of 6 photos have no mask" in refusal("--config", config, "--out", tmp_path / "a")
    (tmp_path / "mask.png").rename(data / "masks" / "train" / "001.png")
    train("--config", config, "--out", tmp_path / "a")


# A frozen encoder and its cache


@pytest.fixture
def cached(write, tmp_path):
    """The config of a run on cached features."""
    facts = {"directory": str(tmp_path / "cache"), "views": 2, "crop": [5, 6], "flip": True}
    return write("segmenter", "depth", iterations=4, freeze="encoder", features=facts, augment=STEADY["augment"])


def test_train__a_frozen_encoder_stays_as_it_was(train, cached, tmp_path):
    train("--config", cached, "--out", tmp_path / "short")
    train("--config", cached, "--set", "iterations=6", "--out", tmp_path / "long")
    short, long = weights(tmp_path / "short"), weights(tmp_path / "long")
    moved = {name.partition(".")[0] for name in short if not torch.equal(short[name], long[name])}
    assert moved == {"heads"}


def test_train__cached_features_are_made_once(train, cached, tmp_path):
    train("--config", cached, "--out", tmp_path / "a")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    train("--config", cached, "--out", tmp_path / "b")
    assert len(files) == 2 * 6 + 3  # two views of six photos, three photos of val
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.npy")}
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_train__the_cache_changes_the_result_by_float16_rounding_alone(train, write, tmp_path):
    facts = {"freeze": "encoder", "augment": {"crop": [48, 64], "scale": [1, 1], "flip": 0, "colour": 0}}
    train("--config", write("coarse", "depth", **facts), "--out", tmp_path / "plain")
    features = {"directory": str(tmp_path / "cache")}
    train("--config", write("coarse", "depth", **facts, features=features), "--out", tmp_path / "cached")
    for plain, quick in zip(rows(tmp_path / "plain", "step"), rows(tmp_path / "cached", "step"), strict=True):
        assert quick["loss/depth"] == pytest.approx(plain["loss/depth"], rel=2e-3)


# Refusals


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("optim.lrr=1", "optim.lrr: unknown key; did you mean 'lr'?"),
        ("lr=1e-3", "lr: unknown key; did you mean 'optim.lr'?"),
        ("itertions=3", "itertions: unknown key; did you mean 'iterations'?"),
        ("optim.lr=fast", "optim.lr: Input should be a valid number, unable to parse string as a number (got 'fast')"),
        ("iterations=0", "iterations: Input should be greater than 0 (got 0)"),
        ("workers=-1", "workers: Input should be greater than or equal to 0 (got -1)"),
        (
            "freeze=decoder",
            "freeze: should be 'none', 'encoder' or the number of blocks to keep, 1 or more (got 'decoder')",
        ),
        ("augment.crop=[50,64]", "config: augment.crop (50, 64) must be multiples of patch size (8, 8)"),
        ("model.encoder.taps=[0,1,7]", "model.encoder: taps (0, 1, 7) must be increasing block indices in 0..2"),
        (
            "model.heads.coarse.decoder.kind=segmentor_mask",
            "model.heads.coarse.decoder: decoder kind 'segmentor_mask' is unknown; did you mean 'segmenter_mask'?",
        ),
        (
            "sources=[{heads: [depth], train: {root: DATA, split: train}}]",
            "config: heads ['coarse'] belong to no source; add them to a source or drop them",
        ),
        (
            "sources=[{heads: [coarse, lables, depth], train: {root: DATA, split: train}}]",
            "config: sources name heads ['lables'] but the model has ['coarse', 'depth']",
        ),
        (
            "features.directory=cache",
            "config: cached features need a frozen encoder; set freeze: encoder, or a number of blocks",
        ),
    ],
)
def test_train__a_bad_config_is_explained(refusal, write, dataset, tmp_path, setting, problem):
    config = write("coarse", "depth")
    message = refusal("--config", config, "--set", setting.replace("DATA", str(dataset)), "--out", tmp_path / "a")
    assert message == f"{config} is not a valid TrainConfig:\n  {problem}"
    assert not (tmp_path / "a").exists()


def test_train__without_any_config_says_what_to_give(refusal, tmp_path):
    assert refusal("--out", tmp_path / "a") == "there are no data to train on; give --data DIR"


def test_train__without_data_says_what_to_give(refusal, tmp_path):
    assert refusal("--preset", "segmenter-ti-mask", "--out", tmp_path / "a") == (
        "the config has no sources; give --data DIR, or sources: a list of {train: {root: DIR, split: train}}"
    )


def test_train__an_unknown_preset_is_answered_with_the_nearest(refusal, dataset, tmp_path):
    message = refusal("--preset", "segmenter-s-masks", "--data", dataset, "--out", tmp_path / "a")
    assert message == "there is no preset 'segmenter-s-masks'; did you mean 'segmenter-s-mask'?"


def test_train__a_missing_config_file(refusal, tmp_path):
    assert refusal("--config", tmp_path / "run.yaml", "--out", tmp_path / "a") == (
        f"cannot read config {tmp_path / 'run.yaml'}: No such file or directory; give the path of a YAML file"
    )


def test_train__a_file_in_the_place_of_out_is_refused(refusal, write, tmp_path):
    (tmp_path / "a").write_text("mine")
    message = refusal("--config", write("coarse"), "--out", tmp_path / "a")
    assert message.startswith(f"folder {tmp_path / 'a'} cannot be made (")


MISMATCH = (
    "head 'coarse' has classes sky, sea but the data set has wall, red, green, blue or background, thing; "
    "use the data set's names in its order, or add a view to classes.json"
)


def test_train__classes_that_the_data_lack_are_refused(refusal, write, tmp_path):
    tasks = {"coarse": {"kind": "segmentation", "classes": ["sky", "sea"]}}
    assert refusal("--config", write("coarse", tasks=tasks), "--out", tmp_path / "a") == MISMATCH


def test_train__val_data_are_checked_before_the_first_step(refusal, write, dataset, tmp_path):
    data = write_dataset(tmp_path / "data")
    (data / "classes.json").write_text(json.dumps({"classes": [*CLASSES[1:], "wall"]}))
    sources = [{"train": {"root": str(dataset), "split": "train"}, "val": {"root": str(data), "split": "val"}}]
    message = refusal("--config", write("coarse", sources=sources), "--out", tmp_path / "a")
    assert message.startswith(
        "head 'coarse' has classes background, thing but the data set has red, green, blue, wall;"
    )
    assert not (tmp_path / "a" / "log.jsonl").exists()


def test_train__data_without_depth_cannot_train_a_depth_head(refusal, write, dataset, tmp_path):
    folders = {"images": str(dataset / "images" / "train"), "masks": str(dataset / "masks" / "train")}
    message = refusal("--config", write("depth", sources=[{"train": folders}]), "--out", tmp_path / "a")
    assert message == "head 'depth' needs depth targets but the data set has none; add the folder, or drop the head"


def test_train__losses_that_are_not_finite_end_the_run(refusal, write, tmp_path):
    message = refusal("--config", write("coarse", iterations=9), "--set", "optim.lr=1e30", "--out", tmp_path / "a")
    assert message == (
        "losses or gradients were not finite in 5 steps in a row, the last of them step 6 (losses nan); lower optim.lr "
        f"or set optim.clip_norm; {tmp_path / 'a' / 'bad'} has the batches, and densevit train --replay FILE runs one "
        "again"
    )
