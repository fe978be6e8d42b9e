"""transformers' DPT-Large and Depth-Anything-V2-Small for depth: processor, model and post-processing.

Its pipeline "depth-estimation" runs the same steps, and then also draws an 8-bit picture.
"""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle
from densevit.io import read_image
from densevit_lab.benchmark.peers import Peer, fill, import_bundle

# The configs of Intel/dpt-large and depth-anything/Depth-Anything-V2-Small-hf, where they differ from the defaults.
VIT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
DPT_LARGE: dict[str, Any] = {
    **VIT_LARGE,
    "image_size": 384,
    "backbone_out_indices": [5, 11, 17, 23],
    "neck_hidden_sizes": [256, 512, 1024, 1024],
    "readout_type": "project",
}
VIT_SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
DINO_SMALL: dict[str, Any] = {"out_indices": [3, 6, 9, 12], "reshape_hidden_states": False, **VIT_SMALL}
NECK_SMALL = {"reassemble_hidden_size": 384, "neck_hidden_sizes": [48, 96, 192, 384], "fusion_hidden_size": 64}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PROCESSORS: dict[str, dict[str, Any]] = {
    "dpt-large": {
        "size": {"height": 384, "width": 384},
        **{"keep_aspect_ratio": False, "ensure_multiple_of": 1, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    },
    "depth-anything-v2-small": {
        "size": {"height": 518, "width": 518},
        **{"keep_aspect_ratio": True, "ensure_multiple_of": 14, "image_mean": MEAN, "image_std": STD},
    },
}


def build(*, model: str) -> Peer:
    """A depth model; ``model``: key of ``PROCESSORS``."""
    import transformers

    transformers.logging.set_verbosity_error()
    settings = PROCESSORS[model]
    if model == "dpt-large":
        network = transformers.DPTForDepthEstimation(transformers.DPTConfig(**DPT_LARGE))
    else:
        backbone = transformers.Dinov2Config(**DINO_SMALL)
        config = transformers.DepthAnythingConfig(backbone_config=backbone, patch_size=14, **NECK_SMALL)
        network = transformers.DepthAnythingForDepthEstimation(config)
    fill(network)
    with torch.no_grad():  # otherwise the last ReLU would cut most of the map off
        state = network.state_dict()
        for name in ("head.head.4.weight", "head.conv3.weight"):
            if name in state:
                state[name].abs_()
    network.eval()
    processor = transformers.DPTImageProcessor(**settings)

    def predict(path: Path) -> NDArray[Any]:
        image = read_image(path)
        inputs = processor(images=image, return_tensors="pt")
        with torch.no_grad():
            outputs = network(**inputs)
        (result,) = processor.post_process_depth_estimation(outputs, target_sizes=[image.shape[:2]])
        depth: NDArray[Any] = result["predicted_depth"].numpy()
        return depth

    def bundle() -> Bundle:
        side_files = {"config.json": network.config.to_dict(), "preprocessor_config.json": settings}
        return import_bundle("transformers", f"transformers, {model}", network.state_dict(), side_files)

    return Peer(predict, bundle)
