"""Losses of metrics, as --max-loss and --budget take them."""

import math

import pytest

from densevit.errors import ConfigError
from densevit.evaluation.figure import Figure, read_amount


@pytest.mark.parametrize(
    ("name", "higher_is_better", "value", "reference", "loss", "shown"),
    [
        ("mIoU", True, 0.695, 0.70, 0.5, "+0.50"),
        ("mIoU", True, 0.71, 0.70, -1.0, "-1.00"),
        ("delta1", True, 0.84, 0.85, 0.01, "+0.0100"),
        ("MAE", False, 1.5, 1.2, 0.3, "+0.30"),
    ],
)
def test_loss__is_in_points_fractions_or_units(
    name: str, higher_is_better: bool, value: float, reference: float, loss: float, shown: str
) -> None:
    figure = Figure(name, higher_is_better)

    assert figure.loss(value, reference) == pytest.approx(loss)
    assert figure.after(loss, reference) == pytest.approx(value)
    assert figure.show(figure.loss(value, reference), "+") == shown


def test_loss__of_what_was_not_measured_is_none() -> None:
    assert math.isnan(Figure("mIoU", True).loss(math.nan, 0.5))


@pytest.mark.parametrize(("name", "amount"), [("mIoU", 5.0), ("delta1", 0.1), ("MAE", 30.0)])
def test_accepted_loss__may_be_large(name: str, amount: float) -> None:
    assert Figure(name, True).check(amount, "budget") == amount


def test_fractions__in_points_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        Figure("delta1", True).check(0.5, "budget '0.5 delta1'")
    assert str(caught.value) == (
        "budget '0.5 delta1' would accept nearly anything: losses of delta1 are fractions, of which up to 0.1 is "
        'accepted; half a point is "0.005 delta1"'
    )


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0.5 mIoU", (0.5, "mIoU")), (" 20ms ", (20.0, "ms")), ("0.5", None), ("-1 s", None), ("", None), ("1e3 s", None)],
)
def test_amount__is_a_number_and_a_unit(text: str, amount: tuple[float, str] | None) -> None:
    assert read_amount(text) == amount
