"""Floating-point operations of a prediction, counted by torch as it runs; a multiply-add counts as two."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Shapes (B, heads, N, C) of queries, keys and values -> both products."""
    batch, heads, n, dim = query
    return int(2 * batch * heads * n * key[-2] * (dim + value[-1]))


_MAPPING = {
    operator: _attention
    for name in ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_fused_attention_overrideable")
    if (operator := getattr(torch.ops.aten, name, None)) is not None
}


def count_flops(call: Callable[[], object]) -> int:
    """Matrix products, convolutions and attention of everything that a call runs in eager torch.

    What runs outside torch's operators (a compiled graph, another runtime) is not seen; norms, activations and
    resizing do not count, as in the papers.
    """
    with FlopCounterMode(display=False, custom_mapping=_MAPPING) as counter:
        call()
    return int(counter.get_total_flops())
