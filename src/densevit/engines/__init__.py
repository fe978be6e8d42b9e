"""Engines that run the network in place of eager PyTorch, each compared with it before use."""
