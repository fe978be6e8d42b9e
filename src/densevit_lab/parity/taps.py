"""Our tensor for the name that a fixture gives to an intermediate one."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from densevit.decoders.setr import SetrMla
from densevit.encoder.positions import LearnedPositions, positions_for
from densevit.model import DenseModel
from densevit.types import Taps


@contextmanager
def recorded(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the output of every module that runs inside the block, by the module's name."""
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in model.named_modules()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class TensorFinder:
    """Finds our tensor for a name.

    Attributes:
        model: the model that ran.
        origin: key of ``IMPORTERS``.
        head: of the model.
        taps: of its encoder.
        outputs: of its modules, by name.
        out_indices: of the backbone, for mmsegmentation.
    """

    model: DenseModel
    origin: str
    head: str
    taps: Taps
    outputs: Mapping[str, Tensor]
    out_indices: tuple[int, ...] = ()

    def find(self, name: str) -> Tensor:
        """Our tensor.

        Raises:
            KeyError: if the name is unknown, or our model lacks the module.
        """
        for pattern, method in self._PATTERNS.items():
            if match := re.fullmatch(pattern, name):
                tensor: Tensor = method(self, *match.groups())
                return tensor
        raise KeyError(name)

    def _module(self, name: str) -> Tensor:
        return self.outputs[f"heads.{self.head}.{name}"]

    def _full(self, position: int) -> Tensor:
        """Prefix and patch tokens of a tap, (B, P + N, C)."""
        return torch.cat((self.taps.prefix[position], self.taps.tokens[position]), dim=1)

    def _encoder(self, number: str) -> Tensor:
        """DPT's four levels: maps of the stem, then token sequences; counted from 1 by the authors."""
        index = int(number) - (self.origin == "dpt")
        stems = len(self.taps.stem_maps)
        return self.taps.stem_maps[index] if index < stems else self._full(index - stems)

    def _backbone(self, number: str, part: str | None) -> Tensor:
        index = int(number)
        if self.origin == "setr":  # MLA's pyramid is part of the backbone there
            is_mla = isinstance(self.model.heads[self.head], SetrMla)
            return self._module(f"smooths.{index}") if is_mla else self.outputs[f"encoder.blocks.{index}"]
        tap = self.model.config.encoder.taps.index(self.out_indices[index])
        return self.taps.prefix[tap][:, 0] if part == "cls" else self.taps.maps()[tap]

    def _positions(self) -> Tensor:
        rule = self.model.config.encoder.positions
        assert isinstance(rule, LearnedPositions)
        prefix, grid = self.model.encoder.pos_embed.split([rule.num_prefix, rule.grid[0] * rule.grid[1]], dim=1)
        resized = positions_for(grid, rule, self.taps.grid)
        return torch.cat((prefix, resized), dim=1)

    # The lists of mmsegmentation's neck and of transformers' fusion begin with the deepest of four.
    _PATTERNS: ClassVar[Mapping[str, Any]] = {
        r"encoder(\d)": _encoder,
        r"backbone(\d+)(?:\.(cls|patch))?": _backbone,
        r"neck(\d)": lambda self, k: self._module(f"smooths.{3 - int(k)}"),
        r"cls(\d)": lambda self, k: self.taps.prefix[int(k)][:, 0],
        r"patch(\d)": lambda self, k: self.taps.tokens[int(k)],
        r"fused(\d)": lambda self, k: self._module(f"fusions.{3 - int(k)}"),
        r"path_(\d)": lambda self, k: self._module(f"fusions.{int(k) - 1}"),
        r"layer(\d)_rn": lambda self, k: self._module(f"convs.{int(k) - 1}"),
        r"enc_block(\d+)": lambda self, k: self.outputs[f"encoder.blocks.{k}"],
        r"dec_block(\d+)": lambda self, k: self._module(f"blocks.{k}"),
        r"patch_embed": lambda self: self.outputs["encoder.patch_embed"].flatten(2).transpose(1, 2),
        r"enc_norm": lambda self: self.outputs["encoder.norm"],
        r"decoder_norm": lambda self: self._module("norm"),
        r"posembed": _positions,
    }
