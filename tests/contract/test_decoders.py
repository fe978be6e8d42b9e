"""The promises of every decoder, checked for the whole table of decoders and their variants."""

import copy

import pytest
import safetensors.torch
import torch
from torch import Tensor

from densevit.decoders import DECODERS, parse_decoder
from densevit.encoder.token_merging_rules import AlgmMerging, MergingConfig, TomeMerging
from densevit.errors import ConfigError
from densevit.model import DenseModel
from densevit.types import DenseOutput, Size
from tests.factories import PREFIXES, VARIANTS, Prefix, random_images, tiny_model
from tests.tolerances import EXACT, SAME_MATHS

PATCH_SIZES = (8, 14, 16, 32)
GRIDS: tuple[Size, ...] = ((3, 3), (2, 3), (4, 6))
NUM_PREFIX: dict[Prefix, int] = {"none": 0, "cls": 1, "cls+dist": 2, "cls+reg": 4}

ONE_OF_EACH = (
    "setr_naive/mmseg+aux",
    "setr_pup/mmseg",
    "setr_mla/paper+aux",
    "segmenter_linear",
    "segmenter_mask",
    "dpt/batch norm, aux on last",
    "dpt/project, depth",
    "dpt/hybrid",
)
"""Each row of the table, and DPT's special cases: for slow checks, and for what hardly depends on the decoder."""


def readable_prefixes(name: str) -> list[Prefix]:
    """The prefix kinds that have the tokens a variant reads."""
    needed = VARIANTS[name].config.num_readout_tokens
    return [prefix for prefix in PREFIXES if NUM_PREFIX[prefix] >= needed]


UNREADABLE = [(name, prefix) for name in VARIANTS for prefix in PREFIXES if prefix not in readable_prefixes(name)]

READOUTS = ("segmenter_mask", "dpt/ignore, depth", "dpt/add, depth", "dpt/add of 2, segmentation", "dpt/project, depth")
"""One variant for each use of the prefix tokens; the others do not depend on which there are."""

EVERY_PREFIX = [
    *((name, "cls+dist") for name in VARIANTS if name not in READOUTS),
    *((name, prefix) for name in READOUTS for prefix in readable_prefixes(name)),
]

SIZED = [
    (name, patch_size)
    for name, variant in VARIANTS.items()
    for patch_size in (PATCH_SIZES if variant.scale == "image" else (16,))
]
"""Only logits of the image's size depend on the patch size."""


def main_output(model: DenseModel, images: Tensor) -> DenseOutput:
    """The output of the tiny model's only head."""
    return model(images)["main"]


def all_logits(output: DenseOutput) -> tuple[Tensor, ...]:
    """Logits and auxiliary logits."""
    return output.logits, *output.aux


def test_variants__have_every_row_of_the_table() -> None:
    assert {variant.decoder["kind"] for variant in VARIANTS.values()} == set(DECODERS)


@pytest.mark.parametrize("kind", DECODERS)
def test_table__key_is_the_tag_of_the_config(kind: str) -> None:
    config, _ = DECODERS[kind]

    assert config.model_fields["kind"].default == kind


@pytest.mark.parametrize("name", VARIANTS)
def test_config__survives_the_way_to_disk_and_back(name: str) -> None:
    config = VARIANTS[name].config

    assert parse_decoder(config.plain()) == config


@pytest.mark.parametrize(("name", "patch_size"), SIZED)
def test_logits__have_the_documented_size(name: str, patch_size: int) -> None:
    variant = VARIANTS[name]
    model = tiny_model(name, patch_size=patch_size, prefix="cls+dist")

    with torch.no_grad():
        sizes = {grid: main_output(model, random_images(grid, patch_size, batch=1)).logits.shape for grid in GRIDS}

    assert sizes == {grid: (1, variant.out_channels, *variant.size(grid, patch_size)) for grid in GRIDS}


@pytest.mark.parametrize("name", VARIANTS)
def test_aux__has_the_documented_sizes_in_training(name: str) -> None:
    variant, grid = VARIANTS[name], (2, 3)
    model = tiny_model(name, prefix="cls+dist").train()

    aux = main_output(model, random_images(grid)).aux

    assert tuple(a.shape for a in aux) == tuple((2, variant.out_channels, *size) for size in variant.aux_sizes(grid))


@pytest.mark.parametrize("name", VARIANTS)
def test_aux__is_empty_in_evaluation(name: str) -> None:
    model = tiny_model(name, prefix="cls+dist")

    assert main_output(model, random_images((2, 2))).aux == ()


@pytest.mark.parametrize(("name", "prefix"), EVERY_PREFIX)
def test_training__gives_every_parameter_a_gradient(name: str, prefix: Prefix) -> None:
    model = tiny_model(name, prefix=prefix).train()
    torch.manual_seed(2)

    outputs = all_logits(main_output(model, random_images((2, 3))))
    torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum().backward()

    without = [
        parameter_name
        for parameter_name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    assert without == []


@pytest.mark.parametrize("name", VARIANTS)
def test_evaluation__treats_the_images_of_a_batch_independently(name: str) -> None:
    model = tiny_model(name, prefix="cls+dist")
    images = random_images((2, 3), batch=3)

    with torch.no_grad():
        together = main_output(model, images).logits
        separate = torch.cat([main_output(model, image[None]).logits for image in images])

    torch.testing.assert_close(together, separate, **SAME_MATHS)


@pytest.mark.parametrize("name", VARIANTS)
def test_decoder__leaves_the_taps_as_they_are(name: str) -> None:
    model = tiny_model(name, prefix="cls+dist").train()
    taps = model.encode(random_images((2, 3)))
    tensors = (*taps.tokens, *taps.prefix, *taps.stem_maps)
    before = [tensor.clone() for tensor in tensors]

    model.decode(taps)

    torch.testing.assert_close(list(tensors), before, **EXACT)


@pytest.mark.parametrize("name", VARIANTS)
def test_bfloat16__gives_finite_logits(name: str) -> None:
    model = tiny_model(name, prefix="cls+dist").to(torch.bfloat16)

    with torch.no_grad():
        logits = main_output(model, random_images((2, 3)).to(torch.bfloat16)).logits

    # The values of depth and regression heads would lose digits.
    decoder = VARIANTS[name].decoder
    gives_scores = decoder.get("head", {}).get("kind", "segmentation") == "segmentation" and "bins" not in decoder
    expected = torch.bfloat16 if gives_scores else torch.float32
    assert (logits.dtype, bool(logits.isfinite().all())) == (expected, True)


@pytest.mark.parametrize("name", VARIANTS)
def test_autocast__gives_finite_logits_and_gradients(name: str) -> None:
    model = tiny_model(name, prefix="cls+dist").train()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = all_logits(main_output(model, random_images((2, 3))))
    torch.stack([output.float().sum() for output in outputs]).sum().backward()

    assert all(
        bool(t.isfinite().all()) for t in (*outputs, *(p.grad for p in model.parameters() if p.grad is not None))
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_state_dict__survives_safetensors(name: str) -> None:
    model, other = tiny_model(name, prefix="cls+dist", seed=0), tiny_model(name, prefix="cls+dist", seed=1)
    images = random_images((2, 3))

    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(model.state_dict())), strict=True)

    with torch.no_grad():
        torch.testing.assert_close(main_output(other, images).logits, main_output(model, images).logits, **EXACT)


@pytest.mark.parametrize(("name", "prefix"), UNREADABLE)
def test_readout__of_tokens_that_the_encoder_lacks_is_refused(name: str, prefix: Prefix) -> None:
    with pytest.raises(
        ConfigError, match=r"reads [12] prefix tokens but the encoder has [01]; set readout to 'ignore'"
    ):
        tiny_model(name, prefix=prefix)


@pytest.mark.parametrize(
    ("name", "training"),
    [*((name, True) for name in ONE_OF_EACH), ("segmenter_mask", False), ("dpt/project, depth", False)],
)
def test_compile__needs_no_graph_break(name: str, training: bool) -> None:
    torch.compiler.reset()
    model = tiny_model(name).train(training)
    reference = copy.deepcopy(model)
    images = random_images((2, 3))

    torch.manual_seed(3)
    compiled = all_logits(torch.compile(model, backend="eager", fullgraph=True)(images)["main"])
    torch.manual_seed(3)
    eager = all_logits(main_output(reference, images))

    torch.testing.assert_close(compiled, eager, **SAME_MATHS)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_export__gives_what_eager_gives(name: str) -> None:
    model, images = tiny_model(name), random_images((2, 3))

    exported = torch.export.export(model, (images,), strict=False).module()

    with torch.no_grad():
        torch.testing.assert_close(exported(images)["main"].logits, main_output(model, images).logits, **SAME_MATHS)


@pytest.mark.parametrize(
    "rule",
    [TomeMerging(share=0.5, first=0, every=1), AlgmMerging(local_block=0, local_threshold=-0.3)],
    ids=["tome", "algm"],
)
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_decoder__takes_the_taps_of_a_merging_encoder(name: str, rule: MergingConfig) -> None:
    model, images = tiny_model(name, prefix="cls+dist"), random_images((4, 6), batch=1)
    with torch.inference_mode():
        plain = main_output(model, images).logits
        model.encoder.merging = rule
        merged = main_output(model, images).logits

    assert merged.shape == plain.shape
    assert torch.isfinite(merged).all()
    assert not torch.equal(merged, plain)
