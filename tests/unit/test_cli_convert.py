"""``densevit convert``: what it writes, and that a file which cannot be used leaves nothing behind."""

import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

import densevit
from densevit.checkpoints.importers import IMPORTERS
from densevit.cli.convert import convert as command
from densevit.cli.main import main
from densevit.inference.predictor import Predictor
from tests.parity.foreign import DPT, HF, MMSEG, SEGMENTER, state_of, write_mmseg, write_segmenter, write_transformers


def convert(*arguments: object) -> int:
    """The exit code of ``densevit convert ARGUMENTS``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["densevit", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
    return int(end.value.code or 0)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def changed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    return state_of(SEGMENTER) | {name: tensor}


def torch_file(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


def header(text: bytes, length: int | None = None, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def bomb(path: Path) -> None:
    plain = path.with_suffix(".plain")
    torch.save({"w": torch.zeros(1_000_000)}, plain)
    with zipfile.ZipFile(plain) as whole, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))


def renamed_storage(path: Path) -> None:
    """A pickle whose storage claims more numbers than its record holds."""
    plain = path.with_suffix(".plain")
    torch.save({"w": torch.arange(4.0)}, plain)
    with zipfile.ZipFile(plain) as whole, zipfile.ZipFile(path, "w") as lying:
        for entry in whole.infolist():
            content = whole.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = content.replace(b"K\x04", b"J\xff\xff\xff\x7f")
            lying.writestr(entry.filename, content)


def cyclic() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


def branching() -> dict[str, Any]:
    """Two to the power of sixty ways to the bottom."""
    content: dict[str, Any] = {"epoch": 1}
    for _ in range(60):
        content = {"state_dict": content, "model": content}
    return content


BIAS = "decoder.head.bias"
HOSTILE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("the weights are in the cloud\n"),
    "page": lambda path: path.write_text("<!DOCTYPE html><html></html>"),
    "code in a torch file": lambda path: torch.save({"model": Trap(path.with_suffix(".ran"))}, path),
    "code in a pickle": lambda path: path.write_bytes(pickle.dumps(Trap(path.with_suffix(".ran")), protocol=2)),
    "an object": torch_file({"model": state_of(SEGMENTER), "rate": Fraction(1, 2)}),
    "truncated safetensors": lambda path: path.write_bytes(save(state_of(SEGMENTER))[:-100]),
    "oversized header": lambda path: path.write_bytes(header(b"{}", 2**60)),
    "header beyond the file": lambda path: path.write_bytes(header(b"{}", 5000)),
    "header that is no JSON": lambda path: path.write_bytes(header(b"{weights}")),
    "offsets beyond the file": lambda path: path.write_bytes(
        header(b'{"w":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}', data=b"\0" * 8)
    ),
    "a name twice": lambda path: path.write_bytes(
        header(
            b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],'
            b'"data_offsets":[4,8]}}',
            data=b"\0" * 8,
        )
    ),
    "an archive that unpacks": bomb,
    "a storage that lies": renamed_storage,
    "one number seen as many": torch_file({"w": torch.ones(1).expand(10**7, 10**7)}),
    "itself inside": torch_file(cyclic()),
    "wrappers without end": torch_file(branching()),
    "sparse": torch_file(changed(BIAS, torch.ones(4).to_sparse())),
    "without values": torch_file(changed(BIAS, torch.ones(4, device="meta"))),
    "integers": torch_file(changed(BIAS, torch.ones(4, dtype=torch.int32))),
    "booleans": torch_file(changed(BIAS, torch.ones(4, dtype=torch.bool))),
    "complex": torch_file(changed(BIAS, torch.ones(4, dtype=torch.complex64))),
    "float8": torch_file(changed(BIAS, torch.ones(4).to(torch.float8_e4m3fn))),
    "NaN": torch_file(changed(BIAS, torch.full((4,), float("nan")))),
    "infinity": torch_file(changed(BIAS, torch.full((4,), float("inf"), dtype=torch.float16))),
    "two sources": torch_file(state_of(SEGMENTER) | state_of(DPT)),
    "half of one and half of another": torch_file(
        {key: t for key, t in state_of(SEGMENTER).items() if key.startswith("encoder.")}
        | {key: t for key, t in state_of(MMSEG).items() if key.startswith("decode_head.")}
    ),
    "a key too many": torch_file(changed("decoder.excess_entropy", torch.ones(1))),
    "a key too few": torch_file({key: t for key, t in state_of(SEGMENTER).items() if key != BIAS}),
    "another shape": torch_file(changed(BIAS, torch.ones(5))),
    "a prefix twice": torch_file(
        state_of(SEGMENTER) | {f"module.{key}": tensor for key, tensor in state_of(SEGMENTER).items()}
    ),
    "no weights": torch_file({"epoch": 3}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file__ends_in_a_message_and_leaves_what_was_there(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segmenter(tmp_path)  # with a config beside it that is all right
    path, out = tmp_path / "hostile.pth", tmp_path / "out" / "model.safetensors"
    HOSTILE[kind](path)
    out.parent.mkdir()
    out.write_bytes(b"before")

    assert convert(path, out) == 2
    assert convert(path, out.with_name("new.safetensors")) == 2

    message = capsys.readouterr().err
    assert f"densevit: {path} " in message
    assert "Traceback" not in message
    assert out.read_bytes() == b"before"
    assert [entry.name for entry in out.parent.iterdir()] == ["model.safetensors"]
    assert not path.with_suffix(".ran").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"num_attention_heads": "many"}'),
        ("config.json", '{"num_attention_heads": 7}'),
        ("config.json", '{"num_attention_heads": 2, "backbone_out_indices": 5}'),
        ("preprocessor_config.json", '{"size": {"height": "tall", "width": 64}}'),
        ("preprocessor_config.json", '{"size": {"shortest_edge": 64}}'),
        ("preprocessor_config.json", '{"image_mean": 0.5, "image_std": 0.5}'),
    ],
)
def test_broken_config_beside__ends_in_a_message(
    name: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_transformers(tmp_path / "dpt")
    (folder / name).write_text(text)

    assert convert(folder, tmp_path / "out.safetensors") == 2

    assert capsys.readouterr().err.startswith("densevit: ")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("as_source", ["setr", "mmseg", "dpt", "depth_anything", "transformers"])
def test_wrong_source_by_name__is_refused(as_source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(write_segmenter(tmp_path), tmp_path / "out.safetensors", "--as", as_source) == 2

    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_help__names_every_program() -> None:
    help_text = get_type_hints(command, include_extras=True)["as_source"].__metadata__[0].help

    assert [program for program in IMPORTERS if program not in help_text.replace(",", "").rstrip(".").split()] == []


def test_source__is_not_overwritten(tmp_path: Path) -> None:
    path = write_segmenter(tmp_path)
    before = path.read_bytes()

    assert convert(path, path) == 2
    assert path.read_bytes() == before


def test_out_in_the_place_of_a_folder__is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_segmenter(tmp_path)

    assert convert(path, path / "model.safetensors", "--decoder-heads", "2") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_table__accounts_for_every_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(write_mmseg(tmp_path / "w.pth"), tmp_path / "out.safetensors") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("0 missing")
    assert "parameters in the file" in lines[-2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precision__is_accepted(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {key: t.to(dtype) for key, t in state_of(SEGMENTER).items()}

    assert convert(write_segmenter(tmp_path, state=state), tmp_path / "out.safetensors") == 0


def test_tensors_that_share_memory__become_tensors_of_their_own(tmp_path: Path) -> None:
    """As views of one flat buffer, the form in which sharded training leaves weights."""
    state = state_of(SEGMENTER)
    flat = torch.cat([tensor.flatten() for tensor in state.values()])
    parts = flat.split([tensor.numel() for tensor in state.values()])
    views = {name: part.view_as(state[name]) for name, part in zip(state, parts, strict=True)}

    assert convert(write_segmenter(tmp_path, state=views), tmp_path / "out.safetensors") == 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": {f"module.{key}": t for key, t in state.items()}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"model_ema": state, "epoch": 3},
        lambda state: {"state_dict_ema": {f"module.{key}": t for key, t in state.items()}},
        lambda state: {f"_orig_mod.module.{key}": t for key, t in state.items()},
    ],
)
def test_wrappers__are_peeled_off(wrap: Any, tmp_path: Path) -> None:
    path = write_segmenter(tmp_path)
    torch.save(wrap(state_of(SEGMENTER)), path)

    assert convert(path, tmp_path / "out.safetensors") == 0


def test_hub_name__is_loaded_with_the_files_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    folder, asked = write_transformers(tmp_path / "snapshot"), []

    def download(repo: str, name: str, *, revision: str | None, **access: Any) -> str:
        asked.append((repo, name, revision))
        if not (folder / name).is_file():
            raise huggingface_hub.errors.EntryNotFoundError(name)
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    predictor = densevit.load("hf://Intel/dpt-large-ade")

    assert isinstance(predictor, Predictor)
    assert predictor.model.config.encoder.norm_eps == 1e-12
    names = ("model.safetensors", "config.json", "preprocessor_config.json", "README.md")
    assert asked == [("Intel/dpt-large-ade", name, None) for name in names]


def test_converted_file__predicts_as_the_source_does(tmp_path: Path) -> None:
    folder, out = write_transformers(tmp_path / "dpt", HF), tmp_path / "out.safetensors"
    assert convert(folder, out) == 0
    image = torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8).numpy()

    first, second = (densevit.load(str(source)).predict(image, protocol="transformers") for source in (folder, out))

    assert (first["labels"].labels == second["labels"].labels).all()


def test_safetensors_without_suffix__is_told_by_its_content(tmp_path: Path) -> None:
    write_segmenter(tmp_path)
    save_file(state_of(SEGMENTER), tmp_path / "weights.bin")

    assert convert(tmp_path / "weights.bin", tmp_path / "out.safetensors") == 0
