"""Ranges of kernels' work on several threads."""

import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from densevit.kernels.threads import parallel_for


@pytest.fixture(autouse=True)
def three_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def covered(count: int, grain: int | None) -> list[int]:
    done = [0] * count
    ranges: list[tuple[int, int]] = []
    parallel_for(lambda start, stop: ranges.append((start, stop)), count, grain=grain)
    for start, stop in ranges:
        for index in range(start, stop):
            done[index] += 1
    return done


@pytest.mark.parametrize("count", [1, 2, 3, 64, 1000])
@pytest.mark.parametrize("grain", [None, 1, 7, 5000])
def test_every_iteration__runs_once(count: int, grain: int | None) -> None:
    assert covered(count, grain) == [1] * count


def test_calls_from_several_threads__do_not_wait_for_one_another_for_ever() -> None:
    with ThreadPoolExecutor(8) as callers:
        assert all(done == [1] * 50 for done in callers.map(lambda _: covered(50, 3), range(40)))


@pytest.mark.parametrize("failing", [0, 9])
def test_error_of_a_range__reaches_the_caller(failing: int) -> None:
    def body(start: int, stop: int) -> None:
        if start == failing:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        parallel_for(body, 10, grain=1)
    assert covered(10, 1) == [1] * 10


@pytest.mark.skipif(sys.platform == "win32", reason="processes are not forked there")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_process__starts_threads_of_its_own() -> None:
    covered(10, 1)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(covered, (10, 1)).get(timeout=60) == [1] * 10
