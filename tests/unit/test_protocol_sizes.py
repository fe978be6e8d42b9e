import pytest

from densevit.inference import protocol_resize as sizes
from densevit.inference.protocol_resize import Method
from densevit.types import Size


@pytest.mark.parametrize(
    ("size", "bounds", "expected"),
    [
        ((683, 512), (2048, 512), (683, 512)),
        ((375, 500), (2048, 512), (512, 683)),
        ((1024, 2048), (2049, 1025), (1025, 2049)),
        ((100, 900), (2048, 512), (228, 2048)),  # the long side ends it
        ((683, 512), (520, 520), (520, 390)),
    ],
)
def test_keep_ratio__touches_one_bound(size: Size, bounds: Size, expected: Size) -> None:
    assert sizes.keep_ratio(size, bounds) == expected


def test_scaled_bounds__are_cut_to_whole_pixels() -> None:
    assert sizes.scaled_bounds((2049, 1025), 0.75) == (1536, 768)


def test_setr_multi_scale__keeps_the_short_side_at_the_window() -> None:
    assert sizes.setr_multi_scale((683, 512), (1024, 256), 512) == (683, 512)


def test_setr_multi_scale__ignores_the_long_bound() -> None:
    assert sizes.setr_multi_scale((683, 512), (520, 520), 480) == (694, 520)


@pytest.mark.parametrize(
    ("size", "expected"), [((50, 75), (64, 96)), ((75, 50), (96, 64)), ((64, 200), (64, 200)), ((63, 64), (64, 65))]
)
def test_cover_window__enlarges_the_short_side(size: Size, expected: Size) -> None:
    assert sizes.cover_window(size, 64) == expected


@pytest.mark.parametrize(
    ("size", "target", "multiple", "method", "expected"),
    [
        ((480, 640), (384, 384), 32, "minimal", (384, 512)),
        ((375, 1242), (352, 1216), 32, "minimal", (352, 1216)),
        ((480, 640), (384, 384), 32, "upper_bound", (288, 384)),
        ((375, 500), (518, 518), 14, "lower_bound", (518, 686)),
        ((1080, 1920), (518, 518), 14, "lower_bound", (518, 924)),
        ((10, 4000), (384, 384), 32, "upper_bound", (32, 384)),  # never nothing
    ],
)
def test_net_size__rounds_to_the_multiple(
    size: Size, target: Size, multiple: int, method: Method, expected: Size
) -> None:
    assert sizes.net_size(size, target, multiple, method) == expected


def test_net_size__rounds_half_to_even() -> None:
    assert sizes.net_size((112, 48), (112, 112), 32, "minimal") == (128, 64)  # 3.5 up, 1.5 up
    assert sizes.net_size((80, 80), (80, 80), 32, "minimal") == (64, 64)  # 2.5 down


def test_stretched__takes_the_target_as_it_is() -> None:
    assert sizes.stretched((384, 480), 1) == (384, 480)
