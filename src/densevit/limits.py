"""What a file or a config may claim: one budget for all readers, checked before memory or time is spent."""

from densevit_runtime.limits import VARIABLE, Limits, limits, too_much

__all__ = ["VARIABLE", "Limits", "limits", "too_much"]
