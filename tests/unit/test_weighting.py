import math

import pytest
import torch
from torch import Tensor

from densevit.errors import ConfigError
from densevit.training.loss_weighting import LossWeights, WeightingConfig

HEADS = ("streets", "depth")
UNCERTAINTY = WeightingConfig(kind="uncertainty")


def losses(streets: float, depth: float) -> dict[str, Tensor]:
    return {"streets": torch.tensor(streets), "depth": torch.tensor(depth)}


def test_fixed__is_the_weighted_sum() -> None:
    weighting = LossWeights(WeightingConfig(weights={"depth": 0.5}), HEADS)

    assert weighting(losses(2.0, 3.0)) == 2.0 + 0.5 * 3.0
    assert weighting.weights() == {"streets": 1.0, "depth": 0.5}
    assert list(weighting.parameters()) == []
    assert weighting.state_dict() == {}


@pytest.mark.parametrize("config", [WeightingConfig(), UNCERTAINTY])
def test_weights__of_heads_without_a_loss_in_this_step_add_nothing(config: WeightingConfig) -> None:
    weighting = LossWeights(config, HEADS)

    assert weighting({"depth": torch.tensor(3.0)}) == 3.0
    assert weighting({}) == 0.0


def test_uncertainty__starts_at_the_weights_given() -> None:
    config = WeightingConfig(kind="uncertainty", weights={"depth": 0.25})
    weighting = LossWeights(config, HEADS)

    assert weighting.weights() == pytest.approx({"streets": 1.0, "depth": 0.25})


def test_uncertainty__equals_the_formula() -> None:
    weighting = LossWeights(UNCERTAINTY, HEADS)
    with torch.no_grad():
        weighting.log_variances.copy_(torch.tensor([0.3, -1.2]))

    expected = math.exp(-0.3) * 2.0 + 0.3 / 2 + math.exp(1.2) * 0.1 - 1.2 / 2

    assert weighting(losses(2.0, 0.1)).item() == pytest.approx(expected, rel=1e-6)


def test_uncertainty__is_minimised_by_the_weight_one_over_twice_the_loss() -> None:
    weighting = LossWeights(UNCERTAINTY, HEADS)
    optimiser = torch.optim.SGD(weighting.parameters(), lr=0.5)
    for _ in range(200):
        optimiser.zero_grad()
        weighting(losses(4.0, 0.02)).backward()
        optimiser.step()

    assert weighting.weights() == pytest.approx({"streets": 1 / (2 * 4.0), "depth": 1 / (2 * 0.02)}, rel=1e-3)


def test_uncertainty__leads_to_the_same_updates_of_the_model_whatever_the_unit_of_a_loss() -> None:
    steps = []
    for unit in (1.0, 1000.0):
        target = torch.tensor([3.0, -1.0])
        model = torch.nn.Parameter(torch.zeros(2))
        weighting = LossWeights(UNCERTAINTY, HEADS)
        with torch.no_grad():  # where training leads, see above
            weighting.log_variances.copy_(torch.log(2 * torch.tensor([3.0, unit])))
        terms = {"streets": (model[0] - target[0]).abs(), "depth": unit * (model[1] - target[1]).abs()}
        weighting(terms).backward()
        assert model.grad is not None
        steps.append(model.grad)

    torch.testing.assert_close(steps[0], steps[1])


def test_uncertainty__does_not_move_for_a_head_without_a_known_pixel() -> None:
    weighting = LossWeights(UNCERTAINTY, HEADS)

    weighting(losses(2.0, 0.0)).backward()

    assert weighting.log_variances.grad is not None
    assert weighting.log_variances.grad[1] == 0
    assert weighting.log_variances.grad[0] == pytest.approx(0.5 - 2.0)


def test_uncertainty__is_part_of_the_state() -> None:
    weighting = LossWeights(WeightingConfig(kind="uncertainty", weights={"depth": 3.0}), HEADS)

    other = LossWeights(UNCERTAINTY, HEADS)
    other.load_state_dict(weighting.state_dict())

    assert other.weights() == weighting.weights()


def test_total__is_float32_also_for_half_precision_losses() -> None:
    total = LossWeights(UNCERTAINTY, HEADS)({"depth": torch.tensor(1.0, dtype=torch.bfloat16)})

    assert total.dtype == torch.float32


def test_weights__of_an_unknown_head_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        LossWeights(WeightingConfig(weights={"dept": 1.0}), HEADS)

    assert str(caught.value) == ("weighting.weights names head 'dept', which the model lacks; did you mean 'depth'?")


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf])
def test_weights__are_positive_and_finite(weight: float) -> None:
    with pytest.raises(ConfigError, match=r"weights\.depth: Input should be"):
        WeightingConfig.parse({"weights": {"depth": weight}})
