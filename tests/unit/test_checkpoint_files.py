import argparse
import json
import pickle
import struct
import sys
import zipfile
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import save_file

from densevit.checkpoints.files import read_state_dict, read_weights
from densevit.checkpoints.hub import resolve
from densevit.checkpoints.pickle_stubs import PickleStub
from densevit.errors import CheckpointError

STATE = {"a.weight": torch.arange(64.0).view(8, 8), "a.bias": torch.ones(8, dtype=torch.float16)}


class Trap:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        read_state_dict(path)
    return str(error.value)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_safetensors__is_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")

    assert equal(read_state_dict(tmp_path / "w.safetensors"), STATE)


def test_safetensors__is_read_when_the_header_length_looks_like_a_pickle(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", 0x0280) + header.ljust(0x0280) + struct.pack("<f", 3.0)
    assert content.startswith(b"\x80\x02")

    assert read_state_dict(written(tmp_path / "w.safetensors", content))["a"].item() == 3.0


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torch_file__is_read(zipped: bool, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)

    assert equal(read_state_dict(tmp_path / "w.pth"), STATE)


def test_suffix__does_not_matter(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.safetensors")

    assert equal(read_state_dict(tmp_path / "w.safetensors"), STATE)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "meta": {"epoch": 3}, "optimizer": {"state": {0: torch.ones(2)}}},
        lambda s: {"model": s, "epoch": 3},
        lambda s: {"model_ema": s},
        lambda s: {"ema": {"module": s}},
        lambda s: {"teacher": s, "student": {"x": torch.ones(1)}},
        lambda s: {"model": {"name": "vit"}, "state_dict": s},
        lambda s: s | {"epoch": 3},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"model": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
    ],
)
def test_wrapper__is_taken_off(wrap: Any, tmp_path: Path) -> None:
    torch.save(wrap(STATE), tmp_path / "w.pth")

    assert equal(read_state_dict(tmp_path / "w.pth"), STATE)


def test_prefix__stays_where_only_some_names_have_it(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "w.pth")

    assert equal(read_state_dict(tmp_path / "w.pth"), state)


def test_several_wrappers__are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model_ema": {"a": torch.zeros(1)}, "model": STATE}, path)

    assert equal(read_state_dict(path), STATE)
    assert caplog.messages == [f"{path} holds weights under model, model_ema; taking 'model'"]


def test_parameters__become_plain_tensors(tmp_path: Path) -> None:
    torch.save({"a": torch.nn.Parameter(torch.ones(2))}, tmp_path / "w.pth")

    assert not read_state_dict(tmp_path / "w.pth")["a"].requires_grad


def test_missing_file__is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"

    assert refusal(path) == (
        f"{path} does not exist; give the path of a .safetensors file or of one written by torch.save"
    )


def test_folder__is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path} is a folder, but weights are one file; name the file inside it"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"epoch 3\n", r"starts with b'epoch 3\n'"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer and not the file it points to"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"\x93NUMPY\x01\x00", r"starts with b'\x93NUMPY\x01\x00'"),
    ],
)
def test_other_content__is_refused(content: bytes, what: str, tmp_path: Path) -> None:
    path = written(tmp_path / "w.pth", content)

    assert refusal(path) == (
        f"{path} {what}, but weights are a .safetensors file or one written by torch.save; "
        "download the file itself, or convert it"
    )


def test_oversized_safetensors_header__is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "w.safetensors", struct.pack("<Q", 2**40) + b'{"a":')

    assert refusal(path) == (
        f"{path} states a safetensors header of 1099511627776 bytes, but at most 100000000 are allowed; "
        "the file is damaged or hostile; download it again"
    )


@pytest.mark.parametrize("kept", [12, 100, -1], ids=["header", "early", "late"])
def test_truncated_safetensors__is_refused(kept: int, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "whole")
    path = written(tmp_path / "w.safetensors", (tmp_path / "whole").read_bytes()[:kept])

    assert refusal(path).startswith(f"{path} is damaged or cut short (")


def test_garbled_safetensors_header__is_refused(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "whole")
    path = written(tmp_path / "w.safetensors", (tmp_path / "whole").read_bytes().replace(b'"F32"', b'"X99"'))

    assert refusal(path).startswith(f"{path} is damaged or cut short (")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.95])
def test_truncated_torch_file__is_refused(zipped: bool, kept: float, tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "whole", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "whole").read_bytes()
    path = written(tmp_path / "w.pth", content[: int(kept * len(content))])

    assert refusal(path).startswith(f"{path} is damaged or cut short (")


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain pickle"])
def test_pickled_code__is_not_run(kind: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "mark"
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps({"a": Trap(mark)}, protocol=2))
    else:
        torch.save({"a": Trap(mark)}, path, _use_new_zipfile_serialization=kind == "zip")

    with pytest.raises(CheckpointError):
        read_state_dict(path)

    assert not mark.exists()


def test_pickled_objects__are_refused_with_their_name_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": STATE, "rate": Fraction(1, 2)}, path)

    assert refusal(path) == (
        f"{path} holds more than tensors (fractions.Fraction), and opening it could run code; if you trust "
        "the file, load it with the program that wrote it, and write its state_dict() with safetensors.torch.save_file"
    )


def pickled_as(name: str) -> type:
    """A class that a pickle names so, with a state of its own, and with ``getattr`` in it as mmengine's log has."""
    module, _, qualified = name.rpartition(".")

    class Log:
        def __getstate__(self) -> dict[str, object]:
            return {"history": [0.5], "smooth": type(self).mean}

        def mean(self) -> float:
            raise AssertionError("nothing of a file may be called")

    Log.__module__, Log.__qualname__ = module, qualified
    Log.mean.__module__, Log.mean.__qualname__ = module, f"{qualified}.mean"
    return Log


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_what_training_left_beside_the_weights__is_read_as_nothing(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = pickled_as("mmengine.logging.history_buffer.HistoryBuffer")
    monkeypatch.setitem(sys.modules, "mmengine", ModuleType("mmengine"))
    monkeypatch.setitem(sys.modules, "mmengine.logging", ModuleType("mmengine.logging"))
    module = ModuleType(log.__module__)
    module.HistoryBuffer = log  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, log.__module__, module)
    meta = {
        "seed": np.int64(3),
        "score": np.float32(0.5),
        "palette": np.zeros((2, 3), np.uint8),
        "args": argparse.Namespace(lr=1),
        "folder": tmp_path,
        "cfg": "model = dict()",
    }
    path = tmp_path / "iter_160000.pth"
    torch.save(
        {"meta": meta, "state_dict": STATE, "message_hub": {"loss": log()}},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    monkeypatch.undo()
    assert log.__module__ not in sys.modules
    allowed = set(torch.serialization.get_safe_globals())

    read = read_weights(path)

    assert list(read.state) == list(STATE)
    assert read.meta["cfg"] == "model = dict()"
    kinds = {type(value) for key, value in read.meta.items() if key != "cfg"}
    assert kinds == {PickleStub}
    assert not any(vars(value) for key, value in read.meta.items() if key != "cfg")
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_stubs__let_no_other_name_of_their_modules_through(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": STATE, "rng": np.random.default_rng(0)}, path)

    assert "holds more than tensors (numpy.random" in refusal(path)


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file")
def test_torchscript__is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(STATE, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("w/constants.pkl", b"")

    assert refusal(path).startswith(f"{path} holds a TorchScript program, and opening it could run code; ")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"epoch": 3, "lr": 0.1}, "keys epoch, lr"),
        ({"model": {}}, "keys model"),
        ({str(i): i for i in range(5)}, "keys 0, 1, 2 and 2 more"),
        ([torch.ones(1)], "list"),
        (torch.ones(1), "Tensor"),
    ],
)
def test_file_without_named_tensors__is_refused(content: object, found: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)

    assert refusal(path) == (
        f"{path} has no named tensors inside (found {found}); weights are a mapping of names to tensors, bare or under "
        "one of state_dict, model, model_ema, ema, state_dict_ema, module, teacher; save the model's state_dict()"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_not_finite__are_refused(value: float, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(STATE | {"b": torch.tensor([0.0, value]), "c": torch.tensor([1])}, path)

    assert refusal(path) == (
        f"{path} has NaN or infinity in b; weights must be finite; "
        "get another copy, or pass require_finite=False to inspect them"
    )


def test_values_not_finite__are_read_on_request(tmp_path: Path) -> None:
    save_file({"b": torch.tensor([float("nan")])}, tmp_path / "w.safetensors")

    assert read_state_dict(tmp_path / "w.safetensors", require_finite=False)["b"].isnan().all()


class Hub:
    """Stands for the download function: holds some files, or fails."""

    def __init__(self, files: tuple[str, ...] = (), *, failure: Exception | None = None) -> None:
        self.files, self.failure = files, failure
        self.asked: list[tuple[str, str, str | None]] = []

    def __call__(self, repo_id: str, filename: str, *, revision: str | None, **access: object) -> str:
        self.asked.append((repo_id, filename, revision))
        if self.failure is not None:
            raise self.failure
        if filename not in self.files:
            raise errors.EntryNotFoundError(filename)
        return f"/cache/{filename}"


def without_response(kind: type[Exception]) -> Exception:
    """An error of the hub; its constructor wants an HTTP response, which no test here needs."""
    return kind.__new__(kind)


def hub_refusal(source: str) -> str:
    with pytest.raises(CheckpointError) as error:
        resolve(source)
    return str(error.value)


def test_resolve__gives_a_local_file(tmp_path: Path) -> None:
    path = written(tmp_path / "w.pth", b"x")

    assert resolve(str(path)) == path


def test_resolve__refuses_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"

    assert hub_refusal(str(path)) == (
        f"{path} does not exist; give a file or hf://owner/name[/file][@revision]; check the path"
    )


def test_resolve__suspects_a_hub_name_without_its_scheme() -> None:
    assert hub_refusal("timm/vit_tiny") == (
        "timm/vit_tiny does not exist; give a file or hf://owner/name[/file][@revision]; "
        "for the hub write hf://timm/vit_tiny"
    )


def test_resolve__refuses_a_folder(tmp_path: Path) -> None:
    assert hub_refusal(str(tmp_path)) == f"{tmp_path} is a folder, but weights are one file; name the file inside it"


@pytest.mark.parametrize(
    ("source", "held", "asked"),
    [
        ("hf://o/n", ("model.safetensors", "pytorch_model.bin"), ("o/n", "model.safetensors", None)),
        ("hf://o/n", ("pytorch_model.bin",), ("o/n", "pytorch_model.bin", None)),
        ("hf://o/n.b/sub/w.pth", ("sub/w.pth",), ("o/n.b", "sub/w.pth", None)),
        ("hf://o/n@refs/pr/1", ("model.safetensors",), ("o/n", "model.safetensors", "refs/pr/1")),
        ("hf://o/n/w.pth@v1", ("w.pth",), ("o/n", "w.pth", "v1")),
    ],
)
def test_resolve__asks_the_hub(
    source: str, held: tuple[str, ...], asked: tuple[str, str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(held)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)

    assert resolve(source) == Path("/cache") / asked[1]
    assert hub.asked[-1] == asked


@pytest.mark.parametrize("source", ["hf://", "hf://name", "hf://o/", "hf://o/n/", "hf://o/n@", "hf://o/n n"])
def test_resolve__refuses_a_malformed_address(source: str) -> None:
    assert hub_refusal(source) == (
        f"{source} is no hub address; give one of the form hf://owner/name[/file][@revision]"
    )


def test_resolve__says_when_the_hub_holds_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", Hub())

    assert hub_refusal("hf://o/n") == (
        "hf://o/n: the repository has no model.safetensors or pytorch_model.bin; name one of its files: hf://o/n/FILE"
    )


OFFLINE = (
    "hf://o/n could not be downloaded ({}); "
    "go online (and unset HF_HUB_OFFLINE), or download the file elsewhere and give its path"
)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (errors.LocalEntryNotFoundError("x"), "no connection, and not in the local cache"),
        (ConnectionError("no route\nto host"), "no route"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_resolve__says_when_offline(failure: Exception, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", Hub(failure=failure))

    assert hub_refusal("hf://o/n") == OFFLINE.format(reason)


@pytest.mark.parametrize(
    ("kind", "source", "message"),
    [
        (
            errors.GatedRepoError,
            "hf://o/n",
            "hf://o/n is gated; accept its licence on https://huggingface.co/o/n and run `hf auth login`",
        ),
        (
            errors.RepositoryNotFoundError,
            "hf://o/n",
            "hf://o/n: the hub has no repository o/n that you may read; check the name, or run `hf auth login`",
        ),
        (
            errors.RevisionNotFoundError,
            "hf://o/n@v9",
            "hf://o/n@v9: the hub has no repository o/n at revision v9 that you may read; "
            "check the name, or run `hf auth login`",
        ),
    ],
)
def test_resolve__says_why_the_hub_refuses(
    kind: type[Exception], source: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", Hub(failure=without_response(kind)))

    assert hub_refusal(source) == message


def test_resolve__says_when_the_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    assert hub_refusal("hf://o/n") == (
        "hf://o/n is on the hub and huggingface_hub is not installed; "
        "run `pip install huggingface_hub`, or download the file and give its path"
    )
