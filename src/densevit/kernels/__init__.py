"""Faster CPU kernels for single operations. Each falls back to torch, from which it differs only by rounding."""
