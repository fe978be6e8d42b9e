"""The public benchmark: our predictions against those of other programs, with the same weights in the same run."""
