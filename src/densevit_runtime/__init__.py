"""Run exported densevit models without torch."""
