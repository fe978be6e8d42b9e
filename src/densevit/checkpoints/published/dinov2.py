"""DINOv2's own heads on its frozen encoders; a head and its encoder are two files in one folder."""

from densevit.checkpoints.published.measured import metrics_of, protocol_of
from densevit.checkpoints.published.row import Family, Origin, Published

_HOST = "https://dl.fbaipublicfiles.com/dinov2/"
_LETTERS = {"small": "s", "base": "b", "large": "l", "giant": "g"}
_DATA = {"ade20k": "ADE20K validation", "nyu": "NYUv2 test", "kitti": "KITTI Eigen test"}
_HEADS = {"ade20k": ("linear", "ms"), "nyu": ("linear", "linear4", "dpt"), "kitti": ("linear", "linear4", "dpt")}


def _row(size: str, data: str, head: str) -> Published:
    model = f"dinov2_vit{_LETTERS[size]}14"
    name = f"dinov2-{size}-{data}-{head}"
    family: Family = "DPT" if head == "dpt" else "DINOv2"
    labels = data == "ade20k"
    table = "10" if labels else "11"
    return Published(
        name=name,
        preset=name,
        family=family,
        task="segmentation" if labels else "depth",
        sources=(Origin(url=f"{_HOST}{model}/{model}_{data}_{head}_head.pth", side_files=(f"{model}_pretrain.pth",)),),
        licence="Apache-2.0",
        licence_of_code="Apache-2.0",
        licence_source="facebookresearch/dinov2, README.md, section License",
        source_config=f"{model}_{data}_{head}",
        protocol=f"{_DATA[data]}: {protocol_of(name)}",
        metrics=metrics_of(name, _DATA[data].partition(" ")[0]),
        metrics_source=f"arXiv:2304.07193, table {table}; not compared with the paper again",
        import_options={"as_source": "dinov2", **({"dataset": data} if labels else {"release": data})},
    )


DINOV2: tuple[Published, ...] = tuple(
    _row(size, data, head) for size in _LETTERS for data, heads in _HEADS.items() for head in heads
)
