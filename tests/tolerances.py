"""The tolerances of the tests, in one table, and the measure that the parity tests use."""

import torch
from torch import Tensor

PARITY = 1e-5
"""Relative L2 against a reference implementation in float32."""

SAME_MATHS = {"rtol": 1e-4, "atol": 1e-5}
"""Two orders of summation of the same float32 computation: another batch size, a compiled or an exported graph."""

EXACT = {"rtol": 0.0, "atol": 0.0}
"""The same kernel on the same numbers: bit for bit."""

SOLVED = {"rtol": 1e-4, "atol": 1e-5}
"""Through a pseudo-inverse that is stored in float32."""


def relative_l2(given: Tensor, reference: Tensor) -> float:
    """||given - reference|| / ||reference||, in float64; shapes must agree, for broadcasting would hide a mistake."""
    assert given.shape == reference.shape, f"shapes {tuple(given.shape)} and {tuple(reference.shape)} differ"
    difference = torch.linalg.vector_norm(given.double() - reference.double())
    return float(difference / torch.linalg.vector_norm(reference.double()))
