"""The keys of the config.json that Depth Anything 3 writes next to its weights, and what becomes of each."""

from densevit.checkpoints.importers.keys import KeyTable, checked, ignored, used

_SHAPES = "follows from the shapes of the tensors"
_CLASS = ignored("the class of the program that is built", "__object__")

CONFIG: KeyTable = {
    **used("whether depth is relative or in metres", "model_name"),
    **used("the network's config", "config"),
}
NETWORK: KeyTable = {
    **_CLASS,
    **used("the config of the encoder and of the decoder", "net", "head"),
    **dict.fromkeys(("cam_enc", "cam_dec", "gs_head", "gs_adapter"), checked(None)),
}
NET: KeyTable = {
    **_CLASS,
    **used("the blocks that are tapped", "out_layers"),
    **ignored(_SHAPES, "name"),
    **dict.fromkeys(("alt_start", "qknorm_start", "rope_start"), checked(-1, default=-1)),
    "cat_token": checked(False, default=True),
}
HEAD: KeyTable = {
    **_CLASS,
    **ignored(_SHAPES, "dim_in", "output_dim", "features", "out_channels", "patch_size", "use_sky_head"),
    **ignored("of the outputs that are not read", "conf_activation", "sky_name", "sky_activation"),
    **ignored("names the output", "head_name"),
    **ignored("saves memory", "fusion_block_inplace"),
    "activation": checked("exp", default="exp"),
    "pos_embed": checked(False, default=False),
    "down_ratio": checked(1, default=1),
    "norm_type": checked("idt", default="idt"),
    "use_ln_for_heads": checked(False, default=False),
}
