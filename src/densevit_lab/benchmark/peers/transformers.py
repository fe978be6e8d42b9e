"""transformers' DPT-Large and Depth-Anything-V2-Small for depth, by processor, model and post-processing.

That is what its pipeline "depth-estimation" runs, without the picture in 8 bits that the pipeline draws at the end.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from densevit.checkpoints.importers import IMPORTERS, Source
from densevit.checkpoints.importers import build as build_import
from densevit.checkpoints.native import Bundle
from densevit.io import read_image
from densevit_lab.benchmark.peers import Peer
from densevit_lab.benchmark.peers.fill import fill

# The configs of Intel/dpt-large and depth-anything/Depth-Anything-V2-Small-hf, where they differ from the defaults.
DPT_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 384,
    "backbone_out_indices": [5, 11, 17, 23],
    "neck_hidden_sizes": [256, 512, 1024, 1024],
    "readout_type": "project",
}
DEPTH_ANYTHING_SMALL: dict[str, Any] = {
    "reassemble_hidden_size": 384,
    "neck_hidden_sizes": [48, 96, 192, 384],
    "fusion_hidden_size": 64,
    "patch_size": 14,
}
DINO_SMALL: dict[str, Any] = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "image_size": 518,
    "patch_size": 14,
    "out_indices": [3, 6, 9, 12],
    "reshape_hidden_states": False,
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "dpt-large": {
        "size": {"height": 384, "width": 384},
        "keep_aspect_ratio": False,
        "ensure_multiple_of": 1,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "depth-anything-v2-small": {
        "size": {"height": 518, "width": 518},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 14,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
}


def build(options: Mapping[str, Any], device: str) -> Peer:
    """``options``: model, a key of ``PROCESSORS``."""
    import transformers

    transformers.logging.set_verbosity_error()
    facts = PROCESSORS[options["model"]]
    if options["model"] == "dpt-large":
        model = transformers.DPTForDepthEstimation(transformers.DPTConfig(**DPT_LARGE))
    else:
        backbone = transformers.Dinov2Config(**DINO_SMALL)
        config = transformers.DepthAnythingConfig(backbone_config=backbone, **DEPTH_ANYTHING_SMALL)
        model = transformers.DepthAnythingForDepthEstimation(config)
    fill(model)
    with torch.no_grad():  # or the last ReLU would cut most of the map off
        for name in ("head.head.4.weight", "head.conv3.weight"):
            if name in (state := model.state_dict()):
                state[name].abs_()
    model = model.to(device).eval()
    processor = transformers.DPTImageProcessor(**facts)

    def predict(image: Path) -> NDArray[Any]:
        photo = read_image(image)
        inputs = processor(images=photo, return_tensors="pt").to(device)
        with torch.no_grad():
            outputs = model(**inputs)
        sizes = [(photo.shape[0], photo.shape[1])]
        found = processor.post_process_depth_estimation(outputs, target_sizes=sizes)[0]["predicted_depth"]
        depth: NDArray[Any] = found.cpu().numpy()
        return depth

    def bundle() -> Bundle:
        side = {"config.json": model.config.to_dict(), "preprocessor_config.json": facts}
        source = Source(f"transformers, {options['model']}", dict(model.state_dict()), side)
        return build_import("transformers", IMPORTERS["transformers"], source).bundle

    return Peer(predict, bundle)
