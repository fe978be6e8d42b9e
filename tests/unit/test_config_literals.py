from pathlib import Path

import pytest

from densevit.checkpoints.importers.side_files import read_config_file, read_literals
from densevit.errors import CheckpointError

CONFIG = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='VisionTransformer', num_heads=12, out_indices=(2, 5, 8, 11), shift=-1),
    decode_head=dict(norm_cfg=norm_cfg, loss=[dict(weight=0.4), {'weight': 1.0}]))
"""


def test_config__is_read_as_data() -> None:
    config = read_literals(CONFIG, "x")

    assert config["model"]["backbone"] == {
        "type": "VisionTransformer",
        "num_heads": 12,
        "out_indices": (2, 5, 8, 11),
        "shift": -1,
    }
    assert config["model"]["decode_head"]["norm_cfg"] == {"type": "SyncBN", "requires_grad": True}
    assert config["model"]["decode_head"]["loss"] == [{"weight": 0.4}, {"weight": 1.0}]


def test_config__is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    text = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nnum_heads = __import__('os').getpid()\nok = 1\n"

    assert read_literals(text, "x") == {"ok": 1}
    assert not mark.exists()


def test_config__leaves_out_what_would_need_running() -> None:
    config = read_literals("a = dict(x=1, y=f(2))\nb = [1, g()]\nc = 2 + 2\n", "x")

    assert config == {"a": {"x": 1}}


def test_config__is_merged_with_its_bases(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("model = dict(backbone=dict(num_heads=16, depth=24), head=dict(a=1))\n")
    (tmp_path / "leaf.py").write_text(
        "_base_ = ['./base.py']\nmodel = dict(backbone=dict(depth=12), head=dict(_delete_=True, b=2))\n"
    )

    merged = read_config_file(tmp_path / "leaf.py")

    assert merged == {"model": {"backbone": {"num_heads": 16, "depth": 12}, "head": {"b": 2}}}


def test_config__without_its_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "leaf.py").write_text("_base_ = './absent.py'\n")

    with pytest.raises(CheckpointError, match="cannot read the config"):
        read_config_file(tmp_path / "leaf.py")


def test_config__that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text("_base_ = './loop.py'\n")

    with pytest.raises(CheckpointError, match="bases of bases"):
        read_config_file(tmp_path / "loop.py")


@pytest.mark.parametrize("text", ["model = (", "(" * 5000 + ")" * 5000, "a" * 1_000_001], ids=["cut", "deep", "long"])
def test_config__that_is_no_python_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="the config of x cannot be read"):
        read_literals(text, "x")
