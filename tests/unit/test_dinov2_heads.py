"""Heads of facebookresearch/dinov2: the encoder that their files lack, what their names say, and the decoder."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.checkpoints.open import import_file, open_model
from densevit.decoders import build_decoder, parse_decoder
from densevit.decoders.dpt import DepthHead, Dpt
from densevit.decoders.linear import DepthBins, LinearConfig, LinearDecoder
from densevit.errors import CheckpointError, ConfigError
from densevit.inference.predictor import Predictor
from densevit.inference_config import WindowProtocol
from densevit.tasks import Depth
from densevit.types import Taps
from densevit_lab.parity.fixture import Fixture
from tests.parity.foreign import FIXTURES
from tests.tolerances import EXACT, SAME_MATHS

LINEAR, DPT_HEAD, LABELS = (FIXTURES[f"dinov2-{name}"] for name in ("depth-linear", "depth-dpt", "labels-linear"))
GIVEN = {"num_heads": 2}


def write(folder: Path, name: str, fixture: Fixture = LINEAR, *, encoder: str | None = "vits14") -> Path:
    """A head's file under a name, and its encoder under the published one."""
    folder.mkdir(parents=True, exist_ok=True)
    state = fixture.state
    head = {key: tensor for key, tensor in state.items() if key.startswith("decode_head.")}
    backbone = {key.removeprefix("backbone."): state[key] for key in state if key not in head}
    torch.save({"state_dict": head}, folder / name)
    if encoder is not None:
        torch.save(backbone, folder / f"dinov2_{encoder}_pretrain.pth")
    return folder / name


def depth_of(path: Path, **options: Any) -> Depth:
    task = import_file(str(path), **options).bundle.tasks["depth"]
    assert isinstance(task, Depth)
    return task


@pytest.mark.parametrize("stated", [False, True])
def test_encoder__is_found_next_to_the_head_or_where_it_is_said(stated: bool, tmp_path: Path) -> None:
    path = write(tmp_path, "dinov2_vits14_nyu_linear_head.pth", encoder="other" if stated else "vits14")
    options = GIVEN | ({"encoder_weights": str(tmp_path / "dinov2_other_pretrain.pth")} if stated else {})

    imported = import_file(str(path), **options)

    encoder = imported.bundle.model.encoder.state_dict()
    assert imported.importer == "dinov2"
    assert torch.equal(encoder["blocks.0.mlp.fc1.weight"], LINEAR.state["backbone.blocks.0.mlp.fc1.weight"])
    counts = imported.counts
    assert counts.source == counts.built + counts.ignored + counts.absorbed


def test_encoder__that_is_missing_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "dinov2_vits14_nyu_linear_head.pth", encoder=None)

    with pytest.raises(CheckpointError) as error:
        import_file(str(path))

    assert str(error.value) == (
        f"{path} holds a head of DINOv2 without its encoder; it is https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/"
        f"dinov2_vits14_pretrain.pth; put it at {tmp_path}/dinov2_vits14_pretrain.pth, or give --encoder-weights to "
        "`densevit convert` (encoder_weights=... in Python)"
    )


def test_encoder__of_a_head_with_another_name_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "head.pth")

    with pytest.raises(CheckpointError, match=r"without its encoder; give --encoder-weights to `densevit convert`"):
        import_file(str(path), release="nyu")


def test_encoder__of_another_size_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "dinov2_vits14_nyu_linear_head.pth")
    encoder = torch.load(tmp_path / "dinov2_vits14_pretrain.pth")
    head = {"decode_head.conv_depth.weight": torch.ones(256, 40, 1, 1), "decode_head.conv_depth.bias": torch.ones(256)}
    torch.save(head | {"decode_head.x": encoder["cls_token"]}, path)

    with pytest.raises(CheckpointError, match="linear head on 40 channels, but the encoder gives 24 for each tap"):
        import_file(str(path), **GIVEN)


def test_tensor_of_the_encoder_file__that_is_unknown_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "dinov2_vits14_nyu_linear_head.pth")
    encoder = torch.load(tmp_path / "dinov2_vits14_pretrain.pth")
    torch.save(encoder | {"rel_pos_bias": torch.ones(2)}, tmp_path / "dinov2_vits14_pretrain.pth")

    with pytest.raises(CheckpointError, match=r"not understood: backbone\.rel_pos_bias"):
        import_file(str(path), **GIVEN)


@pytest.mark.parametrize(
    ("name", "options", "metres"),
    [
        ("dinov2_vits14_nyu_dpt_head.pth", {}, 10),
        ("dinov2_vits14_kitti_dpt_head.pth", {}, 80),
        ("dinov2_vits14_nyu_dpt_head.pth", {"release": "kitti"}, 80),
        ("dinov2_vits14_nyu_dpt_head.pth", {"max_depth_m": 25}, 25),
    ],
)
def test_range__is_that_of_the_data_set(name: str, options: dict[str, Any], metres: float, tmp_path: Path) -> None:
    path = write(tmp_path, name, DPT_HEAD)
    options = GIVEN | {"taps": (0, 1, 2, 3)} | options

    bundle = import_file(str(path), **options).bundle

    decoder = bundle.model.decoder("depth")
    assert isinstance(decoder, Dpt)
    head = bundle.model.config.heads["depth"].decoder.head
    assert isinstance(head, DepthHead)
    assert (depth_of(path, **options).max_depth_m, head.limit_m, head.min_depth_m) == (metres, metres, 0.001)
    assert not decoder.align_corners


def test_range__that_nothing_tells_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "head.pth", DPT_HEAD)

    with pytest.raises(CheckpointError, match="--release"):
        import_file(str(path), **GIVEN, encoder_weights=str(tmp_path / "dinov2_vits14_pretrain.pth"))


@pytest.mark.parametrize(
    ("data", "options", "metres"),
    [("nyu", {}, 10), ("kitti", {}, 80), ("nyu", {"release": "kitti"}, 80), ("nyu", {"max_depth_m": 80}, 80)],
)
def test_linear_depth__averages_up_to_the_end_of_its_data_set(
    data: str, options: dict[str, Any], metres: float, tmp_path: Path
) -> None:
    path = write(tmp_path, f"dinov2_vits14_{data}_linear_head.pth")

    bundle = import_file(str(path), **GIVEN, **options).bundle

    config, task = bundle.model.config.heads["depth"].decoder, bundle.tasks["depth"]
    assert isinstance(config, LinearConfig)
    assert config.bins == DepthBins(num_bins=256, min_depth_m=0.001, max_depth_m=metres)
    assert isinstance(task, Depth)
    assert task.max_depth_m == metres


@pytest.mark.parametrize("size", [(28, 42), (31, 45)])
def test_photo__keeps_its_size_and_is_padded_on_both_sides(size: tuple[int, int], tmp_path: Path) -> None:
    """The recorded inputs are normalised, so the photo is run through the protocol's network and compared with it."""
    path = write(tmp_path, "dinov2_vits14_nyu_linear_head.pth")
    predictor = Predictor(open_model(path, **GIVEN))
    photo = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).numpy()

    ours = torch.as_tensor(predictor.predict(photo, protocol="dinov2")["depth"].depth)

    model = predictor.model
    pixels = (torch.as_tensor(photo).permute(2, 0, 1)[None] / 255 - model.mean) / model.std
    pads = [(-length % 14) for length in size]
    pad = (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2)
    with torch.no_grad():
        taps = model.encoder(torch.nn.functional.pad(pixels, pad)).select(model.tap_positions["depth"])
        depth = model.decoder("depth")(taps).logits
    expected = torch.nn.functional.interpolate(depth, size=size, mode="bilinear", align_corners=False)[0, 0]
    torch.testing.assert_close(ours, expected, **SAME_MATHS)


def test_labels__have_the_windows_of_their_number_of_taps(tmp_path: Path) -> None:
    bundle = import_file(str(write(tmp_path, "dinov2_vits14_voc2012_linear_head.pth", LABELS)), **GIVEN).bundle

    assert isinstance(bundle.protocol, WindowProtocol)
    assert (bundle.protocol.kind, bundle.protocol.window, bundle.protocol.stride) == ("dinov2", (512, 512), (341, 341))
    assert bundle.model.config.encoder.final_norm


def test_labels_of_several_taps__are_averaged_over_the_published_scales(tmp_path: Path) -> None:
    path = write(tmp_path, "dinov2_vits14_ade20k_ms_head.pth", FIXTURES["dinov2-labels-ms-registers"])

    protocol = import_file(str(path), **GIVEN, taps=(0, 1, 2, 3)).bundle.protocol

    assert isinstance(protocol, WindowProtocol)
    assert (protocol.window, protocol.stride) == ((640, 640), (320, 320))
    assert protocol.tta_scales == (1.0, 1.32, 1.73, 2.28, 3.0)


def taps(levels: int = 2) -> Taps:
    generator = torch.Generator().manual_seed(4)

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tokens, prefix = ((tensor(2, n, 8),) * levels for n in (6, 1))
    return Taps(tokens, prefix, (2, 3), (14, 14), ())


def test_linear__reads_each_tap_and_its_class_token_side_by_side() -> None:
    decoder = LinearDecoder(LinearConfig(class_token=True), embed_dim=8, num_taps=2, out_channels=3)
    given = taps()

    logits = decoder(given).logits

    parts = [part for t, p in zip(given.tokens, given.prefix, strict=True) for part in (t, p.expand(-1, 6, -1))]
    expected = torch.cat(parts, dim=2) @ decoder.head.weight.T + decoder.head.bias
    torch.testing.assert_close(logits.flatten(2).transpose(1, 2), expected, **SAME_MATHS)


def test_bins__are_averaged_by_their_scores_after_upsampling() -> None:
    config = LinearConfig(up_scale=4, bins=DepthBins(num_bins=5, min_depth_m=1, max_depth_m=9))
    decoder = LinearDecoder(config, embed_dim=8, num_taps=2, out_channels=1)
    torch.nn.init.normal_(decoder.head.weight)
    given = taps()

    depth = decoder(given).logits

    scores = decoder.head(torch.cat(given.tokens, dim=2)).transpose(1, 2).unflatten(2, (2, 3))
    scores = torch.nn.functional.interpolate(scores, scale_factor=4, mode="bilinear").relu() + 0.1
    expected = (scores * torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0])[:, None, None]).sum(1) / scores.sum(1)
    torch.testing.assert_close(depth[:, 0], expected, **SAME_MATHS)


def test_bins__give_one_channel() -> None:
    with pytest.raises(ConfigError, match="one depth for each pixel, but 3 channels are wanted"):
        LinearDecoder(LinearConfig(bins=DepthBins()), embed_dim=8, num_taps=1, out_channels=3)


def test_bins__that_do_not_increase_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"min_depth_m 5\.0 must be below max_depth_m 2\.0"):
        DepthBins.parse({"min_depth_m": 5, "max_depth_m": 2}, source="x")


def test_bounded_depth__is_raised_by_the_minimum_and_cut_at_the_limit() -> None:
    facts = {"kind": "dpt", "channels": (8, 8, 8, 8), "fusion_channels": 8, "readout": "ignore"}
    free = {"kind": "depth", "hidden_channels": 4}

    def build(**head: Any) -> Dpt:
        decoder = build_decoder(parse_decoder(facts | {"head": free | head}), embed_dim=8, num_taps=4, out_channels=1)
        assert isinstance(decoder, Dpt)
        torch.manual_seed(3)
        for parameter in decoder.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return decoder.eval()

    with torch.no_grad():
        plain = build()(taps(4)).logits
        limit = float(plain.median()) + 0.5
        bounded = build(min_depth_m=0.5, limit_m=limit)(taps(4)).logits

    assert plain.max() + 0.5 > limit
    torch.testing.assert_close(bounded, (plain + 0.5).clamp(max=limit), **EXACT)
