"""Small pickles that ask for much: all are refused before torch makes anything of them."""

import argparse
import io
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.checkpoints.files import read_state_dict, read_weights
from densevit.checkpoints.pickle_check import PickleCheck
from densevit.errors import CheckpointError
from densevit.limits import VARIABLE

START, STOP = b"\x80\x02", b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def call(function: str, *arguments: bytes) -> bytes:
    module, _, name = function.rpartition(".")
    return f"c{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR"


def nested(codec: str, times: int) -> bytes:
    inner = call("_codecs.encode", text("a"), text("latin1"))
    for _ in range(times):
        inner = call("_codecs.encode", inner, text(codec))
    return inner


def doubled(start: bytes, double: bytes, times: int = 60) -> bytes:
    """The value made by ``start``, and then pairs of it, of the pair, and so on."""
    return start + b"".join(b"q\x01h\x01" + double for _ in range(times))


def grown_later() -> bytes:
    """A list of 100,000 that grows after it was put in the arguments of a call, which is then made 10,000 times."""
    function = b"ccollections\nOrderedDict\nq\x010"
    arguments = b"]q\x02h\x02\x85q\x0300"
    return function + arguments + b"h\x02(" + b"N" * 100_000 + b"e" + b"h\x01h\x03R0" * 10_000


BOMBS = {
    "codecs in codecs": nested("hex", 29),
    "wide codec": call("_codecs.encode", text("a" * 100), text("utf-32")),
    "byte array by length": call("builtins.bytearray", b"J\xff\xff\xff\x7f"),
    "byte array by length, old name": call("__builtin__.bytearray", b"J\xff\xff\xff\x7f"),
    "byte array by a list": call("builtins.bytearray", b"](J\xff\xff\xff\x7fe"),
    "tensor by sizes": call("torch.FloatTensor", b"J\xff\xff\xff\x7f"),
    "text copied again and again": text("a" * 100_000)
    + b"q\x010"
    + call("_codecs.encode", b"h\x01", text("latin1")) * 10_000,
    "list copied again and again": grown_later(),
    "set of doubled tuples": call("builtins.set", b"]" + doubled(b"N\x85", b"\x86") + b"a"),
    "key of doubled tuples": b"}" + doubled(b"N\x85", b"\x86") + b"Ns",
    "deep tuples": b"N" + b"\x85" * 100_000,
    "call by rebuilding": call(
        "torch._tensor._rebuild_from_type_v2", b"c_codecs\nencode\n", b"N", b"(" + text("a") + text("hex") + b"t"
    ),
    "protocol 4 text": b"\x8d" + struct.pack("<Q", 2**40),
    "long integer": b"\x8b" + struct.pack("<i", 2**31 - 1),
}


def zipped(path: Path, pickled: bytes, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for name, content in records.items():
            archive.writestr(f"archive/data/{name}", content)
    return path


def legacy(path: Path, pickled: bytes) -> Path:
    with io.BytesIO() as file:
        torch.save({"a": torch.ones(1)}, file, _use_new_zipfile_serialization=False)
        prelude = io.BytesIO(file.getvalue())
    for _ in range(3):
        pickle.load(prelude)
    path.write_bytes(prelude.getvalue()[: prelude.tell()] + pickled)
    return path


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_bomb__is_refused_before_torch_reads_it(
    bomb: bytes, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m.pth", START + bomb + STOP)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("torch reads it"))

    with pytest.raises(CheckpointError, match=r"m\.pth"):
        read_weights(path)


def test_instructions__are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "nodes=10")
    path = zipped(tmp_path / "m.pth", START + b"]" * 201 + STOP)

    with pytest.raises(CheckpointError, match="more instructions than 20 for each value, and up to 10 are accepted"):
        read_weights(path)


def stored(
    tensor: bytes = b"K\x00K\x04\x85K\x01\x85", *, elements: int = 4, key: str = "0", kind: str = "FloatStorage"
) -> bytes:
    """A state dict of one tensor; ``tensor`` is its offset, sizes and strides."""
    identity = (
        b"("
        + text("storage")
        + f"ctorch\n{kind}\n".encode()
        + text(key)
        + text("cpu")
        + struct.pack("<cI", b"J", elements)
        + b"tQ"
    )
    hooks = call("collections.OrderedDict")
    return b"}" + text("a") + call("torch._utils._rebuild_tensor_v2", identity, tensor, b"\x89", hooks) + b"s"


def test_storage__of_its_size_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "m.pth", START + stored() + STOP, **{"0": struct.pack("<4f", 1, 2, 3, 4)})

    assert read_state_dict(path)["a"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "pickled",
    [
        stored(elements=5),
        stored(elements=2**31 - 1),
        stored(kind="DoubleStorage"),
        stored(kind="StrangeStorage"),
        stored(key="1"),
        stored(b"K\x01K\x04\x85K\x01\x85"),
        stored(b"K\x00K\x05\x85K\x01\x85"),
        stored(b"K\x00K\x04\x85K\x02\x85"),
        stored(b"K\x00K\x04\x85J\xff\xff\xff\xff\x85"),
        stored(b"K\x00K\x02K\x03\x86K\x03\x85"),
    ],
    ids=["one more", "much more", "wider", "unknown", "missing", "offset", "size", "stride", "negative", "dimensions"],
)
def test_storage__that_claims_more_than_the_file_holds_is_refused(
    pickled: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "m.pth", START + pickled + STOP, **{"0": struct.pack("<4f", 1, 2, 3, 4)})
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("torch reads it"))

    with pytest.raises(CheckpointError, match=r"m\.pth"):
        read_weights(path)


def test_legacy_storages__together_stay_within_the_file() -> None:
    check = PickleCheck(100, None)
    check.follow(io.BytesIO(START + stored(elements=20) + STOP))

    with pytest.raises(ValueError, match="storage 1 claims 80 bytes and the file has 20 for it"):
        check.follow(io.BytesIO(START + stored(elements=20, key="1") + STOP))


def test_archive__with_one_name_in_two_cases_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "m.pth", START + stored() + STOP, **{"0": bytes(16)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/DATA.pkl", START + nested("hex", 29) + STOP)

    with pytest.raises(CheckpointError, match="two entries of the archive have one name"):
        read_weights(path)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_honest_checkpoints__are_read(new: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4))
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.randn(3, 8)).sum().backward()
    optimiser.step()
    base = torch.arange(24.0)
    state = {
        **model.state_dict(),
        "view": base[4:20].view(4, 4).T,
        "empty": torch.empty(0, 5),
        "scalar": torch.tensor(3),
        **{str(dtype): torch.ones(3).to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.bool)},
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
    }
    if new:  # the legacy format has no such dtypes
        state |= {"float8": torch.ones(3).to(torch.float8_e4m3fn), "uint16": torch.ones(3).to(torch.uint16)}
    content = {
        "state_dict": OrderedDict(state),
        "optimizer": optimiser.state_dict(),
        "args": argparse.Namespace(lr=1e-3, names=["a", "b"]),
        "history": np.arange(1000.0),
        "number": np.float64(3.5),
        "milestones": Counter({3: 1}),
        "set": {1, 2},
        "bytes": b"\x00\xff" * 20,
        "path": Path("a/b"),
        "large": 2**70,
    }
    torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=new)

    read = read_state_dict(tmp_path / "m.pth")

    assert read.keys() == state.keys()
    assert all(torch.equal(read[name].float(), state[name].float()) for name in state)
