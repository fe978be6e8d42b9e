"""mmsegmentation's checkpoints of SETR, Segmenter and DPT, as its ``configs/*/metafile.yaml`` list them."""

from collections.abc import Mapping

from densevit.checkpoints.published.measured import metrics_of, protocol_of
from densevit.checkpoints.published.row import Family, Origin, Published

_HOST = "https://download.openmmlab.com/mmsegmentation/v0.5/"
_FAMILIES: dict[str, Family] = {"setr": "SETR", "segmenter": "Segmenter", "dpt": "DPT"}
_DATASETS = {"ade20k": "ADE20K", "cityscapes": "Cityscapes"}


def _row(
    preset: str,
    config: str,
    file: str,
    *aliases: str,
    name: str | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Published:
    """A row of a preset; ``file`` is in a folder that has its name without the date, and ends in digits of its hash."""
    folder = config.partition("_")[0]
    dataset = "cityscapes" if "cityscapes" in config else "ade20k"
    stem = file.rpartition("-")[0]
    parts = [part for part in stem.split("_") if not (part.isdigit() and len(part) in (6, 8))]
    metafile = f"open-mmlab/mmsegmentation, configs/{folder}/metafile.yaml"
    origin = Origin(
        url=f"{_HOST}{folder}/{'_'.join(parts)}/{file}.pth",
        sha256_prefix=file[-8:],
        hash_source="name of the file, which mmsegmentation's tools/model_converters/publish_model.py chooses",
    )
    return Published(
        name=name or preset,
        preset=preset,
        family=_FAMILIES[folder],
        task="segmentation",
        sources=(origin,),
        licence="Apache-2.0",
        licence_of_code="Apache-2.0",
        licence_source=metafile,
        source_config=f"configs/{folder}/{config}.py",
        protocol=f"{_DATASETS[dataset]} validation: {protocol_of(preset)}",
        metrics=metrics or metrics_of(preset, _DATASETS[dataset]),
        metrics_source=metafile,
        aliases=aliases,
        import_options={"as_source": "mmseg", "dataset": dataset},
    )


MMSEG: tuple[Published, ...] = (
    _row(
        "setr-naive-l-ade20k",
        "setr_vit-l_naive_8xb2-160k_ade20k-512x512",
        "setr_naive_512x512_160k_b16_ade20k_20210619_191258-061f24f5",
        "setr-naive-ade20k",
    ),
    _row(
        "setr-pup-l-ade20k",
        "setr_vit-l_pup_8xb2-160k_ade20k-512x512",
        "setr_pup_512x512_160k_b16_ade20k_20210619_191343-7e0ce826",
        "setr-pup-ade20k",
    ),
    _row(
        "setr-mla-l-ade20k",
        "setr_vit-l_mla_8xb2-160k_ade20k-512x512",
        "setr_mla_512x512_160k_b16_ade20k_20210619_191057-f9741de7",
        "setr-mla-ade20k",
    ),
    _row(
        "setr-mla-l-ade20k",
        "setr_vit-l-mla_8xb1-160k_ade20k-512x512",
        "setr_mla_512x512_160k_b8_ade20k_20210619_191118-c6d21df0",
        name="setr-mla-l-ade20k-b8",
        metrics={"ADE20K mIoU": 0.4734, "ADE20K mIoU TTA": 0.4905},
    ),
    _row(
        "setr-naive-l-cityscapes",
        "setr_vit-l_naive_8xb1-80k_cityscapes-768x768",
        "setr_naive_vit-large_8x1_768x768_80k_cityscapes_20211123_000505-20728e80",
        "setr-naive-cityscapes",
    ),
    _row(
        "setr-pup-l-cityscapes",
        "setr_vit-l_pup_8xb1-80k_cityscapes-768x768",
        "setr_pup_vit-large_8x1_768x768_80k_cityscapes_20211122_155115-f6f37b8f",
        "setr-pup-cityscapes",
    ),
    _row(
        "setr-mla-l-cityscapes",
        "setr_vit-l_mla_8xb1-80k_cityscapes-768x768",
        "setr_mla_vit-large_8x1_768x768_80k_cityscapes_20211119_101003-7f8dccbe",
        "setr-mla-cityscapes",
    ),
    _row(
        "segmenter-mmseg-ti-mask",
        "segmenter_vit-t_mask_8xb1-160k_ade20k-512x512",
        "segmenter_vit-t_mask_8x1_512x512_160k_ade20k_20220105_151706-ffcf7509",
        "segmenter-mmseg-ti-mask-ade20k",
    ),
    _row(
        "segmenter-mmseg-s-linear",
        "segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512",
        "segmenter_vit-s_linear_8x1_512x512_160k_ade20k_20220105_151713-39658c46",
        "segmenter-mmseg-s-linear-ade20k",
    ),
    _row(
        "segmenter-mmseg-s-mask",
        "segmenter_vit-s_mask_8xb1-160k_ade20k-512x512",
        "segmenter_vit-s_mask_8x1_512x512_160k_ade20k_20220105_151706-511bb103",
        "segmenter-mmseg-s-mask-ade20k",
    ),
    _row(
        "segmenter-mmseg-b-mask",
        "segmenter_vit-b_mask_8xb1-160k_ade20k-512x512",
        "segmenter_vit-b_mask_8x1_512x512_160k_ade20k_20220105_151706-bc533b08",
        "segmenter-mmseg-b-mask-ade20k",
    ),
    _row(
        "segmenter-mmseg-l-mask-640",
        "segmenter_vit-l_mask_8xb1-160k_ade20k-512x512",
        "segmenter_vit-l_mask_8x1_512x512_160k_ade20k_20220105_162750-7ef345be",
        "segmenter-mmseg-l-mask-ade20k",
    ),
    _row(
        "dpt-mmseg-base-ade20k",
        "dpt_vit-b16_8xb2-160k_ade20k-512x512",
        "dpt_vit-b16_512x512_160k_ade20k-db31cf52",
    ),
)
