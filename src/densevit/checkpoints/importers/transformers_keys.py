"""The keys of transformers' config.json and preprocessor_config.json, and what becomes of each."""

from densevit.checkpoints.importers.keys import KeyTable, checked, ignored, used

_SHAPES = "follows from the shapes of the tensors"
_TRAINING = "matters in training only"
_COMMON: KeyTable = {
    **ignored(
        "written by every config of transformers; says nothing about the computation",
        *("_name_or_path", "_commit_hash", "architectures", "model_type", "transformers_version", "auto_map"),
        *("torch_dtype", "dtype", "use_bfloat16", "torchscript", "return_dict", "use_return_dict", "label2id"),
        *("output_hidden_states", "output_attentions", "finetuning_task", "task_specific_params", "problem_type"),
        *("_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal"),
        *("attn_implementation", "chunk_size_feed_forward", "tf_legacy_loss", "tokenizer_class", "num_labels"),
        *("use_cache", "name_or_path", "ignore_keys_at_rope_validation", "_experts_implementation_internal"),
    ),
    **ignored(
        "of models that write text",
        *("is_encoder_decoder", "is_decoder", "cross_attention_hidden_size", "add_cross_attention", "prefix"),
        *("tie_encoder_decoder", "tie_word_embeddings", "max_length", "min_length", "do_sample", "early_stopping"),
        *("num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p"),
        *("repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"),
        *("bad_words_ids", "num_return_sequences", "output_scores", "return_dict_in_generate", "bos_token_id"),
        *("forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "pad_token_id", "eos_token_id"),
        *("exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "sep_token_id"),
        "decoder_start_token_id",
    ),
    "pruned_heads": checked({}),
}

_BLOCKS: KeyTable = {
    **used("the encoder's config", "num_attention_heads", "layer_norm_eps"),
    **ignored(_SHAPES, "hidden_size", "num_hidden_layers", "intermediate_size", "patch_size", "num_channels"),
    **ignored(_SHAPES, "qkv_bias", "image_size", "mlp_ratio"),
    **ignored(_TRAINING, "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"),
}

_DPT: KeyTable = {
    **_COMMON,
    **_BLOCKS,
    **used("the blocks that are tapped", "backbone_out_indices"),
    **used("the decoder's config", "readout_type", "reassemble_factors", "semantic_classifier_dropout"),
    **used("names of the classes", "id2label"),
    **used("weight of the auxiliary head in training", "auxiliary_loss_weight"),
    **ignored(_SHAPES, "is_hybrid", "neck_hidden_sizes", "fusion_hidden_size", "use_batch_norm_in_fusion_residual"),
    **ignored(_SHAPES, "use_bias_in_fusion_residual", "add_projection", "use_auxiliary_head"),
    **ignored(_SHAPES, "backbone_featmap_shape"),
    **ignored(_TRAINING, "semantic_loss_ignore_index"),
    **ignored("the pooler is of the classifier, which is not read", "pooler_output_size", "pooler_act"),
    **ignored("where the weights came from before training", "backbone", "use_pretrained_backbone", "backbone_kwargs"),
    "use_timm_backbone": checked(False),
    "hidden_act": checked("gelu"),
    "head_in_index": checked(-1),
}

PLAIN_DPT: KeyTable = {
    **_DPT,
    **ignored("of the hybrid only", "neck_ignore_stages", "embedding_type", "backbone_config"),
}
HYBRID_DPT: KeyTable = {
    **_DPT,
    **used("the stem's config, by the table of BiT", "backbone_config"),
    "reassemble_factors": checked([1, 1, 1, 0.5]),
    "neck_ignore_stages": checked([0, 1]),
    "embedding_type": checked("vit_hybrid"),
}
DINO_DPT: KeyTable = {
    **_DPT,
    **used("the encoder's config, by the table of its DINOv2", "backbone_config"),
    **ignored("of DPT's own encoder, which DINOv2 replaces", *_BLOCKS, "backbone_out_indices"),
    **ignored("of the hybrid only", "neck_ignore_stages", "embedding_type"),
}
BIT: KeyTable = {
    **_COMMON,
    **ignored(_SHAPES, "num_channels", "embedding_size", "hidden_sizes", "depths"),
    **ignored(_TRAINING, "drop_path_rate", "initializer_range"),
    **ignored("names of classes that the stem does not give", "id2label"),
    **ignored("names of the stages, all of which are read", "stage_names", "out_indices", "_out_indices"),
    "out_features": checked(["stage1", "stage2", "stage3"]),
    "_out_features": checked(["stage1", "stage2", "stage3"]),
    "output_stride": checked(32),
    "layer_type": checked("bottleneck"),
    "num_groups": checked(32),
    "hidden_act": checked("relu"),
    "global_padding": checked("same"),
    "embedding_dynamic_padding": checked(True),
    "width_factor": checked(1),
}

DEPTH_ANYTHING: KeyTable = {
    **_COMMON,
    **used("the encoder's config, by the table of DINOv2", "backbone_config"),
    **used("the decoder's config", "reassemble_factors"),
    **used("metric or relative depth", "depth_estimation_type", "max_depth"),
    **ignored(_SHAPES, "patch_size", "reassemble_hidden_size", "neck_hidden_sizes", "fusion_hidden_size"),
    **ignored(_SHAPES, "head_hidden_size"),
    **ignored(_TRAINING, "initializer_range"),
    **ignored("names of classes that a depth model does not have", "id2label"),
    **ignored("where the weights came from before training", "backbone", "use_pretrained_backbone", "backbone_kwargs"),
    "use_timm_backbone": checked(False),
    "head_in_index": checked(-1),
}
DINOV2: KeyTable = {
    **_COMMON,
    **_BLOCKS,
    **used("the blocks that are tapped", "out_indices", "out_features"),
    **used("whether the taps pass through the final norm", "apply_layernorm"),
    **ignored("the same as out_indices and out_features", "_out_indices", "_out_features"),
    **ignored(_SHAPES, "layerscale_value", "use_swiglu_ffn", "use_mask_token"),
    **ignored(_TRAINING, "drop_path_rate"),
    **ignored("names of classes that the encoder does not give", "id2label"),
    **ignored("names of the blocks", "stage_names"),
    **ignored("shape of tensors between encoder and decoder", "reshape_hidden_states"),
    "model_type": checked("dinov2"),
    "hidden_act": checked("gelu"),
}
DINOV2_OF_DPT: KeyTable = {**DINOV2, "reshape_hidden_states": checked(False)}

PROCESSOR: KeyTable = {
    **used("the protocol's resize", "do_resize", "size", "resample", "keep_aspect_ratio", "ensure_multiple_of"),
    **used("padding to multiples, half of it on either side", "do_pad", "size_divisor"),
    **used("the model's mean and deviation", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    "image_processor_type": checked("DPTImageProcessor", "DPTImageProcessorFast", "DPTImageProcessorPil"),
    "feature_extractor_type": checked("DPTFeatureExtractor", "DPTImageProcessor"),
    **ignored("concerns masks, not images", "do_reduce_labels", "reduce_labels"),
    **ignored("images are always taken to RGB", "do_convert_rgb"),
    **ignored("how arrays are passed within transformers", "data_format", "input_data_format", "return_tensors"),
    **ignored("how arrays are passed within transformers", "device", "disable_grouping", "_valid_processor_keys"),
    **ignored("written by every processor; says nothing about images", "processor_class", "backend"),
    **ignored("says that size is a height and a width", "default_to_square"),
    "do_center_crop": checked(False),
    **ignored("only with do_center_crop, which is refused", "crop_size"),
    "pad_size": checked(None),
    "do_flip_channel_order": checked(False),
}
