"""The pre-norm transformer block, shared by the encoder and by Segmenter's mask transformer.

Source: Dosovitskiy et al. 2021, section 3.1; LayerScale: Touvron et al. 2021 (CaiT); rotary embedding: Su et al. 2021.
"""

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels import block_inference
from densevit.kernels.activations import ACTIVATIONS as ACTIVATIONS
from densevit.kernels.activations import Activation as Activation
from densevit.kernels.attention import attend
from densevit.kernels.cpu_training.block_autograd import attention_branch, can_fuse, mlp_branch
from densevit.kernels.dispatch import hooked
from densevit.kernels.linear import Linear
from densevit.kernels.mixed_attention import QueryKeyType, attend_mixed

MlpKind = Literal["mlp", "swiglu"]


class Rotation:
    """Angles of a rotary position embedding for the patch tokens of one grid.

    Attributes:
        sin, cos: (N, C / heads), or (B, 1, N, C / heads) where samples differ, for the last N tokens of a sequence;
            prefix tokens are not rotated.
        neighbours: whether channels 2i and 2i + 1 are rotated together, instead of i and i + C / heads / 2.
    """

    def __init__(self, sin: Tensor, cos: Tensor, *, neighbours: bool = False) -> None:
        self.sin, self.cos, self.neighbours = sin, cos, neighbours

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate the patches' queries or keys in (B, heads, P + N, C / heads)."""
        num_prefix = x.shape[2] - self.sin.shape[-2]
        prefix, patches = x[:, :, :num_prefix], x[:, :, num_prefix:]
        if self.neighbours:
            perpendicular = torch.stack((-patches[..., 1::2], patches[..., ::2]), dim=-1).flatten(-2)
        else:
            first, second = patches.chunk(2, dim=-1)
            perpendicular = torch.cat((-second, first), dim=-1)
        rotated = patches * self.cos.to(x.dtype) + perpendicular * self.sin.to(x.dtype)
        return torch.cat((prefix, rotated), dim=2)


class Attention(nn.Module):
    """Multi-head self-attention; logits are scaled by (C / heads) ** -0.5.

    Attributes:
        norm: of the mixed values, before the projection; the identity in most models.
        precision: of the products in float32 inference where ``attend_mixed`` applies; elsewhere they stay float32.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        norm_eps: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        """``norm_eps`` of the inner norm; none without one."""
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.precision: Literal["float32"] | QueryKeyType = "float32"
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(dim, eps=norm_eps)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, rotation: Rotation | None = None, bias: Tensor | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C); ``bias`` is added to the logits and broadcasts to (B, heads, T, T)."""
        x = self.proj(self.mix(self.qkv(x), rotation, bias))  # (B, T, C)
        return F.dropout(x, self.dropout, self.training)

    def mix(self, qkv: Tensor, rotation: Rotation | None = None, bias: Tensor | None = None) -> Tensor:
        """Queries, keys and values (B, T, 3 C) -> the values mixed by attention, normalised, (B, T, C)."""
        heads = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, T, C / heads)
        q, k, v = heads.unbind(0)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        dropout = self.dropout if self.training else 0.0
        mixed = self._kernel(q, k, v) if bias is None and not dropout else None
        if mixed is None:
            per_head = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
            mixed = per_head.transpose(1, 2).flatten(2)
        return self.norm(mixed)

    def _kernel(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
        """(B, heads, T, C / heads) each -> (B, T, C), or None where torch's operator is to be used."""
        mixed = None if self.precision == "float32" else attend_mixed(q, k, v, self.precision)
        return attend(q, k, v) if mixed is None else mixed


class Mlp(nn.Module):
    """Linear, activation, linear."""

    def __init__(self, dim: int, hidden_dim: int, *, activation: Activation = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)
        self.activation_name: Activation = activation
        self.activation = ACTIVATIONS[activation]
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        # Only our own Linear can include the activation: an adapter cannot, and a hook expects what precedes it.
        plain = type(self.fc1) is Linear and not hooked(self.fc1)
        x = self.fc1(x, activation=self.activation_name) if plain else self.activation(self.fc1(x))
        x = F.dropout(x, self.dropout, self.training)
        return F.dropout(self.fc2(x), self.dropout, self.training)


class Swiglu(nn.Module):
    """SwiGLU feed-forward (Shazeer 2020): silu(gate) * value; gate and value come from one projection, gate first."""

    def __init__(self, dim: int, hidden_dim: int, *, norm_eps: float | None = None, dropout: float = 0.0) -> None:
        """``norm_eps`` of a norm before the last layer; none without one."""
        super().__init__()
        self.fc1 = Linear(dim, 2 * hidden_dim)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(hidden_dim, eps=norm_eps)
        self.fc2 = Linear(hidden_dim, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        gate, value = self.fc1(x).chunk(2, dim=-1)
        x = self.norm(F.dropout(F.silu(gate) * value, self.dropout, self.training))
        return F.dropout(self.fc2(x), self.dropout, self.training)


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return x * self.gamma


class DropPath(nn.Module):
    """Drops a residual branch for whole samples with the given probability (Huang et al. 2016)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C), rescaled to keep the expectation."""
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        return x * (torch.rand(x.shape[0], 1, 1, device=x.device) < keep).to(x.dtype) / keep


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_hidden_dim: int,
        mlp: MlpKind = "mlp",
        activation: Activation = "gelu",
        norm_eps: float = 1e-6,
        qkv_bias: bool = True,
        attn_norm: bool = False,
        mlp_norm: bool = False,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        attn_eps, mlp_eps = (norm_eps if inner else None for inner in (attn_norm, mlp_norm))
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, norm_eps=attn_eps, dropout=dropout)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = (
            Mlp(dim, mlp_hidden_dim, activation=activation, dropout=dropout)
            if mlp == "mlp"
            else Swiglu(dim, mlp_hidden_dim, norm_eps=mlp_eps, dropout=dropout)
        )
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self._feed_forward(self.attend(x, rotation), in_place=True)

    def attend(self, x: Tensor, rotation: Rotation | None = None, bias: Tensor | None = None) -> Tensor:
        """The first half: x + attention(norm(x)); ``bias`` as in ``Attention``."""
        attn = self.attn
        plain = type(attn) is Attention and not hooked(attn) and not (self.training and attn.dropout)
        if plain and self._plain_ending(self.ls1) and block_inference.can_fuse(x, self.norm1, attn.qkv, attn.proj):
            mix = partial(attn.mix, rotation=rotation, bias=bias)
            return block_inference.attention_branch(x, self.norm1, attn.qkv, mix, attn.proj, _gamma(self.ls1))
        bare = rotation is None and bias is None and isinstance(attn.norm, nn.Identity)
        if plain and bare and can_fuse(x, self.norm1, attn.qkv, attn.proj):
            branch = attention_branch(x, self.norm1, attn.qkv, attn.proj, attn.num_heads)
        else:
            branch = attn(self.norm1(x), rotation, bias)
        return x + self.drop_path(self.ls1(branch))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half: x + feed-forward(norm(x))."""
        return self._feed_forward(x, in_place=False)

    def _feed_forward(self, x: Tensor, *, in_place: bool) -> Tensor:
        """``in_place`` where x is a tensor that nobody else has."""
        mlp = self.mlp
        if type(mlp) is Mlp and not hooked(mlp) and not (self.training and mlp.dropout):
            layers = (self.norm2, mlp.fc1, mlp.fc2)
            if self._plain_ending(self.ls2) and block_inference.can_fuse(x, *layers):
                return block_inference.mlp_branch(
                    x, self.norm2, mlp.fc1, mlp.activation_name, mlp.fc2, _gamma(self.ls2), in_place=in_place
                )
            if mlp.activation is F.gelu and can_fuse(x, *layers):
                return x + self.drop_path(self.ls2(mlp_branch(x, *layers)))
        return x + self.drop_path(self.ls2(mlp(self.norm2(x))))

    def _plain_ending(self, scale: nn.Module) -> bool:
        """Whether a branch ends with at most a factor per channel."""
        drops = self.training and self.drop_path.probability
        known = type(scale) in (LayerScale, nn.Identity)
        return known and not drops and not hooked(scale) and not hooked(self.drop_path)


def _gamma(scale: nn.Module) -> Tensor | None:
    return scale.gamma if isinstance(scale, LayerScale) else None
