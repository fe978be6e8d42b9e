"""Every published model by name: number of parameters, protocol and reported metrics."""

import pytest
import torch

from densevit.checkpoints.importers import IMPORTERS, build, detect
from densevit.inference_config import WholeProtocol, WindowProtocol, parse_protocol
from densevit.model import DenseModel, ModelConfig
from densevit.presets import PRESETS, preset
from tests.parity.published import meta_source, published

PRETRAINING_HEAD = {width: 1000 * width + 1000 for width in (192, 384, 768, 1024)}


def unused_of_dpt(width: int, *, batch_norm: bool) -> int:
    """The classifier and final norm of the encoder, and the residual unit of the coarsest skip."""
    unit = 2 * (256 * 256 * 9 + (2 * 256 if batch_norm else 256))
    return PRETRAINING_HEAD[width] + 2 * width + unit


# Preset -> published checkpoint of the same shapes, and the parameters in it that nothing reads.
COUNTED: dict[str, tuple[str, int]] = {
    "setr-naive-l-ade20k": ("mmseg-setr_vit-l_naive_8xb2-160k_ade20k-512x512", 0),
    "setr-pup-l-ade20k": ("mmseg-setr_vit-l_pup_8xb2-160k_ade20k-512x512", 0),
    "setr-mla-l-ade20k": ("mmseg-setr_vit-l_mla_8xb2-160k_ade20k-512x512", 2 * 1024),  # class token and its position
    "setr-naive-l-cityscapes": ("mmseg-setr_vit-l_naive_8xb1-80k_cityscapes-768x768", 0),
    "setr-pup-l-cityscapes": ("mmseg-setr_vit-l_pup_8xb1-80k_cityscapes-768x768", 0),
    "setr-mla-l-cityscapes": ("mmseg-setr_vit-l_mla_8xb1-80k_cityscapes-768x768", 2 * 1024),
    "segmenter-ti-mask": ("segmenter-seg_tiny_mask-ade20k", PRETRAINING_HEAD[192]),
    "segmenter-s-mask": ("segmenter-seg_small_mask-ade20k", PRETRAINING_HEAD[384]),
    "segmenter-b-mask": ("segmenter-seg_base_mask-ade20k", PRETRAINING_HEAD[768]),
    "segmenter-b-linear": ("segmenter-seg_base_linear16-ade20k", PRETRAINING_HEAD[768]),
    "segmenter-b8-linear": ("segmenter-seg_base_patch8-linear-ade20k", PRETRAINING_HEAD[768]),
    "segmenter-b8-mask": ("segmenter-seg_base_patch8-mask-ade20k", PRETRAINING_HEAD[768]),
    "segmenter-b-deit-linear": ("segmenter-seg_base_deit_linear-ade20k", 2 * PRETRAINING_HEAD[768]),
    "segmenter-b-deit-mask": ("segmenter-seg_base_deit_mask-ade20k", 2 * PRETRAINING_HEAD[768]),
    "segmenter-l-mask-640": ("segmenter-seg_large_mask_640-ade20k", PRETRAINING_HEAD[1024]),
    "segmenter-l-mask-pascal-context": ("segmenter-seg_large_mask-pascal_context", PRETRAINING_HEAD[1024]),
    "segmenter-l-mask-cityscapes": ("segmenter-seg_large_mask-cityscapes", PRETRAINING_HEAD[1024]),
    "segmenter-mmseg-ti-mask": ("mmseg-segmenter_vit-t_mask_8xb1-160k_ade20k-512x512", 0),
    "segmenter-mmseg-s-linear": ("mmseg-segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512", 0),
    "segmenter-mmseg-s-mask": ("mmseg-segmenter_vit-s_mask_8xb1-160k_ade20k-512x512", 0),
    "segmenter-mmseg-b-mask": ("mmseg-segmenter_vit-b_mask_8xb1-160k_ade20k-512x512", 0),
    "segmenter-mmseg-l-mask-640": ("mmseg-segmenter_vit-l_mask_8xb1-160k_ade20k-512x512", 0),
    "dpt-mmseg-base-ade20k": ("mmseg-dpt_vit-b16_8xb2-160k_ade20k-512x512", 0),
    "dpt-base-ade20k": ("official-dpt_base-ade20k", unused_of_dpt(768, batch_norm=True)),
    "dpt-large-ade20k": ("official-dpt_large-ade20k", unused_of_dpt(1024, batch_norm=True)),
    "dpt-hybrid-ade20k": ("official-dpt_hybrid-ade20k", unused_of_dpt(768, batch_norm=True)),
    "dpt-base-depth": ("official-dpt_base-depth", unused_of_dpt(768, batch_norm=False)),
    "dpt-large-depth": ("official-dpt_large-midas", unused_of_dpt(1024, batch_norm=False)),
    "dpt-hybrid-depth": ("official-dpt_hybrid-midas", unused_of_dpt(768, batch_norm=False)),
    "dpt-hybrid-kitti": ("official-dpt_hybrid-midas", unused_of_dpt(768, batch_norm=False)),
    "dpt-hybrid-nyu": ("official-dpt_hybrid-midas", unused_of_dpt(768, batch_norm=False)),
    # the token of the pre-training task, and the residual unit of the coarsest skip
    "depth-anything-s": ("official-depth_anything_v2_vits", 384 + 2 * (64 * 64 * 9 + 64)),
    "depth-anything-b": ("official-depth_anything_v2_vitb", 768 + 2 * (128 * 128 * 9 + 128)),
    "depth-anything-l": ("official-depth_anything_v2_vitl", 1024 + 2 * (256 * 256 * 9 + 256)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_preset__has_the_counted_parameters(name: str) -> None:
    checkpoint, unused = COUNTED[name]
    with torch.device("meta"):
        model = DenseModel(ModelConfig.parse(preset(name).model, source=name))

    assert model.num_parameters() + unused == published()[checkpoint]["num_params"]


@pytest.mark.parametrize("name", sorted(COUNTED.keys() - {"dpt-hybrid-kitti", "dpt-hybrid-nyu"}))
def test_preset__is_the_model_that_the_published_weights_become(name: str) -> None:
    source = meta_source(COUNTED[name][0])
    row = detect(source.state, name)
    bundle = build(row, IMPORTERS[row], source).bundle
    model = ModelConfig.parse(preset(name).model, source=name)
    (head,) = model.heads

    def encoder(config: ModelConfig) -> dict[str, object]:
        return config.encoder.plain() | {"drop_path": None}  # of training, which weights do not tell

    assert encoder(bundle.model.config) == encoder(model)
    assert bundle.model.config.normalisation == model.normalisation
    assert bundle.model.config.head_taps(head) == model.head_taps(head)
    assert bundle.protocol is not None
    protocol, expected = bundle.protocol.plain(), parse_protocol(preset(name).protocol).plain()
    if row == "segmenter":  # whose base is that of the data set, named in variant.yml
        protocol["base"] = expected["base"]
    assert protocol == expected


@pytest.mark.parametrize("name", PRESETS)
def test_preset__can_be_built(name: str) -> None:
    with torch.device("meta"):
        assert DenseModel(ModelConfig.parse(preset(name).model, source=name)).num_parameters() > 5_000_000


@pytest.mark.parametrize("name", PRESETS)
def test_preset__has_a_protocol_of_its_image_size(name: str) -> None:
    row = preset(name)
    protocol = parse_protocol(row.protocol)

    if isinstance(protocol, WholeProtocol) and protocol.resize:
        long_sides = protocol.kind == "depth_anything_3"  # of photos of 4 by 3
        side = min(protocol.net_size)
        assert (side * 3 // 4 if long_sides else side) == row.short_side
    elif isinstance(protocol, WindowProtocol) and protocol.window is not None:
        assert protocol.window == (row.short_side, row.short_side)


@pytest.mark.parametrize(
    ("name", "window", "stride", "base"),
    [
        ("setr-pup-l-ade20k", 512, 341, (2048, 512)),
        ("setr-pup-l-cityscapes", 768, 512, (2049, 1025)),
        ("setr-paper-pup-l-pascal-context", 480, 320, (520, 520)),
        ("segmenter-b-mask", 512, 480, (2048, 512)),
        ("segmenter-l-mask-640", 640, 608, (2560, 640)),
        ("segmenter-l-mask-pascal-context", 480, 448, (4160, 520)),
        ("segmenter-l-mask-cityscapes", 768, 736, (2048, 1024)),
        ("segmenter-mmseg-l-mask-640", 640, 608, (2560, 640)),
    ],
)
def test_preset__slides_as_published(name: str, window: int, stride: int, base: tuple[int, int]) -> None:
    protocol = parse_protocol(preset(name).protocol)

    assert isinstance(protocol, WindowProtocol)
    assert (protocol.window, protocol.stride) == ((window, window), (stride, stride))
    assert protocol.base == base


def test_paper_multi_scale_set__is_the_short_one_where_the_authors_used_it() -> None:
    def scales(name: str) -> int:
        protocol = parse_protocol(preset(name).protocol)
        assert isinstance(protocol, WindowProtocol)
        return len(protocol.tta_scales)

    assert scales("setr-paper-naive-l-ade20k") == scales("setr-paper-mla-l-ade20k") == 3
    assert scales("setr-paper-pup-l-ade20k") == scales("setr-paper-mla-l-pascal-context") == 6
