"""DPT as its authors released it."""

from densevit.checkpoints.published.row import Origin, Published

_RELEASE = "https://github.com/isl-org/DPT/releases/download/1_0/"

DPT: tuple[Published, ...] = (
    Published(
        name="dpt-large-ade20k",
        preset="dpt-large-ade20k",
        family="DPT",
        task="segmentation",
        sources=(
            Origin(
                url=_RELEASE + "dpt_large-ade20k-b12dca68.pt",
                sha256_prefix="b12dca68",
                hash_source="name of the release's file",
            ),
        ),
        licence="MIT",
        licence_of_code="MIT",
        licence_source="https://github.com/isl-org/DPT/blob/main/LICENSE",
        source_config="dpt_large",
        protocol="ADE20K validation, whole image at 480 pixels",
        metrics={"ADE20K mIoU": 0.4763, "ADE20K aAcc": 0.8270},
        metrics_source="arXiv:2103.13413, table 5",
        import_options={"as_source": "dpt", "dataset": "ade20k"},
    ),
)
