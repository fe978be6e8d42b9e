import os
from pathlib import Path

import pytest

from densevit.checkpoints.importers.side_files import read_config_file, read_literals, read_side_files
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

    with pytest.raises(CheckpointError, match="is a base of itself"):
        read_config_file(tmp_path / "loop.py")


@pytest.mark.parametrize("text", ["model = (", "(" * 5000 + ")" * 5000, "a" * 1_000_001], ids=["cut", "deep", "long"])
def test_config__that_is_no_python_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="the config of x cannot be read"):
        read_literals(text, "x")


@pytest.mark.parametrize("base", ["5", "[5]", "['a.py', None]", "{'a': 1}", "'a\\0b'", "True"])
def test_base__that_is_no_path_is_refused(base: str, tmp_path: Path) -> None:
    (tmp_path / "leaf.py").write_text(f"_base_ = {base}\n")

    with pytest.raises(CheckpointError, match=r"leaf\.py"):
        read_config_file(tmp_path / "leaf.py")


@pytest.mark.parametrize(
    "base", ["/dev/zero", "/etc/passwd", "../other/base.py", "a/../../other/base.py", "/other/base.py"]
)
def test_base__outside_of_the_folder_is_refused_by_name(base: str, tmp_path: Path) -> None:
    for name in ("model", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "base.py").write_text("model = dict(a=1)\n")
    (tmp_path / "model" / "leaf.py").write_text(f"_base_ = {base!r}\n")

    with pytest.raises(CheckpointError, match=f"has a base '{base}' outside of"):
        read_config_file(tmp_path / "model" / "leaf.py")


def test_base__of_a_config_that_the_user_names_may_be_beside_its_folder(tmp_path: Path) -> None:
    for name in ("setr", "_base_"):
        (tmp_path / "configs" / name).mkdir(parents=True)
    (tmp_path / "configs" / "_base_" / "base.py").write_text("model = dict(a=1)\n")
    leaf = tmp_path / "configs" / "setr" / "leaf.py"
    leaf.write_text("_base_ = '../_base_/base.py'\n")

    assert read_side_files(tmp_path / "m.pth", {}, ["*.py"], leaf)["mmseg"] == {"model": {"a": 1}}
    leaf.write_text("_base_ = '../../base.py'\n")
    with pytest.raises(CheckpointError, match="outside of"):
        read_side_files(tmp_path / "m.pth", {}, ["*.py"], leaf)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", ["base.py", "config.json", "variant.yml"])
def test_config__that_is_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "leaf.py").write_text("_base_ = 'base.py'\n")
    wanted = ["*.py"] if name == "base.py" else [name]

    with pytest.raises(CheckpointError, match="it is a device or a pipe"):
        read_side_files(tmp_path / "m.pth", {}, wanted)


def test_bases__that_are_named_many_times_are_read_once(tmp_path: Path) -> None:
    for level in range(30):
        bases = [f"{level + 1}.py"] * 30 if level < 29 else []
        (tmp_path / f"{level}.py").write_text(f"_base_ = {bases}\na{level} = 1\n")

    assert len(read_config_file(tmp_path / "0.py")) == 30


@pytest.mark.parametrize("pair", ["[a{0}, a{0}]", "dict(x=a{0}, y=a{0})", "{{'x': a{0}, 'y': a{0}}}", "(a{0}, a{0})"])
def test_names__that_double_what_they_name_are_refused(pair: str) -> None:
    text = "a0 = [1, 1]\n" + "".join(f"a{i + 1} = {pair.format(i)}\n" for i in range(40)) + "model = dict(a=a40)\n"

    with pytest.raises(CheckpointError, match="with repeated ones counted each time"):
        read_literals(text, "x")


def test_values__that_no_plain_config_has_are_left_out() -> None:
    assert read_literals("a = 1j\nb = b'x'\nc = ...\nd = [1, ...]\ne = 1\n", "x") == {"e": 1}


@pytest.mark.parametrize("text", ['{"a": Infinity}', '{"a": 1e400}', '{"a": ' + "[" * 10**5 + "]" * 10**5 + "}", "{"])
def test_json_config__with_impossible_values_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)

    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        read_side_files(tmp_path / "m.pth", {}, ["config.json"])


@pytest.mark.parametrize("text", ["a: 2026-02-30", "a: 0x_", "a: !!bool x", "a: " + "9" * 5000])
def test_yaml_config__with_impossible_values_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "variant.yml").write_text(text)

    with pytest.raises(CheckpointError, match=r"variant\.yml cannot be read"):
        read_side_files(tmp_path / "m.pth", {}, ["variant.yml"])
