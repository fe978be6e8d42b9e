"""Floating-point operations of a prediction, counted by torch as it runs; a multiply-add counts as two."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from densevit.kernels import attention, linear


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return attention.flops(query, key, value)


_MAPPING = {
    operator: count
    for operator, count in (
        (getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None), _attention),
        (getattr(torch.ops.aten, "_scaled_dot_product_fused_attention_overrideable", None), _attention),
        (torch.ops.densevit.attention, _attention),
        (linear.onednn_product(), linear.flops),
    )
    if operator is not None
}


def count_flops(call: Callable[[], object]) -> int:
    """Matrix products, convolutions and attention of everything that a call runs in eager torch.

    What runs outside torch's operators (a compiled graph, another runtime) is not seen; norms, activations and
    resizing do not count, as in the papers.
    """
    with FlopCounterMode(display=False, custom_mapping=_MAPPING) as counter:
        call()
    return int(counter.get_total_flops())
