"""The page on the keys that importers read, check and ignore, made from the tables that they go by."""

from itertools import groupby

from densevit.checkpoints.importers import (
    depth_anything_3_keys,
    mmseg_keys,
    segmenter_keys,
    smp_keys,
    timm_keys,
    transformers_keys,
)
from densevit.checkpoints.importers.keys import NOT_STATED, Key, KeyTable
from densevit_lab.reference_text import MADE, Row, escape, table

INTRODUCTION = """\
# Keys of other programs' configs

What `densevit convert`, and every command that takes the checkpoint of another program, does with each key of the
configs next to it. A *used* key is obeyed; a *checked* one has values that can be reproduced, and any other value is
refused by its name; an *ignored* one does not change the model's output, for the reason given. A key that is not listed
is refused, so that nothing is passed over. How to come from each program is in [migrate](../how-to/migrate.md).

"""
HEAD = ("key", "what becomes of it", "why, or which values")

SECTIONS: dict[str, dict[str, KeyTable]] = {
    "transformers": {
        "config.json of a plain DPT": transformers_keys.PLAIN_DPT,
        "config.json of a hybrid DPT": transformers_keys.HYBRID_DPT,
        "backbone_config of a hybrid DPT": transformers_keys.BIT,
        "config.json of a DPT on DINOv2": transformers_keys.DINO_DPT,
        "backbone_config of a DPT on DINOv2": transformers_keys.DINOV2_OF_DPT,
        "config.json of Depth Anything": transformers_keys.DEPTH_ANYTHING,
        "backbone_config of Depth Anything": transformers_keys.DINOV2,
        "preprocessor_config.json": transformers_keys.PROCESSOR,
    },
    "mmsegmentation": {
        "model": mmseg_keys.SEGMENTOR,
        "backbone": mmseg_keys.BACKBONE,
        "neck": mmseg_keys.NECK,
        "decode_head and auxiliary_head of SETR-Naive": mmseg_keys.NAIVE,
        "decode_head of SETR-PUP": mmseg_keys.PUP,
        "decode_head of SETR-MLA": mmseg_keys.HEADS["mla"],
        "decode_head of a linear Segmenter": mmseg_keys.FCN,
        "auxiliary_head of SETR-MLA": mmseg_keys.AUX_OF_MLA,
        "decode_head of Segmenter": mmseg_keys.HEADS["mask"],
        "decode_head of DPT": mmseg_keys.HEADS["dpt"],
        "data_preprocessor": mmseg_keys.PREPROCESSOR,
        "img_norm_cfg": mmseg_keys.NORMALISE,
        "test_cfg": mmseg_keys.TEST_CFG,
        **{f"test_pipeline, step {name}": steps for name, steps in mmseg_keys.STEPS.items() if steps},
    },
    "rstrudel/segmenter": {
        "variant.yml": segmenter_keys.VARIANT,
        "net_kwargs": segmenter_keys.NET,
        "decoder of net_kwargs": segmenter_keys.DECODER,
        "dataset_kwargs": segmenter_keys.DATASET,
        "inference_kwargs": segmenter_keys.INFERENCE,
    },
    "Depth Anything 3": {
        "config.json": depth_anything_3_keys.CONFIG,
        "config of config.json": depth_anything_3_keys.NETWORK,
        "net": depth_anything_3_keys.NET,
        "head": depth_anything_3_keys.HEAD,
    },
    "segmentation_models.pytorch": {
        "config.json of smp": smp_keys.CONFIG,
    },
    "timm, for encoder_weights": {
        "config.json of timm": timm_keys.TIMM,
        "model_args of config.json": timm_keys.TIMM_ARGUMENTS,
    },
}


def importer_keys_page() -> str:
    """Every key of every source."""
    page = MADE + INTRODUCTION
    for program, tables in SECTIONS.items():
        page += f"## {program}\n\n"
        for title, keys in tables.items():
            page += f"### {title}\n\n{table(HEAD, _rows(keys))}"
    free = ", ".join(f"`{name}`" for name, steps in mmseg_keys.STEPS.items() if steps is None)
    page += f"Steps of mmsegmentation's test pipelines that change no pixel, with any settings: {free}.\n"
    return page


def _rows(keys: KeyTable) -> list[Row]:
    """Keys with the same fate on one line."""

    def fate(item: tuple[str, Key]) -> tuple[str, str, str]:
        key = item[1]
        default = "" if key.default is NOT_STATED else f"; `{key.default}` where it is not stated"
        return key.handling, key.note, default

    rows: list[Row] = []
    for (handling, note, default), group in groupby(sorted(keys.items(), key=lambda i: (fate(i), i[0])), fate):
        names = ", ".join(f"`{name}`" for name, _ in group)
        rows.append((names, handling, (escape(note) + default).replace("|", "\\|")))
    order = ("used", "checked", "ignored")
    return sorted(rows, key=lambda row: (order.index(row[1]), row[0]))
