"""What is known about published weights: where they are, what they may be used for, what was measured with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import quote, urljoin

TaskKind = Literal["segmentation", "depth"]
Family = Literal["SETR", "Segmenter", "DPT", "DINOv2", "Depth Anything"]


@dataclass(frozen=True)
class Origin:
    """One place that serves the weights of a row: a URL, or a file in a repository of the Hugging Face hub.

    Attributes:
        url: address of the weights; None if they are on the hub.
        repo: the hub's ``owner/name``; None if they have a URL.
        file: name of the weights file in ``repo``; None if they have a URL.
        revision: commit of ``repo``, 40 hexadecimal digits; None if unknown, then it is pinned at the first use.
        side_files: names of the files that the importer needs, which are in the same folder as the weights: configs,
            and the encoder's weights where ``file`` or ``url`` is of a head only.
        bytes: size of the weights in bytes; None if unknown.
        sha256: SHA-256 of the weights, 64 hexadecimal digits; None if unknown, then it is pinned at the first use.
        sha256_prefix: its first digits, where a publisher writes them into the name of the file; None elsewhere.
        hash_source: who states the hash, the size and the revision; "none" if nobody was found to.
    """

    url: str | None = None
    repo: str | None = None
    file: str | None = None
    revision: str | None = None
    side_files: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    hash_source: str = "none"

    @property
    def address(self) -> str:
        """Where a person fetches the weights by hand."""
        return self.url if self.url is not None else self.side_address(str(self.file))

    def side_address(self, name: str) -> str:
        """The address of a file in the same folder as the weights."""
        if self.url is not None:
            return urljoin(self.url, quote(name))
        folder = str(self.file).rpartition("/")[0]
        path = name if name == self.file or not folder else f"{folder}/{name}"
        return f"https://huggingface.co/{self.repo}/resolve/{self.revision or 'main'}/{quote(path)}"


@dataclass(frozen=True)
class Published:
    """A model whose weights its authors, or those of a well-known library, publish.

    Attributes:
        name: by which it is loaded; that of its preset, unless several models share the preset.
        preset: name of the preset with the same network, epsilons of its norms aside.
        aliases: other names that mean the same model.
        family: "SETR", "Segmenter", "DPT", "DINOv2" or "Depth Anything".
        task: "segmentation" or "depth".
        sources: places that serve the same tensors, in order of preference.
        licence: licence of the weights, an SPDX identifier, or "unstated".
        licence_of_code: licence of the program that trained them, an SPDX identifier.
        licence_source: where the licence of the weights is stated.
        source_config: the publisher's own name of the model, with the path of its config where it has one.
        protocol: how the published metrics were measured, in words.
        metrics: published metrics, such as ``{"ADE20K mIoU": 0.4763}``; what is published in percent is a fraction
            here, and "TTA" is with several scales and mirror images. Empty if none is published.
        metrics_source: where the metrics are published.
        import_options: options of ``import_file`` that neither the weights nor their side files state.
        downloaded_here: whether the file was ever downloaded and compared with its row by densevit's authors.
    """

    name: str
    preset: str
    family: Family
    task: TaskKind
    sources: tuple[Origin, ...]
    licence: str
    licence_of_code: str
    licence_source: str
    source_config: str
    protocol: str
    metrics: Mapping[str, float]
    metrics_source: str
    aliases: tuple[str, ...] = ()
    import_options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    downloaded_here: bool = False
