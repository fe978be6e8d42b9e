"""Depth Anything V1, V2 and 3, relative and metric, in the files of its authors on the hub."""

from densevit.checkpoints.published.measured import metrics_of, protocol_of
from densevit.checkpoints.published.row import Origin, Published

_V1 = "https://huggingface.co/spaces/LiheYoung/Depth-Anything/resolve/main/checkpoints/"
_LETTERS = {"small": "s", "base": "b", "large": "l"}
_CODE = "Apache-2.0"

_V1_HASHES = "a public Nix package of comfyui_controlnet_aux, which downloads it from the same address"
_V1_SIZE = "; size: a public script that checks the files of MegaSaM, which has the same hash"
_V2_HASHES = "datamarkin/mozo, tools/fetch/depth_anything_v2.py, from the hub's API"
_V2_REVISIONS = "size and revision: capsuleutkarsh-design/UTVFX_AI_VFX_Suit, first_setup.py, which has the same hash"
_BY_SIZE = "DepthAnything/Depth-Anything-V2, README.md: Small is Apache-2.0; Base, Large and Giant are CC-BY-NC-4.0"
_METRIC_BY_SIZE = f"{_BY_SIZE}; the metric files state none of their own"


def _v1(size: str, sha256: str, num_bytes: int | None = None) -> Published:
    name = f"depth-anything-v1-{size}"
    return Published(
        name=name,
        preset=name,
        family="Depth Anything",
        task="depth",
        sources=(
            Origin(
                url=f"{_V1}depth_anything_vit{_LETTERS[size]}14.pth",
                bytes=num_bytes,
                sha256=sha256,
                hash_source=_V1_HASHES + (_V1_SIZE if num_bytes else ""),
            ),
        ),
        licence="Apache-2.0",
        licence_of_code=_CODE,
        licence_source="LiheYoung/Depth-Anything, issue 15, where its first author says so",
        source_config=f"vit{_LETTERS[size]}",
        protocol=f"zero-shot, aligned by scale and shift: {protocol_of(name)}",
        metrics=metrics_of(name),
        metrics_source="LiheYoung/Depth-Anything, README.md",
        import_options={"as_source": "depth_anything", "release": "v1"},
    )


def _v2(size: str, sha256: str, num_bytes: int, revision: str, release: str = "v2") -> Published:
    """A row of V2: relative depth, or metres up to 20 (Hypersim) or 80 (Virtual KITTI)."""
    letter, title = _LETTERS[size], size.capitalize()
    repo = f"depth-anything/Depth-Anything-V2-{_REPOSITORIES[release]}{title}"
    name = f"depth-anything-v2-{_NAMES[release]}{size}"
    preset = f"depth-anything-{letter}" if release == "v2" else name
    kind = "" if release == "v2" else f"metric_{release}_"
    origin = Origin(
        repo=repo,
        file=f"depth_anything_v2_{kind}vit{letter}.pth",
        revision=revision,
        bytes=num_bytes,
        sha256=sha256,
        hash_source=f"{_V2_HASHES}; {_V2_REVISIONS}",
    )
    relative = release == "v2"
    return Published(
        name=name,
        preset=preset,
        family="Depth Anything",
        task="depth",
        sources=(origin,),
        licence="Apache-2.0" if size == "small" else "CC-BY-NC-4.0",
        licence_of_code=_CODE,
        licence_source=_BY_SIZE if relative else _METRIC_BY_SIZE,
        source_config=f"vit{letter}" if relative else f"vit{letter}, {release}",
        protocol=f"{'DA-2K, pairs of points: ' if relative else ''}{protocol_of(preset)}",
        metrics=metrics_of(preset),
        metrics_source="arXiv:2406.09414, table 3" if relative else "none is published for these files",
        import_options={"as_source": "depth_anything", "release": release},
    )


def _v3(release: str, meaning: str, sha256: str, num_bytes: int | None, revision: str, hash_source: str) -> Published:
    """A row of version 3 for single photos."""
    name = f"depth-anything-3-{release}-large"
    origin = Origin(
        repo=f"depth-anything/DA3{release.upper()}-LARGE",
        file="model.safetensors",
        revision=revision,
        side_files=("config.json",),
        bytes=num_bytes,
        sha256=sha256,
        hash_source=hash_source,
    )
    return Published(
        name=name,
        preset=name,
        family="Depth Anything",
        task="depth",
        sources=(origin,),
        licence="Apache-2.0",
        licence_of_code="Apache-2.0",
        licence_source="ByteDance-Seed/Depth-Anything-3, README.md, section Model Cards",
        source_config=f"da3{release}-large",
        protocol=f"{protocol_of(name)}; {meaning}; the sky is not filled in",
        metrics={},
        metrics_source="none is published for this file",
        aliases=(f"da3{release}-large",),
        import_options={"as_source": "depth_anything_3", "release": release},
    )


_FOCAL = "metres for a focal length of 300 pixels in the resized image; for others, multiply by focal length / 300"
_V3_PINS = "public code that pins this revision and checks the hash"

_REPOSITORIES = {"v2": "", "hypersim": "Metric-Hypersim-", "vkitti": "Metric-VKITTI-"}
_NAMES = {"v2": "", "hypersim": "metric-indoor-", "vkitti": "metric-outdoor-"}

DEPTH_ANYTHING: tuple[Published, ...] = (
    _v2(
        "small",
        "715fade13be8f229f8a70cc02066f656f2423a59effd0579197bbf57860e1378",
        99_218_434,
        "03876f8651c73a60fe4c2c48294e09fcb6838fcf",
    ),
    _v2(
        "base",
        "0d2b7002e62d39d655571c371333340bd88f67ab95050c03591555aa05645328",
        389_961_218,
        "a4e71a6c2ce52fe50df0f212066b0d4a87be9b5e",
    ),
    _v2(
        "large",
        "a7ea19fa0ed99244e67b624c72b8580b7e9553043245905be58796a608eb9345",
        1_341_395_338,
        "cbbb86a30ce19b5684b7a05155dc7e6cbc7685b9",
    ),
    _v2(
        "small",
        "b782898d8a3e8be1f639de33837ed85e9b4b73e40f8f5e5cd99067588d722545",
        99_222_290,
        "3bc65d4e14a6786a61acec16453c50e12bf5f338",
        "hypersim",
    ),
    _v2(
        "base",
        "9dc9e274c5eff55c6daf27b660c0ced0eca4e8593a6da90cdcb04d2b4d3f3fa2",
        389_965_138,
        "4ebcd7fd0858cbb953451619ca943ea39ec08e00",
        "hypersim",
    ),
    _v2(
        "large",
        "6f82ff2bc543ac02ddff4aa31fa363676a8305dd3ccf04e80e2af115a044cb6d",
        1_341_401_882,
        "79720800638389a78b2defc92caa885104f69974",
        "hypersim",
    ),
    _v2(
        "small",
        "9203e538d35255c90dda4b7fedb47ff33fe725497bcca3b1e53b3a65ee63f0cb",
        99_221_808,
        "c725b8589bdf6ab04072cab74c0467830db80d6d",
        "vkitti",
    ),
    _v2(
        "base",
        "4dad67a7cc10b462bca48e6b8569c762b8eb3c1adada170a3851a6d3ba37bb3e",
        389_964_656,
        "e96fd0c8cedf1825a55b9c61309f754982948df0",
        "vkitti",
    ),
    _v2(
        "large",
        "239b1054a369e66da2576e9a118d6d7c12d90dc8ebe609579a9a09cd8e05fe38",
        1_341_401_064,
        "070e97e4b80e317ec1d03c19927304f4091a180b",
        "vkitti",
    ),
    _v3(
        "mono",
        "relative depth, up to a factor and an offset",
        "7a799a7f95eb8d4c404c2ca8be3dc3276b350a417ddc4420db72ba850cc0e960",
        None,
        "f465978e618db8cc79c83b8bbf24964857db1875",
        f"{_V3_PINS}: DepthWizard",
    ),
    _v3(
        "metric",
        _FOCAL,
        "bbea5b0b3ee389849cffa7ddae89de064a90abd2b055fc5aa99aac68db324776",
        1_336_734_448,
        "4010e39f3634a45bc60553321fb49fb760bd594e",
        f"{_V3_PINS}: PanorAi, and others with the same hash",
    ),
    _v1("small", "59afe57cfd9f4284deaf5b753d954723d7136ae842fba3e068ba03537ca1e60e"),
    _v1("base", "64ae214ae4e27424b644c49464c0aa243016f6f753d95097c8eb9ad0b9cb2d9b"),
    _v1("large", "6c6a383e33e51c5fdfbf31e7ebcda943973a9e6a1cbef1564afe58d7f2e8fe63", 1_341_401_882),
)
