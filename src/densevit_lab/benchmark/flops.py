"""Floating-point operations of a prediction, counted by torch as it runs; a multiply-add counts as two."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from densevit.kernels import attention, filtering, linear, mixed_attention
from densevit.kernels.int8 import convolution as int8_convolution


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    return attention.flops(query, key, value)


# Operators that torch's counter does not know; some exist only in some builds.
_OPERATORS = (
    (getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None), _attention),
    (getattr(torch.ops.aten, "_scaled_dot_product_fused_attention_overrideable", None), _attention),
    (torch.ops.densevit.attention, _attention),
    (torch.ops.densevit.mixed_attention, mixed_attention.flops),
    (linear.onednn_product(), linear.flops),
    (torch.ops.densevit.linear, linear.flops),
    (torch.ops.densevit.filter, filtering.flops),
    (int8_convolution.operator(), int8_convolution.flops),
)
_MAPPING = {operator: count for operator, count in _OPERATORS if operator is not None}


def count_flops(call: Callable[[], object]) -> int:
    """Count the matrix products, convolutions and attention of a call in eager torch.

    Work outside torch's operators (a compiled graph, another runtime) is not counted, nor are norms, activations and
    resizing, as in the papers.
    """
    with FlopCounterMode(display=False, custom_mapping=_MAPPING) as counter:
        call()
    return int(counter.get_total_flops())
