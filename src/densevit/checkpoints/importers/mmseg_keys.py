"""The keys of mmsegmentation's configs, and what becomes of each; defaults are those of its classes."""

from collections.abc import Mapping
from typing import Any, Literal

from densevit.checkpoints.importers.keys import Key, KeyTable, checked, checked_by, ignored, used

Kind = Literal["up", "mla", "mask", "linear", "dpt"]
"""Names of a head's tensors; "up" is SETR-Naive or PUP."""

BATCH_NORM_EPS = 1e-5
_SHAPES = "follows from the shapes of the tensors"
_TRAINING = "matters in training only"
_ORIGIN = "how weights are initialised"


def _layer(kinds: tuple[str, ...], default: Any, *, eps: float | None = None, class_eps: float = 1e-5) -> Key:
    """A layer with only these types, and one epsilon if it has one."""
    what = " or ".join(kinds) + (f" with eps {eps:g}" if eps else "")
    known = {"type", "requires_grad", "inplace", "momentum", "affine", "track_running_stats"} | (
        {"eps"} if eps else set()
    )

    def accepts(value: Any) -> bool:
        if not isinstance(value, Mapping) or value.get("type") not in kinds or set(value) - known:
            return False
        return eps is None or value.get("eps", class_eps) == eps

    return checked_by(accepts, f"only {what} can be reproduced", default)


_RELU, _GELU = {"type": "ReLU"}, {"type": "GELU"}
_BATCH_NORM = _layer(("BN", "BN2d", "SyncBN", "MMSyncBN"), {"type": "BN"}, eps=BATCH_NORM_EPS)
# The layer normalisation of SETR's heads and neck.
_NORM_LAYER = _layer(("LN",), {"type": "LN", "eps": 1e-6}, eps=1e-6)
_LAYER_NORM = checked_by(
    lambda value: (
        isinstance(value, Mapping)
        and value.get("type", "LN") == "LN"
        and not set(value) - {"type", "eps", "requires_grad"}
    ),
    "only LN, with any eps, can be reproduced",
)

SEGMENTOR: KeyTable = {
    "type": checked("EncoderDecoder", default="EncoderDecoder"),
    **used("the model, by the tables below", "backbone", "neck", "decode_head", "auxiliary_head"),
    **used("the model, by the tables below", "data_preprocessor", "test_cfg"),
    **ignored(_TRAINING, "train_cfg"),
    **ignored(_ORIGIN, "pretrained", "init_cfg"),
    **ignored("where the class is registered", "_scope_"),
}

BACKBONE: KeyTable = {
    "type": checked("VisionTransformer", default="VisionTransformer"),
    **used("the encoder's config", "num_heads", "img_size", "out_indices", "with_cls_token", "interpolate_mode"),
    **used("stochastic depth in training", "drop_path_rate"),
    "norm_cfg": _LAYER_NORM,
    **ignored(_SHAPES, "patch_size", "in_channels", "embed_dims", "num_layers", "mlp_ratio", "qkv_bias"),
    **ignored(_SHAPES, "patch_bias", "final_norm"),
    **ignored("the decoder takes the class token if it needs it", "output_cls_token"),
    **ignored(_TRAINING, "drop_rate", "attn_drop_rate", "norm_eval", "with_cp", "frozen_exclude"),
    **ignored(_ORIGIN, "pretrained", "init_cfg", "pretrain_style"),
    "patch_norm": checked(False),
    "pre_norm": checked(False),
    "out_origin": checked(False),
    "patch_pad": checked("corner"),
    "num_fcs": checked(2),
    "act_cfg": _layer(("GELU",), _GELU),
}

NECK: KeyTable = {
    "type": checked("MLANeck"),
    **ignored(_SHAPES, "in_channels", "out_channels"),
    "norm_layer": _NORM_LAYER,
    "norm_cfg": _BATCH_NORM,
    "act_cfg": _layer(("ReLU",), None),
    **ignored(_ORIGIN, "init_cfg"),
}

_HEAD: KeyTable = {
    **used("which taps the head reads", "in_index"),
    **ignored(_SHAPES, "in_channels", "channels", "num_classes"),
    **ignored(f"{_SHAPES}; a single channel is refused", "out_channels"),
    **ignored("of a single output channel only, which is refused", "threshold"),
    **ignored(_TRAINING, "dropout_ratio", "loss_decode", "ignore_index", "sampler"),
    **ignored(_ORIGIN, "init_cfg"),
    "conv_cfg": checked(None),
    "align_corners": checked(False),
}
# SETR and DPT may upsample with aligned corners.
_CORNERS: KeyTable = {
    "align_corners": checked_by(
        lambda value: isinstance(value, bool), "only True or False, the same for all heads, can be reproduced"
    )
}
_CONVOLUTIONS: KeyTable = {"norm_cfg": _BATCH_NORM, "act_cfg": _layer(("ReLU",), _RELU)}
_SINGLE: KeyTable = {"input_transform": checked(None)}
_MULTIPLE: KeyTable = {"input_transform": checked("multiple_select"), "in_index": checked([0, 1, 2, 3])}

FCN: KeyTable = {
    **_HEAD,
    **_SINGLE,
    "type": checked("FCNHead"),
    **ignored(_SHAPES, "num_convs", "concat_input"),
    **ignored("without convolutions, which are refused", "kernel_size", "dilation", "norm_cfg", "act_cfg"),
}
AUX_OF_MLA: KeyTable = {**FCN, **_CORNERS}
NAIVE: KeyTable = {
    **_HEAD,
    **_CORNERS,
    **_SINGLE,
    **_CONVOLUTIONS,
    "type": checked("SETRUPHead"),
    **ignored(_SHAPES, "num_convs", "kernel_size"),
    "norm_layer": _NORM_LAYER,
    "up_scale": checked(4, default=4),
}
PUP: KeyTable = {**NAIVE, "up_scale": checked(2, default=4)}
HEADS: dict[Kind, KeyTable] = {
    "up": NAIVE,
    "mla": {
        **_HEAD,
        **_CORNERS,
        **_MULTIPLE,
        **_CONVOLUTIONS,
        "type": checked("SETRMLAHead"),
        **ignored(_SHAPES, "mla_channels"),
        "up_scale": checked(4),
    },
    "mask": {
        **_HEAD,
        **_SINGLE,
        "type": checked("SegmenterMaskTransformerHead"),
        **used("the decoder's config", "num_heads"),
        **used("dropout in training", "drop_rate", "drop_path_rate"),
        **ignored(_SHAPES, "num_layers", "embed_dims", "mlp_ratio", "qkv_bias"),
        **ignored(_TRAINING, "attn_drop_rate"),
        **ignored(_ORIGIN, "init_std"),
        "num_fcs": checked(2),
        "act_cfg": _layer(("GELU",), _GELU),
        "norm_cfg": _LAYER_NORM,
    },
    "linear": FCN,
    "dpt": {
        **_HEAD,
        **_CORNERS,
        **_MULTIPLE,
        **_CONVOLUTIONS,
        "type": checked("DPTHead"),
        **used("the decoder's config", "readout_type"),
        **used("dropout in training", "dropout_ratio"),
        **ignored(_SHAPES, "embed_dims", "post_process_channels"),
        **ignored("not read by the class either", "patch_size"),
        "expand_channels": checked(False),
    },
}

PREPROCESSOR: KeyTable = {
    "type": checked("SegDataPreProcessor"),
    **used("the model's mean and deviation", "mean", "std"),
    "bgr_to_rgb": checked(True, default=False),
    "rgb_to_bgr": checked(False),
    **ignored("pads batches of training only", "size", "size_divisor", "pad_val", "seg_pad_val"),
    **ignored(_TRAINING, "batch_augments", "non_blocking"),
    "test_cfg": checked_by(lambda value: not value, "only images without padding can be reproduced"),
}
NORMALISE: KeyTable = {
    **used("the model's mean and deviation", "mean", "std"),
    "type": checked("Normalize"),
    "to_rgb": checked(True, default=True),
}

TEST_CFG: KeyTable = {
    "mode": checked("slide", "whole"),
    **used("the protocol's windows", "crop_size", "stride"),
}

_RESIZE: KeyTable = {
    **used("the protocol's bounds on the sides", "scale", "img_scale"),
    "type": checked("Resize"),
    "keep_ratio": checked(True, default=False),
    "scale_factor": checked(None),
    "ratio_range": checked(None),
    "min_size": checked(None),
    "interpolation": checked("bilinear"),
    "backend": checked("cv2"),
    **ignored("of training, where sizes are drawn", "multiscale_mode"),
    **ignored("concerns boxes, not images", "clip_object_border", "bbox_clip_border"),
}

# Steps of a test pipeline by type; None where no setting of the step matters.
STEPS: dict[str, KeyTable | None] = {
    "LoadImageFromFile": {
        "type": checked("LoadImageFromFile"),
        "to_float32": checked(False),
        "color_type": checked("color"),
        "imdecode_backend": checked("cv2", default="cv2"),
        **ignored("where files lie", "file_client_args", "backend_args"),
        **ignored("of images that cannot be read", "ignore_empty"),
    },
    "Resize": _RESIZE,
    "MultiScaleFlipAug": {
        "type": checked("MultiScaleFlipAug"),
        **used("the protocol's bounds on the sides", "img_scale"),
        **used("the steps inside it, by these tables", "transforms"),
        **ignored("averaging over scales and mirror images is asked for by --tta", "img_ratios", "flip"),
        **ignored("averaging over scales and mirror images is asked for by --tta", "flip_direction"),
    },
    "Normalize": NORMALISE,
    "LoadAnnotations": None,
    "RandomFlip": None,
    "ImageToTensor": None,
    "DefaultFormatBundle": None,
    "Collect": None,
    "PackSegInputs": None,
}
# mmsegmentation 0.x keeps the aspect unless it is told otherwise.
RESIZE_IN_AUGMENTATION: KeyTable = {**_RESIZE, "keep_ratio": checked(True)}
