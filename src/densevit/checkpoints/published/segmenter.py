"""rstrudel/segmenter's checkpoints, as its README lists them; each needs the ``variant.yml`` next to it."""

from densevit.checkpoints.published.measured import metrics_of, protocol_of
from densevit.checkpoints.published.row import Origin, Published
from densevit_runtime.licences import UNSTATED

_HOST = "https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints/"
_DATASETS = {"ade20k": "ADE20K", "cityscapes": "Cityscapes", "pascal_context": "Pascal Context"}


def _row(preset: str, folder: str, *aliases: str) -> Published:
    dataset = folder.partition("/")[0]
    data = _DATASETS[dataset]
    return Published(
        name=preset,
        preset=preset,
        family="Segmenter",
        task="segmentation",
        sources=(Origin(url=f"{_HOST}{folder}/checkpoint.pth", side_files=("variant.yml",)),),
        licence=UNSTATED,
        licence_of_code="MIT",
        licence_source="rstrudel/segmenter: LICENSE is of the code; nothing is said about the weights",
        source_config=f"{folder}/variant.yml",
        protocol=f"{data} validation: {protocol_of(preset)}",
        metrics=metrics_of(preset, data),
        metrics_source="rstrudel/segmenter, README.md",
        aliases=aliases,
        import_options={"as_source": "segmenter", "dataset": dataset},
    )


SEGMENTER: tuple[Published, ...] = (
    _row("segmenter-ti-mask", "ade20k/seg_tiny_mask", "segmenter-ti-mask-ade20k"),
    _row("segmenter-s-mask", "ade20k/seg_small_mask", "segmenter-s-mask-ade20k"),
    _row("segmenter-b-mask", "ade20k/seg_base_mask", "segmenter-b-mask-ade20k"),
    _row("segmenter-b8-linear", "ade20k/seg_base_patch8", "segmenter-b8-linear-ade20k"),
    _row("segmenter-l-mask-640", "ade20k/seg_large_mask_640", "segmenter-l-mask-ade20k"),
    _row("segmenter-b-deit-linear", "ade20k/seg_base_deit_linear", "segmenter-b-deit-linear-ade20k"),
    _row("segmenter-b-deit-mask", "ade20k/seg_base_deit_mask", "segmenter-b-deit-mask-ade20k"),
    _row("segmenter-l-mask-pascal-context", "pascal_context/seg_large_mask"),
    _row("segmenter-l-mask-cityscapes", "cityscapes/seg_large_mask"),
)
