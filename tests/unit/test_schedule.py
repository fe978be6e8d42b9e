import math

import pytest

from densevit.errors import ConfigError
from densevit.training.schedule import ScheduleConfig


def rates(schedule: ScheduleConfig, *, base: float, iterations: int) -> list[float]:
    """The rate of every step, and the one after the last."""
    return [schedule.lr_at(t, base=base, iterations=iterations) for t in range(iterations + 1)]


@pytest.mark.parametrize(
    ("base", "min_lr", "iterations"),
    [(0.01, 1e-4, 160), (1e-3, 1e-5, 80), (6e-5, 0.0, 7)],
    ids=["SETR", "Segmenter", "0"],
)
def test_poly__follows_the_published_formula(base: float, min_lr: float, iterations: int) -> None:
    schedule = ScheduleConfig(power=0.9, min_lr=min_lr)

    expected = [(base - min_lr) * (1 - t / iterations) ** 0.9 + min_lr for t in range(iterations + 1)]

    assert rates(schedule, base=base, iterations=iterations) == pytest.approx(expected, rel=1e-12)


def test_poly__starts_at_the_base_rate_and_ends_at_the_floor() -> None:
    found = rates(ScheduleConfig(min_lr=1e-4), base=0.01, iterations=100)
    assert (found[0], found[-1]) == pytest.approx((0.01, 1e-4))


def test_floor__is_not_scaled_by_a_groups_multiplier() -> None:
    schedule = ScheduleConfig(min_lr=1e-4)
    assert schedule.lr_at(100, base=0.1, iterations=100) == schedule.lr_at(100, base=0.01, iterations=100) == 1e-4


@pytest.mark.parametrize("kind", ["poly", "cosine"])
def test_floor__above_the_base_rate_raises_no_rate(kind: str) -> None:
    schedule = ScheduleConfig.parse({"kind": kind, "min_lr": 1.0})
    assert rates(schedule, base=0.01, iterations=10) == [0.01] * 11


def test_cosine__has_its_ends_and_its_middle() -> None:
    schedule = ScheduleConfig(kind="cosine", min_lr=0.002)

    start, quarter, middle, *_, end = (schedule.lr_at(t, base=0.01, iterations=40) for t in (0, 10, 20, 30, 40))

    assert (start, middle, end) == pytest.approx((0.01, 0.006, 0.002))
    assert quarter == pytest.approx(0.002 + 0.008 * (1 + math.sqrt(0.5)) / 2)


def test_constant__ignores_the_floor() -> None:
    assert rates(ScheduleConfig(kind="constant", min_lr=0.5), base=0.01, iterations=3) == [0.01] * 4


def test_warm_up__rises_in_a_line_to_the_schedule() -> None:
    schedule = ScheduleConfig(kind="constant", warmup=4, warmup_factor=0.2)
    assert rates(schedule, base=1.0, iterations=6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0])


def test_warm_up__is_laid_over_the_decay() -> None:
    plain, warm = ScheduleConfig(), ScheduleConfig(warmup=10, warmup_factor=0.0)

    decay, found = (rates(schedule, base=0.01, iterations=50) for schedule in (plain, warm))

    assert found[:10] == pytest.approx([rate * t / 10 for t, rate in enumerate(decay[:10])])
    assert found[10:] == decay[10:]


def test_warm_up__takes_no_first_step_of_zero_by_default() -> None:
    assert ScheduleConfig(warmup=1500).lr_at(0, base=6e-5, iterations=160_000) == pytest.approx(6e-11)


@pytest.mark.parametrize("kind", ["poly", "cosine", "constant"])
def test_rate__never_falls_below_zero_beyond_the_end(kind: str) -> None:
    schedule = ScheduleConfig.parse({"kind": kind, "min_lr": 1e-5})
    assert schedule.lr_at(11, base=0.01, iterations=10) == schedule.lr_at(10, base=0.01, iterations=10)


def test_kind__is_refused_when_unknown() -> None:
    with pytest.raises(ConfigError, match="kind: Input should be 'poly', 'cosine' or 'constant'"):
        ScheduleConfig.parse({"kind": "step"})
