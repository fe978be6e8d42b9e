"""The papers' recipes: each is a whole config, with the facts of its source."""

from pathlib import Path

import pytest

from densevit.data.description import describe
from densevit.errors import ConfigError
from densevit.presets import preset
from densevit.training.config import TrainConfig
from densevit.training.published_recipes import RECIPES, recipe
from densevit.training.resolve_config import resolve_config


def laid_out(name: str, dataset: Path, *overrides: str, preset_name: str | None = None) -> TrainConfig:
    return resolve_config(
        None, list(overrides), data=describe(dataset).config, recipe_name=name, preset_name=preset_name
    )


@pytest.mark.parametrize("name", RECIPES)
def test_recipe__is_a_whole_config_for_a_data_folder(name: str, dataset: Path) -> None:
    run, row = laid_out(name, dataset), recipe(name)
    assert run.iterations == row.config["iterations"]
    assert run.sources[0].batch_size == row.batch_size
    assert run.augment.crop == row.config["augment"]["crop"]
    assert run.encoder_weights is None
    (head,) = run.tasks
    assert run.model.heads[head].decoder.kind == preset(row.preset).model["heads"][head]["decoder"]["kind"]


@pytest.mark.parametrize(
    ("name", "lr", "crop", "batch", "iterations"),
    [
        ("setr-naive-ade20k", 0.01, 512, 16, 160_000),
        ("setr-pup-ade20k", 0.001, 512, 16, 160_000),
        ("setr-mla-ade20k", 0.001, 512, 16, 160_000),
        ("setr-naive-cityscapes", 0.01, 768, 8, 80_000),
        ("setr-pup-cityscapes", 0.01, 768, 8, 80_000),
        ("setr-mla-cityscapes", 0.002, 768, 8, 80_000),
        ("setr-naive-pascal-context", 0.01, 480, 16, 80_000),
        ("setr-pup-pascal-context", 0.001, 480, 16, 80_000),
        ("setr-mla-pascal-context", 0.001, 480, 16, 80_000),
        ("segmenter-ade20k", 1e-3, 512, 8, 160_000),
        ("segmenter-pascal-context", 1e-3, 480, 16, 80_000),
        ("segmenter-cityscapes", 1e-2, 768, 8, 80_000),
        ("segmenter-mmseg-ade20k", 1e-3, 512, 8, 160_000),
        ("dpt-mmseg-ade20k", 6e-5, 512, 16, 160_000),
    ],
)
def test_recipe__has_the_published_rate_crop_batch_and_length(
    name: str, lr: float, crop: int, batch: int, iterations: int, dataset: Path
) -> None:
    run = laid_out(name, dataset)
    found = (run.optim.lr, run.augment.crop, run.sources[0].batch_size, run.iterations)
    assert found == (lr, (crop, crop), batch, iterations)


def test_families__differ_as_their_code_does(dataset: Path) -> None:
    setr, segmenter, dpt = (laid_out(f"{n}-ade20k", dataset) for n in ("setr-mla", "segmenter", "dpt-mmseg"))
    assert (setr.optim.kind, setr.optim.nesterov, setr.optim.weight_decay) == ("sgd", False, 0)
    assert (segmenter.optim.kind, segmenter.optim.nesterov, segmenter.optim.weight_decay) == ("sgd", True, 0)
    assert (dpt.optim.kind, dpt.optim.weight_decay, dpt.schedule.warmup) == ("adamw", 0.01, 1500)
    assert [run.optim.head_lr_mult for run in (setr, segmenter, dpt)] == [10, 1, 1]
    assert setr.optim.neck_lr_mult == 1
    assert [run.augment.photometric for run in (setr, segmenter, dpt)] == [True, True, True]
    assert [run.augment.base for run in (setr, segmenter, dpt)] == [(2048, 512)] * 3
    assert [run.schedule.min_lr for run in (setr, segmenter, dpt)] == [1e-4, 1e-5, 0]
    assert [run.schedule.power for run in (setr, segmenter, dpt)] == [0.9, 0.9, 1.0]
    assert [getattr(run.tasks["labels"], "denominator", "") for run in (setr, segmenter, dpt)] == [
        "all",
        "valid",
        "all",
    ]
    assert [run.model.encoder.drop_path for run in (setr, segmenter, dpt)] == [0, 0.1, 0]


def test_recipe__takes_another_model_and_settings(dataset: Path) -> None:
    run = laid_out("segmenter-ade20k", dataset, "optim.lr=0.5", "iterations=3", preset_name="segmenter-ti-mask")
    assert (run.model.encoder.embed_dim, run.optim.lr, run.optim.nesterov, run.iterations) == (192, 0.5, True, 3)


def test_recipe__says_what_the_encoder_started_from(dataset: Path, caplog: pytest.LogCaptureFixture) -> None:
    laid_out("segmenter-ade20k", dataset)
    assert caplog.messages == [
        "the encoder starts from random weights, but recipe segmenter-ade20k from "
        "hf://timm/vit_small_patch16_384.augreg_in21k_ft_in1k; pass "
        "--set encoder_weights=hf://timm/vit_small_patch16_384.augreg_in21k_ft_in1k"
    ]
    caplog.clear()
    laid_out("segmenter-ade20k", dataset, "encoder_weights=vit.safetensors")
    assert caplog.messages == []


def test_recipe__that_is_unknown_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        recipe("setr-pupp-ade20k")
    assert str(caught.value) == "there is no recipe 'setr-pupp-ade20k'; did you mean 'setr-pup-ade20k'?"


def test_page__has_a_row_for_every_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "recipes.md").read_text(encoding="utf-8")
    rows = [[cell.strip(" `") for cell in line.split("|")[1:6]] for line in page.splitlines() if line.startswith("| `")]
    assert rows == [
        [name, row.preset, str(row.batch_size), str(row.config["augment"]["crop"][0]), str(row.config["iterations"])]
        for name, row in RECIPES.items()
    ]
