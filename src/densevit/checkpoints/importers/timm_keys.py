"""The keys of timm's config.json, and what becomes of each."""

from densevit.checkpoints.importers.keys import KeyTable, checked, ignored, used

_SHAPES = "follows from the shapes of the tensors"
TIMM: KeyTable = {
    **used("refuses models that are no plain ViT, by their names", "architecture"),
    **used("the arguments of the class, by the table below", "model_args"),
    **ignored("of the classifier, which is not read", "num_classes", "num_features", "global_pool", "label_names"),
    **ignored("of the classifier, which is not read", "label_descriptions"),
    **ignored("the run states its own images and statistics", "pretrained_cfg"),
    **ignored("says which tool wrote the file", "library_name", "timm_version", "framework"),
}
TIMM_ARGUMENTS: KeyTable = {
    **used("compared with the encoder's config", "num_heads"),
    **ignored(_SHAPES, "patch_size", "in_chans", "embed_dim", "depth", "mlp_ratio", "qkv_bias", "init_values"),
    **ignored(_SHAPES, "class_token", "reg_tokens", "no_embed_class", "pre_norm", "final_norm", "fc_norm", "qk_norm"),
    **ignored("positions are resampled to the run's images", "img_size", "dynamic_img_size", "dynamic_img_pad"),
    **ignored(
        "of the classifier, which is not read", "num_classes", "global_pool", "pool_include_prefix", "act_layer_head"
    ),
    **ignored("matters in training only", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate"),
    **ignored("matters in training only", "attn_drop_rate", "drop_path_rate", "weight_init", "fix_init"),
    **used("compared with the encoder's config", "act_layer"),
    "norm_layer": checked("layernorm", None),
    "mlp_layer": checked("mlp", None),
    "block_fn": checked(None),
    "attn_layer": checked(None),
    "embed_layer": checked(None),
    "embed_norm_layer": checked(None),
}
