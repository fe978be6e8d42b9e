"""Faster forms, on some processors, of what torch does too: they change rounding alone, and are never required."""
