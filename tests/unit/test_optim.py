from typing import Any

import pytest
import torch

from densevit.model import DenseModel
from densevit.training.loss_weighting import LossWeights, WeightingConfig
from densevit.training.optim import OptimConfig, build_optimiser, clip
from tests.factories import PREFIXES, VARIANTS, random_images, tiny_model


def facts(optimiser: torch.optim.Optimizer, model: DenseModel) -> dict[str, tuple[float, float]]:
    """Name of every parameter -> learning rate and weight decay of its group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rows = [(names[id(p)], g["lr"], g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]]
    assert len({name for name, *_ in rows}) == len(rows), "a parameter stands in two groups"
    return {name: (lr, decay) for name, lr, decay in rows}


def test_groups__hold_every_parameter_once() -> None:
    model = tiny_model("dpt/project, depth")
    found = facts(build_optimiser(OptimConfig(), model), model)
    assert set(found) == {name for name, _ in model.named_parameters()}


def test_groups__give_heads_the_multiplier() -> None:
    model = tiny_model("segmenter_mask")
    found = facts(build_optimiser(OptimConfig(lr=1e-3, head_lr_mult=7.0), model), model)
    for name, (lr, _) in found.items():
        assert lr == pytest.approx(7e-3 if name.startswith("heads.") else 1e-3), name


def test_groups__know_their_multiplier_for_the_schedule() -> None:
    model = tiny_model("segmenter_linear")
    groups = build_optimiser(OptimConfig(lr=1e-3, head_lr_mult=7.0), model).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([1e-3 * group["lr_mult"] for group in groups])
    assert {group["lr_mult"] for group in groups} == {1.0, 7.0}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_decay__spares_norms_biases_tokens_and_positions(prefix: Any) -> None:
    model = tiny_model("segmenter_mask", prefix=prefix, layer_scale=1e-5, final_norm=True)
    found = facts(build_optimiser(OptimConfig(weight_decay=0.05), model), model)
    bare = ("bias", "gamma", "pos_embed", "cls_token", "dist_token", "reg_token", "class_tokens")
    for name, (_, decay) in found.items():
        spared = name.endswith(bare) or "norm" in name
        assert decay == (0.0 if spared else 0.05), name


@pytest.mark.parametrize("variant", sorted({name.split("/")[0] for name in VARIANTS} & {*VARIANTS} | {"dpt/hybrid"}))
def test_decay__takes_every_matrix_and_convolution(variant: str) -> None:
    model = tiny_model(variant)
    found = facts(build_optimiser(OptimConfig(weight_decay=0.05), model), model)
    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    weights = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, kinds)}
    assert weights
    assert {name for name in weights if found[name][1] != 0.05} == set()


def test_frozen_parameters__are_left_out() -> None:
    model = tiny_model("segmenter_linear")
    model.encoder.requires_grad_(False)
    found = facts(build_optimiser(OptimConfig(), model), model)
    assert set(found) == {name for name, _ in model.named_parameters() if name.startswith("heads.")}


def test_kinds__take_their_own_options() -> None:
    model = tiny_model("segmenter_linear")

    sgd = build_optimiser(OptimConfig(kind="sgd", momentum=0.8, nesterov=True), model)
    adamw = build_optimiser(OptimConfig(betas=(0.8, 0.95)), model)

    assert isinstance(sgd, torch.optim.SGD)
    assert {(g["momentum"], g["nesterov"]) for g in sgd.param_groups} == {(0.8, True)}
    assert isinstance(adamw, torch.optim.AdamW)
    assert {g["betas"] for g in adamw.param_groups} == {(0.8, 0.95)}


def test_sgd__moves_each_parameter_by_its_groups_rate_and_decay() -> None:
    model = tiny_model("segmenter_linear")
    optimiser = build_optimiser(
        OptimConfig(kind="sgd", lr=0.1, head_lr_mult=2.0, weight_decay=0.5, momentum=0.0), model
    )
    names = ("encoder.cls_token", "encoder.blocks.0.mlp.fc1.weight", "heads.main.head.weight")
    before = {name: model.get_parameter(name).detach().clone() for name in names}

    model(random_images((2, 2)))["main"].logits.square().mean().backward()
    optimiser.step()

    for name, lr, decay in zip(names, (0.1, 0.1, 0.2), (0.0, 0.5, 0.5), strict=True):
        parameter = model.get_parameter(name)
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.data, before[name] - lr * (parameter.grad + decay * before[name]))


def test_layer_decay__falls_from_the_last_block_to_the_patches() -> None:
    model = tiny_model("segmenter_linear", final_norm=True)
    found = facts(build_optimiser(OptimConfig(lr=1.0, head_lr_mult=1.0, layer_decay=0.5), model), model)
    for name, (lr, _) in found.items():
        if name.startswith("encoder.blocks."):
            assert lr == 0.5 ** (4 - int(name.split(".")[2])), name
        elif name.startswith(("heads.", "encoder.norm.")):
            assert lr == 1.0, name
        else:
            assert lr == 0.5**5, name


@pytest.mark.parametrize(("neck", "expected"), [(None, 7.0), (1.0, 1.0)])
def test_neck__of_setr_mla_may_take_the_rate_of_the_encoder(neck: float | None, expected: float) -> None:
    model = tiny_model("setr_mla/mmseg+aux")
    found = facts(build_optimiser(OptimConfig(lr=1.0, head_lr_mult=7.0, neck_lr_mult=neck), model), model)
    rates = {name: lr for name, (lr, _) in found.items() if name.startswith("heads.")}
    necks = {name for name in rates if name.split(".")[2] in {"norms", "laterals", "smooths"}}
    assert {rates[name] for name in necks} == {expected}
    assert {rates[name] for name in rates.keys() - necks} == {7.0}


def test_weights_of_losses__take_the_rate_of_heads_and_no_decay() -> None:
    model = tiny_model("segmenter_linear")
    weighting = LossWeights(WeightingConfig(kind="uncertainty"), ("main", "other"))
    groups = build_optimiser(OptimConfig(lr=1e-3, head_lr_mult=7.0, weight_decay=0.1), model, weighting).param_groups
    (own,) = [group for group in groups if any(p is weighting.log_variances for p in group["params"])]
    assert (own["lr"], own["weight_decay"]) == (pytest.approx(7e-3), 0.0)


def test_clip__scales_gradients_to_the_bound_and_tells_the_norm_before() -> None:
    weights = [
        torch.nn.Parameter(torch.zeros(2)),
        torch.nn.Parameter(torch.zeros(1)),
        torch.nn.Parameter(torch.zeros(1)),
    ]
    weights[0].grad, weights[1].grad = torch.tensor([1.0, 2.0]), torch.tensor([2.0])

    assert clip(weights, None).item() == pytest.approx(3.0)
    assert clip(weights, 1.5).item() == pytest.approx(3.0)

    torch.testing.assert_close(weights[0].grad, torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(weights[1].grad, torch.tensor([1.0]))
