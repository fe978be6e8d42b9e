"""Which instructions for products of narrow numbers the processor has."""

import torch


def has_vnni() -> bool:
    """Whether it multiplies 8-bit integers by AVX-512 VNNI, unless torch was told to do without AVX-512."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(torch.cpu._is_vnni_supported())
