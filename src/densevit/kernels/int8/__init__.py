"""Products of 8-bit integers on the CPU: tokens of 8 bits with a scale for each, times weights with one per output."""
