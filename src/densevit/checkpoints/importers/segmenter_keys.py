"""The keys of rstrudel/segmenter's variant.yml, and what becomes of each."""

from densevit.checkpoints.importers.keys import KeyTable, checked, ignored, used

_SHAPES = "follows from the shapes of the tensors"
_TRAINING = "matters in training only"

VARIANT: KeyTable = {
    **used("the model, by the tables below", "net_kwargs", "dataset_kwargs", "inference_kwargs"),
    **ignored(_TRAINING, "algorithm_kwargs", "optimizer_kwargs", "amp", "resume", "world_batch_size"),
    **ignored("where the run wrote, and which release of the program", "log_dir", "version"),
}
NET: KeyTable = {
    **used("the encoder's config", "n_heads", "image_size"),
    **used("the model's mean and deviation, where the data set states none", "normalization"),
    **used("stochastic depth in training", "drop_path_rate"),
    **used("the decoder, by the table below", "decoder"),
    **ignored(_SHAPES, "d_model", "n_layers", "n_cls", "patch_size", "distilled", "d_ff", "mlp_ratio", "channels"),
    **ignored("name of the published backbone", "backbone"),
    **ignored(_TRAINING, "dropout"),
}
DECODER: KeyTable = {
    **used("dropout in training", "dropout", "drop_path_rate"),
    **ignored(_SHAPES, "n_cls", "n_layers", "name", "d_model", "d_encoder", "d_ff", "n_heads", "patch_size"),
}
DATASET: KeyTable = {
    **used("the protocol's windows and bounds, and the class names", "dataset", "crop_size"),
    "normalization": checked("vit", "deit"),
    **ignored(_TRAINING, "batch_size", "image_size", "num_workers", "split", "patch_size", "crop", "rep_aug"),
    **ignored(_TRAINING, "eval_freq", "epochs", "learning_rate"),
}
INFERENCE: KeyTable = {
    **used("the protocol's windows and bounds", "im_size", "window_size"),
    **ignored("its evaluation takes crop_size less 32 instead", "window_stride"),
}
