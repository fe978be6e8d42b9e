"""Marks of tests that need a compiled kernel, which not every machine can build or run."""

from typing import Any

import pytest

from densevit.kernels import attention, filtering, product
from densevit.kernels.cpu_training import attention as training_attention
from densevit.kernels.cpu_training import linear as training_linear
from densevit.kernels.int8 import linear as int8_linear
from densevit.upsampling import native


def _needs(library: Any, reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(library is None, reason=reason)


needs_compiler = _needs(native.load(), "no C compiler here")
needs_attention = _needs(attention.load(), "no AVX-512 or no C compiler here")
needs_convolution = _needs(filtering.load(), "no AVX-512 or no C compiler here")
needs_product = _needs(product.load(), "no C compiler, no AVX-512, or an Intel")
needs_int8 = _needs(int8_linear.load(), "no AVX-512 VNNI or no C compiler here")
needs_training_attention = _needs(training_attention.load(16), "no AVX-512 or no C compiler here")
needs_training_linear = _needs(training_linear.load(), "no C compiler, no AVX-512, or MKL knows the processor")
