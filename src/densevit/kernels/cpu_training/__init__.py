"""Training kernels for the CPU: a transformer block's branches with hand-written forward and backward (ADR 0012)."""
