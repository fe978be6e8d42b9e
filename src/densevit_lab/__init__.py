"""The laboratory: benchmark and parity, for the people who develop densevit."""
