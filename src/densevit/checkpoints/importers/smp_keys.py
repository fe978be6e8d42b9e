"""The keys of the config.json that segmentation_models.pytorch writes next to a DPT, and what becomes of each."""

from densevit.checkpoints.importers.keys import KeyTable, checked, ignored, used
from densevit.checkpoints.importers.timm_keys import TIMM_ARGUMENTS

_SHAPES = "follows from the shapes of the tensors"

CONFIG: KeyTable = {
    **TIMM_ARGUMENTS,  # further keys are arguments of the encoder
    **used("timm's name of the encoder, which tells what no tensor does", "encoder_name"),
    **used("the blocks that are tapped; evenly spread where it is null", "encoder_output_indices"),
    **used("the decoder's config", "decoder_readout"),
    **used("the encoder's config", "num_heads"),
    **used("the grid of positions", "img_size"),
    **used("the last function, where it decides about labels", "activation"),
    **ignored(_SHAPES, "in_channels", "classes", "decoder_intermediate_channels", "decoder_fusion_channels"),
    **ignored("where the weights came from before training", "encoder_weights"),
    **ignored("a classifier of whole images, which is not read", "aux_params"),
    "_model_class": checked("DPT"),
    "encoder_depth": checked(4),
    "act_layer": checked(None),
}
