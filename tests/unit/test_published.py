"""The table of published weights: what every row must state, and that its options make its preset of its weights."""

import json
import re
from dataclasses import replace

import pytest
import torch

from densevit.checkpoints.importers import IMPORTERS, ImportOverrides, Source, build
from densevit.checkpoints.published import PUBLISHED, Origin, Published, find_published
from densevit.checkpoints.published.measured import metrics_of, protocol_of
from densevit.inference_config import parse_protocol
from densevit.model import ModelConfig
from densevit.presets import PRESETS
from densevit_runtime.licences import UNSTATED
from tests.parity.published import HUB_CONFIGS, meta_source, published

ROWS = tuple(PUBLISHED.values())
ORIGINS = [pytest.param(origin, id=f"{row.name}-{i}") for row in ROWS for i, origin in enumerate(row.sources)]
HASH = re.compile(r"[0-9a-f]{64}")
# Whose metric models have no published figures.
WITHOUT_METRICS = re.compile(r"depth-anything-(v2-metric-(indoor|outdoor)-(small|base|large)|3-(mono|metric)-large)")


def key_list(row: Published) -> str | None:
    """The list of names and shapes of a row's tensors; None if there is none."""
    origin = row.sources[0]
    if origin.repo is not None and f"hf-{origin.repo.replace('/', '-')}" in HUB_CONFIGS:
        return f"hf-{origin.repo.replace('/', '-')}"
    if row.import_options["as_source"] == "mmseg":
        return f"mmseg-{row.source_config.rpartition('/')[2].removesuffix('.py')}"
    if row.import_options["as_source"] == "segmenter":
        data, folder, _ = row.source_config.split("/")
        return f"segmenter-{folder.replace('patch8', 'patch8-linear')}-{data}"
    if row.import_options["as_source"] == "depth_anything":
        return f"official-depth_anything_v2_{row.source_config.partition(',')[0]}"
    if row.import_options["as_source"] == "depth_anything_3":
        return "da3-large"
    if row.import_options["as_source"] == "dinov2":
        return row.source_config.replace("_", "-").replace("kitti", "nyu")
    if row.import_options["as_source"] == "dpt":
        tuned = row.source_config in (
            "dpt_hybrid_kitti",
            "dpt_hybrid_nyu",
        )  # from dpt_hybrid-midas, whose shapes it has
        return "official-dpt_hybrid-midas" if tuned else f"official-{row.source_config}"
    return None


# Width, depth, attention heads and tapped blocks (counted from 1) of each size.
DINOV2 = {
    "small": (384, 12, 6, [3, 6, 9, 12]),
    "base": (768, 12, 12, [3, 6, 9, 12]),
    "large": (1024, 24, 16, [5, 12, 18, 24]),
    "giant": (1536, 40, 24, [10, 20, 30, 40]),
}

WITH_KEYS = [row for row in ROWS if key_list(row) in published()]


def by_name(row: Published) -> str:
    return row.name


def test_rows__have_names_in_one_style() -> None:
    spellings = [spelling for row in ROWS for spelling in (row.name, *row.aliases)]

    assert [s for s in spellings if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", s)] == []
    assert len(set(spellings)) == len(spellings)
    assert set(PRESETS).isdisjoint(alias for row in ROWS for alias in row.aliases)


@pytest.mark.parametrize("row", [row for row in ROWS if row.name in PRESETS], ids=by_name)
def test_row__with_the_name_of_a_preset_is_of_that_preset(row: Published) -> None:
    assert row.preset == row.name


@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_row__states_licence_protocol_metrics_and_their_sources(row: Published) -> None:
    assert row.licence in ("Apache-2.0", "MIT", "CC-BY-NC-4.0", UNSTATED)
    assert row.licence_of_code in ("Apache-2.0", "MIT")
    assert all((row.sources, row.licence_source, row.source_config, row.protocol, row.metrics_source))
    assert (row.metrics == {}) == bool(WITHOUT_METRICS.fullmatch(row.name))
    assert (PRESETS[row.preset].family, PRESETS[row.preset].task) == (row.family, row.task)


@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_row__metrics_are_no_percentages(row: Published) -> None:
    fractions = ("mIoU", "aAcc", "delta", "DA-2K", "WHDR", "> 1.25", "AbsRel")

    assert [key for key, value in row.metrics.items() if value <= 0] == []
    assert [k for k, value in row.metrics.items() if value > 1 and any(name in k for name in fractions)] == []


def test_rows__say_that_none_was_downloaded() -> None:
    assert [row.name for row in ROWS if row.downloaded_here] == []


@pytest.mark.parametrize("origin", ORIGINS)
def test_origin__is_one_place(origin: Origin) -> None:
    assert (origin.url is None) == (origin.repo is not None) == (origin.file is not None)
    assert origin.address.startswith("https://")
    assert origin.revision is None or (origin.repo and re.fullmatch("[0-9a-f]{40}", origin.revision))


@pytest.mark.parametrize("origin", ORIGINS)
def test_origin__names_who_states_its_hash(origin: Origin) -> None:
    known = (origin.sha256, origin.sha256_prefix, origin.bytes, origin.revision)

    assert origin.sha256 is None or HASH.fullmatch(origin.sha256)
    assert (origin.hash_source == "none") == (set(known) == {None})
    if origin.sha256_prefix is not None:
        assert re.fullmatch("[0-9a-f]{8}", origin.sha256_prefix)
        assert origin.sha256 is None or origin.sha256.startswith(origin.sha256_prefix)


@pytest.mark.parametrize("row", [row for row in ROWS if row.sources[0].sha256_prefix], ids=by_name)
def test_origin__begins_its_hash_as_its_file_name_ends(row: Published) -> None:
    stem = row.sources[0].address.rpartition("/")[2].rpartition(".")[0]

    assert stem.endswith(f"-{row.sources[0].sha256_prefix}")


@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_sources__of_a_row_with_several_hashes_agree(row: Published) -> None:
    assert len({origin.sha256 for origin in row.sources}) == 1


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (
            "setr-pup-l-ade20k",
            "https://download.openmmlab.com/mmsegmentation/v0.5/setr/setr_pup_512x512_160k_b16_ade20k/"
            "setr_pup_512x512_160k_b16_ade20k_20210619_191343-7e0ce826.pth",
        ),
        (
            "setr-mla-l-cityscapes",
            "https://download.openmmlab.com/mmsegmentation/v0.5/setr/setr_mla_vit-large_8x1_768x768_80k_cityscapes/"
            "setr_mla_vit-large_8x1_768x768_80k_cityscapes_20211119_101003-7f8dccbe.pth",
        ),
        (
            "segmenter-mmseg-s-linear",
            "https://download.openmmlab.com/mmsegmentation/v0.5/segmenter/segmenter_vit-s_linear_8x1_512x512_160k_ade20k/"
            "segmenter_vit-s_linear_8x1_512x512_160k_ade20k_20220105_151713-39658c46.pth",
        ),
        (
            "dpt-mmseg-base-ade20k",
            "https://download.openmmlab.com/mmsegmentation/v0.5/dpt/dpt_vit-b16_512x512_160k_ade20k/"
            "dpt_vit-b16_512x512_160k_ade20k-db31cf52.pth",
        ),
        (
            "segmenter-l-mask-cityscapes",
            "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints/cityscapes/seg_large_mask/checkpoint.pth",
        ),
        (
            "dpt-hybrid-nyu",
            "https://github.com/isl-org/DPT/releases/download/1_0/dpt_hybrid_nyu-2ce69ec7.pt",
        ),
        (
            "depth-anything-v2-metric-outdoor-base",
            "https://huggingface.co/depth-anything/Depth-Anything-V2-Metric-VKITTI-Base/resolve/"
            "e96fd0c8cedf1825a55b9c61309f754982948df0/depth_anything_v2_metric_vkitti_vitb.pth",
        ),
        (
            "dinov2-small-ade20k-ms",
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_ade20k_ms_head.pth",
        ),
        (
            "depth-anything-3-mono-large",
            "https://huggingface.co/depth-anything/DA3MONO-LARGE/resolve/f465978e618db8cc79c83b8bbf24964857db1875/"
            "model.safetensors",
        ),
        (
            "dpt-dinov2-giant-kitti",
            "https://huggingface.co/facebook/dpt-dinov2-giant-kitti/resolve/main/model.safetensors",
        ),
    ],
)
def test_address__is_the_published_one(name: str, address: str) -> None:
    assert PUBLISHED[name].sources[0].address == address


def test_side_address__is_next_to_the_weights() -> None:
    released = Origin(url="https://host/a/checkpoint.pth", side_files=("variant.yml",))
    on_hub = Origin(repo="me/model", file="v2/model.safetensors", revision="a" * 40, side_files=("config.json",))

    assert released.side_address("variant.yml") == "https://host/a/variant.yml"
    assert on_hub.address == f"https://huggingface.co/me/model/resolve/{'a' * 40}/v2/model.safetensors"
    assert on_hub.side_address("config.json") == f"https://huggingface.co/me/model/resolve/{'a' * 40}/v2/config.json"


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("dpt-large-depth", "dpt-large-depth"),  # not Intel's conversion, which has the same preset
        ("dpt-large-midas", "dpt-large-depth"),
        ("segmenter-b-mask-ade20k", "segmenter-b-mask"),
        ("setr-pup-ade20k", "setr-pup-l-ade20k"),
        ("setr-mla-l-ade20k", "setr-mla-l-ade20k"),
        ("depth-anything-s", "depth-anything-v2-small"),
        ("dpt-base-depth", None),
        ("setr-pup-b", None),
        ("nothing", None),
    ],
)
def test_find_published__takes_names_aliases_and_presets(spelling: str, name: str | None) -> None:
    row = find_published(spelling)

    assert (None if row is None else row.name) == name


@pytest.mark.parametrize("release", ["nyu", "kitti"])
@pytest.mark.parametrize("size", DINOV2)
def test_dpt_on_dinov2__becomes_its_preset(size: str, release: str) -> None:
    row = PUBLISHED[f"dpt-dinov2-{size}-{release}"]
    options = {key: value for key, value in row.import_options.items() if key != "as_source"}
    source = replace(dpt_on_dinov2(size), overrides=ImportOverrides.parse(options))

    bundle = build("transformers", IMPORTERS["transformers"], source).bundle

    preset = PRESETS[row.preset]
    built, wanted = bundle.model.config, ModelConfig.parse(preset.model)
    assert built.encoder == wanted.encoder
    assert built.heads == wanted.heads
    assert built.normalisation.std == pytest.approx(wanted.normalisation.std)
    assert bundle.protocol == parse_protocol(preset.protocol)
    assert bundle.fit.short_side == preset.short_side
    assert bundle.tasks["depth"].plain().items() >= preset.task_facts.items()


def dpt_on_dinov2(size: str) -> Source:
    """The tensors, without values, and the config that transformers' conversion script builds for a size."""
    transformers = pytest.importorskip("transformers")
    width, depth, heads, taps = DINOV2[size]
    encoder = transformers.Dinov2Config(
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        image_size=518,
        patch_size=14,
        out_indices=taps,
        apply_layernorm=False,
        reshape_hidden_states=False,
        use_swiglu_ffn=size == "giant",
    )
    config = transformers.DPTConfig(
        backbone_config=encoder,
        neck_hidden_sizes=[width // 8, width // 4, width // 2, width],
        use_bias_in_fusion_residual=False,
        add_projection=True,
    )
    with torch.device("meta"):
        state = transformers.DPTForDepthEstimation(config).state_dict()
    return Source("weights", state, {"config.json": json.loads(config.to_json_string())})


def test_key_lists__are_there_for_every_row_but_dpt_on_dinov2() -> None:
    missing = {row.name for row in ROWS} - {row.name for row in WITH_KEYS}

    assert [name for name in missing if not name.startswith("dpt-dinov2-")] == []


@pytest.mark.parametrize("row", WITH_KEYS, ids=by_name)
def test_row__becomes_its_preset_under_any_file_name(row: Published) -> None:
    """The options of a row must suffice: a file in a cache does not have its published name."""
    options = dict(row.import_options)
    importer = options.pop("as_source")
    name = key_list(row)
    assert name is not None
    preset = PRESETS[row.preset]
    source = replace(meta_source(name), overrides=ImportOverrides.parse(options), file_name="weights")
    if importer == "segmenter":
        source = replace(source, side={"variant.yml": {"inference_kwargs": {"im_size": preset.protocol["base"][1]}}})

    bundle = build(importer, IMPORTERS[importer], source).bundle

    wanted = ModelConfig.parse(preset.model)
    (head,) = wanted.heads
    built = bundle.model.config
    ignored = {"drop_path": None}  # of training, which weights do not tell
    if importer == "transformers":
        ignored |= {"norm_eps": None, "stem": None}  # where transformers has other epsilons
    assert built.encoder.plain() | ignored == wanted.encoder.plain() | ignored
    assert built.heads[head].out_channels == wanted.heads[head].out_channels
    assert built.head_taps(head) == wanted.head_taps(head)
    assert bundle.tasks[head].kind == preset.task
    if importer != "transformers":  # whose processors resize in a way of their own
        assert bundle.protocol is not None
        assert bundle.protocol.plain() == parse_protocol(preset.protocol).plain()
    if preset.task == "depth":
        facts = [fact for fact in ("quantity", "max_depth_m", "canonical_focal_px") if fact in preset.task_facts]
        task = bundle.tasks[head].plain()
        assert [task[fact] for fact in facts] == [preset.task_facts[fact] for fact in facts]
    else:
        assert "class 0" not in bundle.tasks[head].plain()["classes"]  # the data set's own names


@pytest.mark.parametrize(
    ("preset", "data", "metrics"),
    [
        ("dpt-large-ade20k", "ADE20K", {"ADE20K mIoU": 0.4763, "ADE20K aAcc": 0.827}),
        ("dpt-large-depth", "", {"DIW WHDR": 0.1082, "ETH3D AbsRel": 0.089}),
        ("depth-anything-s", "", {"DA-2K": 0.953}),
    ],
)
def test_metrics__are_those_of_the_preset(preset: str, data: str, metrics: dict[str, float]) -> None:
    assert metrics.items() <= metrics_of(preset, data).items()


@pytest.mark.parametrize(
    ("preset", "words"),
    [
        (
            "setr-pup-l-ade20k",
            "image resized to sides of at most 512 and 2048, windows of 512 x 512, stride 341",
        ),
        ("dpt-mmseg-base-ade20k", "whole image resized to sides of at most 512 and 2048"),
        ("dinov2-small-ade20k-linear", "image resized to a short side of 512, windows of 512 x 512, stride 341"),
        ("dinov2-small-nyu-dpt", "whole image not resized"),
        ("depth-anything-3-mono-large", "whole image resized to a long side of 504, sides multiples of 14"),
        ("dpt-hybrid-kitti", "whole image resized to 352 x 1216, sides multiples of 32"),
    ],
)
def test_protocol__is_that_of_the_preset(preset: str, words: str) -> None:
    assert protocol_of(preset) == words
