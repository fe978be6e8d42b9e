"""DPT: the release of its authors, their conversions for transformers, and DPT on DINOv2."""

from typing import Any

from densevit.checkpoints.published.measured import metrics_of, protocol_of
from densevit.checkpoints.published.row import Origin, Published, TaskKind

_RELEASE = "https://github.com/isl-org/DPT/releases/download/1_0/"
_MIDAS = "https://github.com/isl-org/MiDaS/releases/download/v3/"
_NAMED = "name of the release's file"
_IN_FULL = f"{_NAMED}; in full in public install scripts that check it, which all agree"

# Weights of the hub's repositories are one of these; safetensors first, because it cannot hold code.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_HUB_SIDE_FILES = ("config.json", "preprocessor_config.json")


def _released(preset: str, file: str, data: str, metrics_source: str, *aliases: str, **options: Any) -> Published:
    """A row of the authors' release; ``file`` ends in the first digits of its hash."""
    return Published(
        name=preset,
        preset=preset,
        family="DPT",
        task=_task(preset),
        sources=_sources(file),
        licence="MIT",
        licence_of_code="MIT",
        licence_source="isl-org/DPT, README.md and LICENSE",
        source_config=file.rpartition("-")[0],
        protocol=f"{data or 'zero-shot, aligned by scale and shift'}: {protocol_of(preset)}",
        metrics=metrics_of(preset, data.partition(" ")[0]),
        metrics_source=metrics_source,
        aliases=aliases,
        import_options={"as_source": "dpt", **options},
    )


def _sources(file: str) -> tuple[Origin, ...]:
    prefix = file[-8:]
    sha256 = _HASHES.get(prefix)
    facts: dict[str, Any] = {"sha256": sha256, "sha256_prefix": prefix, "hash_source": _IN_FULL if sha256 else _NAMED}
    facts["bytes"] = _SIZES.get(prefix)
    mirrors = [_MIDAS + name for name in _MIRRORS.get(prefix, ())]
    return tuple(Origin(url=url, **facts) for url in (f"{_RELEASE}{file}.pt", *mirrors))


# By the digits in the file's name.
_HASHES = {
    "2f21e586": "2f21e586477d90cb9624c7eef5df7891edca49a1c4795ee2cb631fd4daa6ca69",
    "501f0c75": "501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853",
}
_SIZES = {"2f21e586": 1_376_378_527}
_MIRRORS = {"2f21e586": ("dpt_large_384.pt",)}  # the same bytes: scripts that check it name the same hash


def _on_hub(
    name: str, repo: str, preset: str, licence_source: str, metrics_source: str, data: str = "", **options: Any
) -> Published:
    """A row of the authors' conversion for transformers."""
    return Published(
        name=name,
        preset=preset,
        family="DPT",
        task=_task(preset),
        sources=_hub_sources(repo),
        licence="Apache-2.0",
        licence_of_code="Apache-2.0",
        licence_source=licence_source,
        source_config=repo,
        protocol=f"{data or 'zero-shot, aligned by scale and shift'}: as the release by its authors",
        metrics=metrics_of(preset, data.partition(" ")[0]),
        metrics_source=metrics_source,
        import_options={"as_source": "transformers", **options},
    )


def _hub_sources(repo: str) -> tuple[Origin, ...]:
    return tuple(Origin(repo=repo, file=file, side_files=_HUB_SIDE_FILES) for file in _HUB_FILES)


def _task(preset: str) -> TaskKind:
    return "segmentation" if preset.endswith("ade20k") else "depth"


def _on_dinov2(size: str, release: str) -> Published:
    """A row of DINOv2 and DPT for metres, trained on one data set."""
    name = f"dpt-dinov2-{size}-{release}"
    data = {"nyu": "NYUv2 test", "kitti": "KITTI Eigen test"}[release]
    return Published(
        name=name,
        preset=name,
        family="DPT",
        task="depth",
        sources=_hub_sources(f"facebook/{name}"),
        licence="Apache-2.0",
        licence_of_code="Apache-2.0",
        licence_source="facebookresearch/dinov2, README.md, section License",
        source_config=f"facebook/{name}",
        protocol=f"{data}: {protocol_of(name)}",
        metrics=metrics_of(name, data.partition(" ")[0]),
        metrics_source="arXiv:2304.07193, table 11; not compared with the paper again",
        import_options={"as_source": "transformers", "release": release},
    )


_CARD = "the repository's model card"
_TABLE = "arXiv:2103.13413, table 1, and the model card of Intel/dpt-large"
_EVALUATION = "isl-org/DPT, EVALUATION.md"

DPT: tuple[Published, ...] = (
    _released(
        "dpt-large-ade20k",
        "dpt_large-ade20k-b12dca68",
        "ADE20K validation",
        "arXiv:2103.13413, table 4",
        dataset="ade20k",
    ),
    _released(
        "dpt-hybrid-ade20k",
        "dpt_hybrid-ade20k-53898607",
        "ADE20K validation",
        "arXiv:2103.13413, table 4",
        dataset="ade20k",
    ),
    _released("dpt-large-depth", "dpt_large-midas-2f21e586", "", _TABLE, "dpt-large-midas", release="midas"),
    _released("dpt-hybrid-depth", "dpt_hybrid-midas-501f0c75", "", _TABLE, "dpt-hybrid-midas", release="midas"),
    _released("dpt-hybrid-kitti", "dpt_hybrid_kitti-cb926ef4", "KITTI Eigen test", _EVALUATION, release="kitti"),
    _released("dpt-hybrid-nyu", "dpt_hybrid_nyu-2ce69ec7", "NYUv2 test", _EVALUATION, release="nyu"),
    _on_hub("intel-dpt-large", "Intel/dpt-large", "dpt-large-depth", _CARD, _TABLE),
    _on_hub("intel-dpt-hybrid-midas", "Intel/dpt-hybrid-midas", "dpt-hybrid-depth", _CARD, _TABLE),
    _on_hub(
        "intel-dpt-large-ade",
        "Intel/dpt-large-ade",
        "dpt-large-ade20k",
        _CARD,
        "arXiv:2103.13413, table 4",
        "ADE20K validation",
        dataset="ade20k",
    ),
    *(_on_dinov2(size, release) for size in ("small", "base", "large", "giant") for release in ("nyu", "kitti")),
)
