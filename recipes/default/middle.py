"""The running mean of the weights in the middle of a run, as a checkpoint: ``middle.py RUN STEP OUT``.

A run keeps its last states alone, so stop it after that step with Ctrl-C, and go on with ``densevit train --resume``.
"""

import sys
from pathlib import Path

import torch

from densevit.checkpoints.native import Bundle, Card, save_bundle
from densevit.config import read_yaml
from densevit.training.config import TrainConfig
from densevit.training.build_model import build_model


def main() -> None:
    """A run folder, a step with a state, and the file to write."""
    run, step, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    config = TrainConfig.parse(read_yaml(run / "config.yaml"), source=str(run / "config.yaml"))
    state = torch.load(run / "states" / f"state-{step:08d}.pt", weights_only=True)
    model = build_model(config)  # frozen weights are those of the start and not in a state
    if unknown := model.load_state_dict({**state["model"], **state["average"]}, strict=False).unexpected_keys:
        raise SystemExit(f"{run}: the state has weights that the model lacks, {unknown[0]} for one")
    save_bundle(Bundle(model.eval(), dict(config.tasks), config.fit, Card()), out)


if __name__ == "__main__":
    main()
