"""mmsegmentation 1.2 with its published configs, on mmcv-lite: these models need no compiled operators.

That release imports names from ``mmcv.ops``, which mmcv-lite lacks and none of these models calls, and it refuses mmcv
2.2, with which they run. Both obstacles are removed here, in the worker process of the benchmark only.
"""

import importlib.machinery
import logging
import sys
import types
import warnings
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle
from densevit_lab.benchmark.peers import Peer, fill, import_bundle

CONFIGS = {
    "segmenter-ti": "segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py",
    "segmenter-s": "segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py",
    "segmenter-b": "segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py",
    "setr-naive-l": "setr/setr_vit-l_naive_8xb2-160k_ade20k-512x512.py",
    "setr-pup-l": "setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py",
    "setr-mla-l": "setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512.py",
    "setr-pup-l-cityscapes": "setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py",
}


def build(**options: Any) -> Peer:
    """A published config with random weights; ``options``: see ``_read_config``."""
    _make_importable()
    from mmengine.model import revert_sync_batchnorm
    from mmseg.apis import inference_model, init_model

    config = _read_config(**options)
    model = revert_sync_batchnorm(init_model(config, device="cpu"))
    fill(model)
    model.eval()

    def predict(image: Path) -> NDArray[Any]:
        labels: NDArray[Any] = inference_model(model, str(image)).pred_sem_seg.data[0].numpy()
        return labels

    def bundle() -> Bundle:
        plain = {
            key: config[key].to_dict() if hasattr(config[key], "to_dict") else config[key]
            for key in ("model", "test_pipeline", "data_preprocessor", "dataset_type")
            if key in config
        }
        return import_bundle("mmseg", "mmsegmentation", model.state_dict(), {"mmseg": plain})

    return Peer(predict, bundle)


def _read_config(
    config: str,
    *,
    num_classes: int | None = None,
    image: int | None = None,
    stride: int | None = None,
    scale: tuple[int, int] | None = None,
) -> Any:
    """A published config with changes.

    Args:
        config: key in ``CONFIGS``.
        num_classes: of all heads.
        image: side of the training images, which is also the window.
        stride: of the windows.
        scale: (long, short) side to which images are resized, keeping the ratio.
    """
    import mmseg
    from mmengine.config import Config

    settings = Config.fromfile(str(Path(mmseg.__file__).parent / ".mim" / "configs" / CONFIGS[config]))
    model = settings.model
    model.pretrained = None
    model.backbone.pop("init_cfg", None)
    if num_classes is not None:
        auxiliary = model.get("auxiliary_head") or []
        for head in (model.decode_head, *(auxiliary if isinstance(auxiliary, list) else [auxiliary])):
            head.num_classes = num_classes
    if image is not None:
        model.backbone.img_size = (image, image)
        model.data_preprocessor.size = settings.data_preprocessor.size = (image, image)
    if image is not None or stride is not None:
        window = image or model.test_cfg.crop_size[0]
        step = stride or model.test_cfg.stride[0]
        model.test_cfg = dict(mode="slide", crop_size=(window, window), stride=(step, step))
    if scale is not None:
        for transform in settings.test_pipeline:
            if transform["type"] == "Resize":
                transform["scale"] = tuple(scale)
    return settings


def _make_importable() -> None:
    """Stand in for mmcv.ops, and report another version of mmcv while mmseg checks it."""
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
