"""Builders of tiny encoders and models, and the table of decoder variants that the contract tests go through."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from densevit.checkpoints.hub import DEFAULT
from densevit.checkpoints.native import Bundle, read_header, save_bundle
from densevit.decoders import DecoderConfig, parse_decoder
from densevit.encoder import EncoderConfig
from densevit.model import DenseModel, ModelConfig
from densevit.types import Size

Prefix = Literal["none", "cls", "cls+dist", "cls+reg"]

PREFIXES: dict[Prefix, dict[str, Any]] = {
    "none": {"cls_token": False},
    "cls": {"cls_token": True},
    "cls+dist": {"cls_token": True, "dist_token": True},
    "cls+reg": {"cls_token": True, "num_registers": 3},
}

NUM_PLACED: dict[Prefix, int] = {"none": 0, "cls": 1, "cls+dist": 2, "cls+reg": 1}
"""Prefix tokens that have a position embedding; registers have none."""

STEM = {"layers": (1, 1, 1), "channels": (128, 128, 128), "stem_channels": 32}
"""The smallest hybrid stem: group norm wants multiples of 32 at a quarter of each width."""


def tiny_encoder(
    *, patch_size: int = 16, prefix: Prefix = "cls", taps: tuple[int, ...] = (0, 1, 2, 3), **facts: object
) -> EncoderConfig:
    """A ViT of width 32 whose positions are stored for a 3 x 3 grid, so that most images resample them."""
    data: dict[str, object] = {
        "embed_dim": 32,
        "depth": taps[-1] + 1,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "patch_size": patch_size,
        "positions": {"kind": "learned", "grid": (3, 3), "num_prefix": NUM_PLACED[prefix]},
        "taps": taps,
        **PREFIXES[prefix],
    }
    return EncoderConfig.parse(data | facts, source="tiny encoder")


EVA: dict[str, object] = {"coordinates": "indices", "base": 1e4, "stretch_to": (5, 4), "pairs": "neighbours"}
"""Rotary positions that count patches, as those of EVA-02."""

PE: dict[str, object] = EVA | {"order": "xy", "index_offset": 1.0, "pairs": "halves"}


@dataclass(frozen=True)
class Variant:
    """One way to configure a decoder, and the sizes that its documentation promises.

    Attributes:
        decoder: plain config of the decoder.
        scale: of the logits' grid to the token grid; "image" for the size of the image.
        aux_scales: the same for every auxiliary output.
        even: a fusion that doubles reaches an even number of rows and columns: the token grid, rounded up.
        stem: whether the encoder has the hybrid stem.
    """

    decoder: dict[str, Any]
    scale: int | Literal["image"]
    aux_scales: tuple[int, ...] = ()
    out_channels: int = 5
    even: bool = False
    stem: bool = False

    @property
    def config(self) -> DecoderConfig:
        """The decoder's config, validated."""
        return parse_decoder(self.decoder)

    def size(self, grid: Size, patch_size: int) -> Size:
        """(h', w') of the logits."""
        if self.scale == "image":
            return grid[0] * patch_size, grid[1] * patch_size
        return self._scaled(grid, self.scale)

    def aux_sizes(self, grid: Size) -> tuple[Size, ...]:
        """(h'', w'') of the auxiliary logits."""
        return tuple(self._scaled(grid, scale) for scale in self.aux_scales)

    def _scaled(self, grid: Size, scale: int) -> Size:
        h, w = ((n + n % 2) if self.even else n for n in grid)
        return h * scale, w * scale


def _setr(kind: str, form: str, **options: object) -> dict[str, Any]:
    return {"kind": f"setr_{kind}", "form": form, "channels": 8, **options}


def _dpt(head: dict[str, object], readout: str = "ignore", **options: object) -> dict[str, Any]:
    return {
        "kind": "dpt",
        "channels": (8, 12, 16, 20),
        "fusion_channels": 8,
        "readout": readout,
        "head": head,
        **options,
    }


SEGMENT: dict[str, object] = {"kind": "segmentation"}
DEPTH: dict[str, object] = {"kind": "depth", "hidden_channels": 8}
REGRESS: dict[str, object] = {"kind": "regression", "hidden_channels": 8}
HYBRID: dict[str, Any] = {"channels": (128, 128, 16, 20), "stem_channels": (128, 128)}

VARIANTS: dict[str, Variant] = {
    "setr_naive/paper": Variant(_setr("naive", "paper"), 1),
    "setr_naive/paper+aux": Variant(_setr("naive", "paper", aux_taps=(0, 1, 2)), 1, (1, 1, 1)),
    "setr_naive/mmseg": Variant(_setr("naive", "mmseg"), 4),
    "setr_naive/mmseg+aux": Variant(_setr("naive", "mmseg", aux_taps=(0, 2)), 4, (4, 4)),
    "setr_naive/mmseg+aux of 2 convs": Variant(_setr("naive", "mmseg", aux_taps=(1,), aux_convs=2), 4, (16,)),
    "setr_pup/paper+aux": Variant(_setr("pup", "paper", aux_taps=(0, 1, 2, 3)), 16, (4, 4, 4, 4)),
    "setr_pup/mmseg": Variant(_setr("pup", "mmseg"), 16),
    "setr_pup/mmseg+aux": Variant(_setr("pup", "mmseg", aux_taps=(0, 1, 2)), 16, (16, 16, 16)),
    "setr_pup/mmseg+corners": Variant(_setr("pup", "mmseg", align_corners=True), 16),
    "setr_mla/paper": Variant(_setr("mla", "paper", head_channels=6), 4),
    "setr_mla/paper+aux": Variant(_setr("mla", "paper", head_channels=6, aux=True), 4, (1, 1, 1, 1)),
    "setr_mla/mmseg": Variant(_setr("mla", "mmseg", head_channels=6), 4),
    "setr_mla/mmseg+corners": Variant(_setr("mla", "mmseg", head_channels=6, align_corners=True), 4),
    "setr_mla/mmseg+aux": Variant(_setr("mla", "mmseg", head_channels=6, aux=True), 4, (1, 1, 1, 1)),
    "segmenter_linear": Variant({"kind": "segmenter_linear"}, 1),
    "segmenter_mask": Variant({"kind": "segmenter_mask", "num_heads": 2}, 1),
    "segmenter_mask/1 block": Variant({"kind": "segmenter_mask", "depth": 1, "drop_path": 0.2}, 1),
    "linear": Variant({"kind": "linear"}, 1),
    "linear/upsampled": Variant({"kind": "linear", "up_scale": 3}, 3),
    "linear/class token": Variant({"kind": "linear", "class_token": True}, 1),
    "linear/bins": Variant(
        {"kind": "linear", "class_token": True, "up_scale": 4, "bins": {"num_bins": 12}}, 4, out_channels=1
    ),
    "dpt/ignore, segmentation": Variant(_dpt(SEGMENT), 8),
    "dpt/ignore, depth": Variant(_dpt(DEPTH), "image", out_channels=1),
    "dpt/ignore, regression": Variant(_dpt(REGRESS), "image", out_channels=3),
    "dpt/add, segmentation": Variant(_dpt(SEGMENT, "add"), 8),
    "dpt/add, depth": Variant(_dpt(DEPTH, "add"), "image", out_channels=1),
    "dpt/add, regression": Variant(_dpt(REGRESS, "add"), "image", out_channels=3),
    "dpt/add of 2, segmentation": Variant(_dpt(SEGMENT, "add", num_readout=2), 8),
    "dpt/project, segmentation": Variant(_dpt(SEGMENT, "project"), 8),
    "dpt/project, depth": Variant(_dpt(DEPTH, "project"), "image", out_channels=1),
    "dpt/project, regression": Variant(_dpt(REGRESS, "project"), "image", out_channels=3),
    "dpt/batch norm, aux on last": Variant(_dpt(SEGMENT | {"aux": "last"}, batch_norm=True), 8, (8,)),
    "dpt/batch norm, aux on penultimate": Variant(_dpt(SEGMENT | {"aux": "penultimate"}, batch_norm=True), 8, (4,)),
    "dpt/batch norm with bias": Variant(_dpt(SEGMENT, batch_norm=True, residual_bias=True), 8),
    "dpt/coarsest unit": Variant(_dpt(SEGMENT, batch_norm=True, residual_bias=False, coarsest_unit=True), 8),
    "dpt/doubling, segmentation": Variant(_dpt(SEGMENT, fusion_up_to="double"), 8, even=True),
    "dpt/doubling, depth": Variant(
        _dpt(DEPTH | {"up_to": "double"}, fusion_up_to="double"), 16, out_channels=1, even=True
    ),
    "dpt/regression at 2 x fusion": Variant(_dpt(REGRESS | {"up_to": "double"}), 16, out_channels=3),
    "dpt/signed depth, projection": Variant(
        _dpt(DEPTH | {"activation": "none", "projection": True}), "image", out_channels=1
    ),
    "dpt/sigmoid depth": Variant(_dpt(DEPTH | {"activation": "sigmoid", "max_depth_m": 20.0}), "image", out_channels=1),
    "dpt/exponential depth": Variant(_dpt(DEPTH | {"activation": "exp"}), "image", out_channels=1),
    "dpt/bounded depth": Variant(
        _dpt(DEPTH | {"min_depth_m": 0.5, "limit_m": 5.0, "align_corners": False}), "image", out_channels=1
    ),
    "dpt/inverted depth": Variant(
        _dpt(DEPTH | {"invert": True, "scale": 0.000305, "shift": 0.1378}), "image", out_channels=1
    ),
    "dpt/pooled depth": Variant(_dpt(DEPTH, pool=2), "image", out_channels=1),
    "dpt/detail, segmentation": Variant(_dpt(SEGMENT, batch_norm=True, detail_channels=6), 8),
    "dpt/detail, depth": Variant(_dpt(DEPTH, detail_channels=6), "image", out_channels=1),
    "dpt/other factors": Variant(_dpt(SEGMENT, factors=[2, 1, 0.5, 0.25]), 4),
    "dpt/hybrid": Variant(_dpt(SEGMENT | {"aux": "last"}, "project", **HYBRID), 8, (8,), stem=True),
}


def tiny_model(
    name: str, *, patch_size: int = 16, prefix: Prefix = "cls", seed: int = 0, **facts: object
) -> DenseModel:
    """The model of a row of ``VARIANTS``, in evaluation mode; ``facts`` go to the encoder."""
    variant = VARIANTS[name]
    taps = (1, 3) if variant.stem else (0, 1, 2, 3)
    stem: dict[str, object] = {"stem": STEM} if variant.stem else {}
    encoder = tiny_encoder(patch_size=patch_size, prefix=prefix, taps=taps, **stem, **facts)
    heads = {"main": {"decoder": variant.decoder, "out_channels": variant.out_channels}}
    torch.manual_seed(seed)
    return DenseModel(ModelConfig.parse({"encoder": encoder, "heads": heads}, source=name)).eval()


def write_small_default(path: Path) -> Path:
    """The model that ships, but narrow and with random weights: its heads, tasks and sizes, a hundredth of its time."""
    header = read_header(DEFAULT)
    data = header.model.plain()
    data["encoder"] |= {"embed_dim": 16, "num_heads": 2}
    for head in data["heads"].values():
        narrow = {"channels": 8, "head_channels": 8} if head["decoder"]["kind"] == "setr_mla" else {}
        head["decoder"] |= narrow or {"channels": [8, 8, 8, 8], "fusion_channels": 8}
    torch.manual_seed(0)
    model = DenseModel(ModelConfig.parse(data, source="small default"))
    save_bundle(Bundle(model, header.tasks, header.fit, header.card), path)
    return path


def random_images(grid: Size, patch_size: int = 16, *, batch: int = 2, seed: int = 1) -> torch.Tensor:
    """Images (B, 3, h * patch_size, w * patch_size) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, grid[0] * patch_size, grid[1] * patch_size, generator=generator)
