"""Imports the raw state dict of a fixture, runs its protocol, and compares every tensor that the fixture holds."""

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from densevit.checkpoints.importers import IMPORTERS, Imported, build, detect
from densevit.decoders.dpt import Dpt
from densevit.encoder.positions import resample_positions
from densevit.errors import DensevitError
from densevit.inference import protocols
from densevit.inference.tiled_logits import full
from densevit.inference.tta import average_probabilities
from densevit.inference_config import ProtocolKind, WindowProtocol
from densevit.layers import resize, upsample
from densevit.tasks.losses import cross_entropy
from densevit.types import DenseOutput, Taps
from densevit_lab.parity.fixture import Fixture, read_fixtures
from densevit_lab.parity.numbers import check_numbers
from densevit_lab.parity.report import Row, relative_l2
from densevit_lab.parity.taps import TensorFinder, recorded

TOLERANCE = 1e-5
LOOSE = 1e-4
"""For fixtures whose notes explain why rounding matters more."""

Compare = Callable[[], Tensor]


def check_folder(folder: Path) -> list[Row]:
    """Check every fixture of a folder; one that cannot be run is a failed row."""
    return [row for fixture in read_fixtures(folder) for row in check(fixture)]


def check(fixture: Fixture) -> list[Row]:
    """Compare every tensor or number of one fixture."""
    try:
        if not fixture.tensors:
            return check_numbers(fixture)
        name = detect(fixture.state, fixture.name)
        if name != fixture.origin:
            raise DensevitError(f"is recognised as {name}, but comes from {fixture.origin}")
        imported = build(name, IMPORTERS[name], fixture.source())
        return list(_Check(fixture, imported).rows())
    except Exception as error:  # the description may lack or garble anything
        problem = str(error) if isinstance(error, DensevitError) else f"{type(error).__name__}: {error}"
        return [Row(str(fixture.description.get("source")), fixture.name, "import", 0, math.nan, 0.0, problem)]


class _Check:
    """One fixture with the model imported from it."""

    def __init__(self, fixture: Fixture, imported: Imported) -> None:
        self.fixture, self.outputs = fixture, fixture.outputs
        self.origin = imported.importer
        self.title = IMPORTERS[self.origin].title
        self.model = imported.bundle.model
        (self.head,) = imported.bundle.tasks
        self.decoder = self.model.decoder(self.head)
        self.protocol = imported.bundle.protocol
        # A program without inference of its own has models that take multiples of the patch size, as DPT's.
        self.kind: ProtocolKind = "dpt" if self.protocol is None else self.protocol.kind
        self.network = protocols.forward(self.kind, self.model, self.head)
        notes = str(fixture.description.get("notes", ""))
        self.tolerance = LOOSE if re.search(r"1e-0?4|3e-0?5|standardi[sz]", notes) else TOLERANCE

    @torch.no_grad()
    def rows(self) -> Iterator[Row]:
        compared: set[str] = set()
        for kind, comparisons in self._groups():
            for key, ours in comparisons.items():
                compared.add(key)
                yield self._row(kind, key, ours)
        inputs = re.compile(r".*\.(input|target)|posembed\.source_.*")
        for key in self.outputs:
            if key not in compared and not inputs.fullmatch(key):
                yield self._failed(key, "is not understood")

    def _row(self, kind: str, key: str, ours: Compare) -> Row:
        try:
            error = relative_l2(ours(), self.outputs[key])
        except (DensevitError, KeyError, IndexError, ValueError, RuntimeError) as problem:
            return self._failed(key, f"{type(problem).__name__}: {problem}")
        return Row(self.title, self.fixture.name, kind, 1, error, self.tolerance)

    def _failed(self, case: str, problem: str) -> Row:
        return Row(self.title, self.fixture.name, case, 1, math.nan, self.tolerance, problem)

    def _groups(self) -> Iterator[tuple[str, dict[str, Compare]]]:
        """Title of each group of tensors, and how each of its tensors is computed."""
        for case in sorted({m[1] for key in self.outputs if (m := re.fullmatch(r"(case\d+)\.input", key))}):
            yield from self._case(case)
        if "aug0.input" in self.outputs:
            yield "multi-scale inference", self._multi_scale()
        slides = [key for key in self.outputs if key.startswith("slide") and not key.endswith("input")]
        if slides:
            yield "sliding inference", {key: partial(self._slide, key) for key in slides}
        if "loss.target" in self.outputs:
            losses = [key for key in self.outputs if re.match(r"loss\.(decode|aux)", key)]
            yield "loss", {key: partial(self._loss, key) for key in losses}
        for key in self.outputs:
            if match := re.fullmatch(r"posembed\.source_(\d+)x(\d+)", key):
                grid = (int(match[1]), int(match[2]))
                yield "resized positions", {"posembed.resized": partial(self._resized_positions, key, grid)}

    def _case(self, case: str) -> Iterator[tuple[str, dict[str, Compare]]]:
        """One input: the output of the source's forward pass, auxiliary outputs and taps."""
        image = self.outputs[f"{case}.input"]
        size = " x ".join(str(n) for n in image.shape[-2:])
        try:
            finder, taps, output = self._run(image)
        except DensevitError as error:
            yield case, {f"{case}.input": partial(_raise, error)}
            return
        groups: dict[str, dict[str, Compare]] = {"output": {}, "aux": {}, "taps": {}}
        for key in self.outputs:
            if not key.startswith(f"{case}.") or key.endswith(".input"):
                continue
            name = key.removeprefix(f"{case}.")
            if name == "tap.decoder_masks" or name == "output.head":
                groups["output"][key] = partial(getattr, output, "logits")
            elif name.startswith("tap."):
                groups["taps"][key] = partial(finder.find, name.removeprefix("tap."))
            elif match := re.fullmatch(r"output\.aux(\d*)", name):
                groups["aux"][key] = partial(self._aux, taps, output, int(match[1] or 0), image)
            elif name in ("output", "output.logits_at_input"):
                groups["output"][key] = partial(self._output, image, self.outputs[key].ndim)
        for kind, comparisons in groups.items():
            if comparisons:
                yield f"{case} ({size}) {kind}", comparisons

    def _run(self, image: Tensor) -> tuple[TensorFinder, Taps, DenseOutput]:
        with recorded(self.model) as outputs:
            self.network(image)
        # The network prepares the image before the encoder; the taps are rebuilt from an image prepared alike.
        taps = self.model.encoder(protocols.prepare(self.kind, self.model, image))
        output = self.decoder.decode(taps.select(self.model.tap_positions[self.head]), with_aux=True)
        return TensorFinder(self.model, self.origin, self.head, taps, outputs, self._out_indices()), taps, output

    def _out_indices(self) -> tuple[int, ...]:
        out_indices = self.fixture.description.get("mmseg_model_cfg", {}).get("backbone", {}).get("out_indices", ())
        indices = (out_indices,) if isinstance(out_indices, int) else tuple(out_indices)
        return tuple(self.model.config.encoder.depth - 1 if index == -1 else index for index in indices)

    def _output(self, image: Tensor, ndim: int) -> Tensor:
        output = self.network(image)
        return output[:, 0] if ndim == 3 else output  # depth has no channel axis there

    def _aux(self, taps: Taps, output: DenseOutput, index: int, image: Tensor) -> Tensor:
        """Auxiliary logits in the source's order and at its size."""
        if self.origin == "dpt" and isinstance(self.decoder, Dpt):  # there it runs on the last fusion
            fused, _ = self.decoder.fuse(taps.select(self.model.tap_positions[self.head]))
            aux: Tensor = self.decoder.aux_head(upsample(fused, 2, align_corners=True), taps.image_size)
            return aux
        if self.origin == "setr":
            return resize(output.aux[index], (image.shape[-2], image.shape[-1]), align_corners=False)
        is_mla = self.model.config.heads[self.head].decoder.kind == "setr_mla"
        return output.aux[len(output.aux) - 1 - index if self.origin == "mmseg" and is_mla else index]

    def _multi_scale(self) -> dict[str, Compare]:
        rule = self.fixture.description["inference"]
        window, stride = rule["window_size"], rule["window_stride"]
        protocol = WindowProtocol(kind="segmenter", base=None, window=(window, window), stride=(stride, stride))
        size = (rule["ori_shape"][0], rule["ori_shape"][1])

        def mean_of(*indices: int) -> Tensor:
            views = []
            for index in indices:
                image = self.outputs[f"aug{index}.input"]  # stored as the network sees it
                field = protocols.window_logits(protocol, self.network, image, size=size)
                views.append((field, bool(rule["augs"][index]["flip"])))
            return average_probabilities(views)

        indices = range(len(rule["augs"]))
        comparisons: dict[str, Compare] = {f"aug{index}.output": partial(mean_of, index) for index in indices}
        comparisons["output"] = lambda: mean_of(*indices)
        comparisons["argmax"] = lambda: mean_of(*indices).argmax(dim=0)
        return {key: compare for key, compare in comparisons.items() if key in self.outputs}

    def _slide(self, key: str) -> Tensor:
        """The mean of windows as in mmsegmentation; labels if the fixture holds integers."""
        assert isinstance(self.protocol, WindowProtocol)
        protocol = self.protocol
        rule = self.fixture.config.get("test_cfg") or {}
        if rule.get("mode") == "slide":
            window, stride = tuple(rule["crop_size"]), tuple(rule["stride"])
            protocol = WindowProtocol(kind=protocol.kind, base=None, window=window, stride=stride)
        stem = key.split(".")[0]
        image = self.outputs.get(f"{stem}.input", self.outputs.get("case0.input"))
        assert image is not None
        theirs = self.outputs[key]
        size = (theirs.shape[-2], theirs.shape[-1])
        logits = full(protocols.merge_windows(protocol, self.network, image).resized(size))[None]
        return logits if theirs.is_floating_point() else logits.argmax(dim=1).view(theirs.shape)

    def _loss(self, key: str) -> Tensor:
        """mmsegmentation's cross entropy, averaged over all pixels, times its weight."""
        image = self.outputs.get("loss.input", self.outputs["case0.input"])
        target = self.outputs["loss.target"]
        _, taps, output = self._run(image)
        cfg = self.fixture.description["mmseg_model_cfg"]
        if match := re.fullmatch(r"loss\.aux(\d+)", key):
            index = int(match[1])
            logits, head = self._aux(taps, output, index, image), cfg["auxiliary_head"][index]
        else:
            logits, head = output.logits, cfg["decode_head"]
        resized = resize(logits, (target.shape[-2], target.shape[-1]), align_corners=self.decoder.align_corners)
        stated = head.get("loss_decode", {})
        weight = (stated[0] if isinstance(stated, list) else stated).get("loss_weight", 1.0)
        loss = cross_entropy(resized, target, denominator="all") * float(weight)
        return loss.view(self.outputs[key].shape)

    def _resized_positions(self, key: str, grid: tuple[int, int]) -> Tensor:
        """Position embeddings, resized as SETR does when it loads pre-trained weights."""
        source, theirs = self.outputs[key], self.outputs["posembed.resized"]
        prefix = source.shape[1] - grid[0] * grid[1]
        side = math.isqrt(theirs.shape[1] - prefix)
        resized = resample_positions(source[:, prefix:], grid, (side, side), mode="bilinear")
        return torch.cat((source[:, :prefix], resized), dim=1)


def _raise(error: Exception) -> Tensor:
    raise error
