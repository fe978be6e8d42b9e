"""The arithmetic of the Segmenter authors' program, reimplemented from its description, so that it runs with any torch.

Its costs are kept: attention as two products with a softmax between them; logits of every window at the window's size,
collected, then added into one zero-filled map at the image's size; a resize to the photo, a softmax, an arg max.
Source: Strudel et al., Segmenter, ICCV 2021, and the key names and rules of their released program.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from densevit.checkpoints.native import Bundle
from densevit.encoder.config import NAMED_SIZES, Width
from densevit.io import read_image
from densevit.types import Size
from densevit_lab.benchmark.peers import Peer, fill, import_bundle

PATCH, MEAN, STD = 16, 0.5, 0.5
BATCH = 2
"""Windows at a time: the default of the authors' inference function."""


def build(*, width: Width, num_classes: int, window: int, stride: int) -> Peer:
    """Segmenter with the mask transformer."""
    grid = (window // PATCH, window // PATCH)
    model = SegmenterModel(**NAMED_SIZES[width], num_classes=num_classes, grid=grid)
    fill(model)
    model.eval()

    @torch.no_grad()
    def predict(image: Path) -> NDArray[Any]:
        pixels = torch.from_numpy(read_image(image)).permute(2, 0, 1).float() / 255
        normalised = (pixels - MEAN) / STD
        scores = _inference(model, normalised[None], (pixels.shape[1], pixels.shape[2]), window, stride)
        labels: NDArray[Any] = scores.argmax(0).numpy()
        return labels

    def bundle() -> Bundle:
        net = {"n_heads": NAMED_SIZES[width]["num_heads"], "normalization": "vit", "image_size": [window, window]}
        variant = {"dataset_kwargs": {"crop_size": window}, "net_kwargs": net}
        imported = import_bundle("segmenter", "segmenter", model.state_dict(), {"variant.yml": variant})
        assert imported.protocol is not None
        return replace(imported, protocol=imported.protocol.model_copy(update={"stride": (stride, stride)}))

    return Peer(predict, bundle)


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, n, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, n, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)  # (B, heads, N, N)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, n, dim))


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = _Attention(dim, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class _Encoder(nn.Module):
    def __init__(self, dim: int, depth: int, heads: int, grid: Size) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, PATCH, stride=PATCH)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], dim))
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _MaskDecoder(nn.Module):
    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.proj_dec = nn.Linear(dim, dim)
        self.cls_emb = nn.Parameter(torch.zeros(1, num_classes, dim))
        self.blocks = nn.ModuleList(_Block(dim, dim // 64) for _ in range(2))
        self.decoder_norm = nn.LayerNorm(dim)
        self.proj_patch = nn.Parameter(torch.zeros(dim, dim))
        self.proj_classes = nn.Parameter(torch.zeros(dim, dim))
        self.mask_norm = nn.LayerNorm(num_classes)

    def forward(self, tokens: Tensor, rows: int) -> Tensor:
        num_classes = self.cls_emb.shape[1]
        x = torch.cat([self.proj_dec(tokens), self.cls_emb.expand(len(tokens), -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_norm(x)
        patches, classes = x[:, :-num_classes] @ self.proj_patch, x[:, -num_classes:] @ self.proj_classes
        patches = patches / patches.norm(dim=-1, keepdim=True)
        classes = classes / classes.norm(dim=-1, keepdim=True)
        masks = self.mask_norm(patches @ classes.transpose(1, 2))  # (B, N, K)
        return masks.transpose(1, 2).reshape(len(masks), num_classes, rows, -1)


class SegmenterModel(nn.Module):
    """Images (B, 3, H, W) -> logits (B, K, H, W), for a grid of patches."""

    def __init__(self, *, embed_dim: int, depth: int, num_heads: int, num_classes: int, grid: Size) -> None:
        super().__init__()
        self.encoder = _Encoder(embed_dim, depth, num_heads, grid)
        self.decoder = _MaskDecoder(embed_dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        height, width = images.shape[-2:]
        tokens = self.encoder(images)[:, 1:]
        masks = self.decoder(tokens, height // PATCH)
        return F.interpolate(masks, size=(height, width), mode="bilinear")


def _inference(model: SegmenterModel, image: Tensor, photo: Size, window: int, stride: int) -> Tensor:
    """Normalised image (1, 3, h, w) -> class scores (K, *photo); the windows of ``stride``, the last at the border."""
    height, width = image.shape[-2:]
    corners = [(y, x) for y in _starts(height, window, stride) for x in _starts(width, window, stride)]
    crops = torch.cat([image[..., y : y + window, x : x + window] for y, x in corners])
    num_classes = model.decoder.cls_emb.shape[1]
    logits = image.new_zeros(len(crops), num_classes, window, window)
    for start in range(0, len(crops), BATCH):
        logits[start : start + BATCH] = model(crops[start : start + BATCH])
    total, visits = image.new_zeros(num_classes, height, width), image.new_zeros(1, height, width)
    for values, (y, x) in zip(logits, corners, strict=True):
        total[:, y : y + window, x : x + window] += values
        visits[:, y : y + window, x : x + window] += 1
    resized = F.interpolate((total / visits)[None], size=photo, mode="bilinear")[0]
    return resized.softmax(dim=0)


def _starts(length: int, window: int, stride: int) -> list[int]:
    return [*range(0, length - window, stride), length - window]
