"""mmsegmentation 1.2 with its published configs, on mmcv-lite: no compiled operators are needed for these models.

Two things stand between that release and a present mmcv: it imports names from ``mmcv.ops``, which mmcv-lite lacks and
which none of these models calls, and it refuses mmcv 2.2, with which they run as they are. Both are lifted here, in the
child process of the benchmark alone.
"""

import importlib.machinery
import logging
import sys
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from densevit.checkpoints.importers import IMPORTERS, Source
from densevit.checkpoints.importers import build as build_import
from densevit.checkpoints.native import Bundle
from densevit_lab.benchmark.peers import Peer
from densevit_lab.benchmark.peers.fill import fill

CONFIGS = {
    "segmenter-ti": "segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py",
    "segmenter-s": "segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py",
    "segmenter-b": "segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py",
    "setr-naive-l": "setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py",
    "setr-pup-l": "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py",
    "setr-mla-l": "setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512.py",
    "setr-pup-l-cityscapes": "setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py",
}


def build(options: Mapping[str, Any], device: str) -> Peer:
    """A published config with random weights; ``options``: see ``_config``."""
    _prepare()
    from mmengine.model import revert_sync_batchnorm
    from mmseg.apis import inference_model, init_model

    config = _config(**options)
    model = revert_sync_batchnorm(init_model(config, device="cpu"))
    fill(model)
    model = model.to(device).eval()
    # test_step moves the image to where the preprocessor is, which .to() has moved too.

    def predict(image: Path) -> NDArray[Any]:
        found: NDArray[Any] = inference_model(model, str(image)).pred_sem_seg.data[0].cpu().numpy()
        return found

    def bundle() -> Bundle:
        plain = {
            key: config[key].to_dict() if hasattr(config[key], "to_dict") else config[key]
            for key in ("model", "test_pipeline", "data_preprocessor", "dataset_type")
            if key in config
        }
        state = dict(model.state_dict())
        return build_import("mmseg", IMPORTERS["mmseg"], Source("mmsegmentation", state, {"mmseg": plain})).bundle

    return Peer(predict, bundle)


def _config(
    config: str,
    num_classes: int | None = None,
    image: int | None = None,
    stride: int | None = None,
    scale: tuple[int, int] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Any:
    """A published config by its key in ``CONFIGS``, changed as said.

    Args:
        config: key.
        num_classes: of all heads.
        image: side of the training images, which is the window too.
        stride: of the windows.
        scale: (long, short) to which photos are resized, keeping the ratio.
        changes: of single settings, by path, such as a smaller model for a test.
    """
    import mmseg
    from mmengine.config import Config

    found = Config.fromfile(str(Path(mmseg.__file__).parent / ".mim" / "configs" / CONFIGS[config]))
    model = found.model
    model.pretrained = None
    model.backbone.pop("init_cfg", None)
    if num_classes is not None:
        auxiliary = model.get("auxiliary_head") or []
        for head in (model.decode_head, *(auxiliary if isinstance(auxiliary, list) else [auxiliary])):
            head.num_classes = num_classes
    if image is not None:
        model.backbone.img_size = (image, image)
        model.data_preprocessor.size = found.data_preprocessor.size = (image, image)
    if image is not None or stride is not None:
        side = image or model.test_cfg.crop_size[0]
        step = stride or model.test_cfg.stride[0]
        model.test_cfg = dict(mode="slide", crop_size=(side, side), stride=(step, step))
    if scale is not None:
        for step_config in found.test_pipeline:
            if step_config["type"] == "Resize":
                step_config["scale"] = tuple(scale)
    found.merge_from_dict(dict(changes or {}))
    return found


def _prepare() -> None:
    """Make mmseg importable: a stand-in for mmcv.ops, and another version number while it is compared."""
    if "mmseg" in sys.modules:
        return
    warnings.filterwarnings("ignore")
    logging.getLogger("mmengine").setLevel(logging.ERROR)
    import mmcv

    stub = types.ModuleType("mmcv.ops")
    stub.__spec__ = importlib.machinery.ModuleSpec("mmcv.ops", None)
    stub.__path__ = []

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})

    stub.__getattr__ = missing  # type: ignore[method-assign]
    sys.modules["mmcv.ops"] = stub
    true_version = mmcv.__version__
    mmcv.__version__ = "2.1.0"
    try:
        import mmseg  # noqa: F401
    finally:
        mmcv.__version__ = true_version
