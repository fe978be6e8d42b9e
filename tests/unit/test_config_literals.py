import os
from pathlib import Path
from typing import Any

import pytest

from densevit.checkpoints.importers.python_config import Settings, Unknown, read_literals
from densevit.checkpoints.importers.side_files import read_config_file, read_side_files
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

    assert known(read_literals(text, "x")) == {"ok": 1}
    assert not mark.exists()


def known(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if not isinstance(value, Unknown)}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("10 ** -5", 1e-5),
        ("2 * 512", 1024),
        ("-(3 - 7) // 2", 2),
        ("n % 2 + n / 2", 3.5),
        ("'a' + 'b'", "ab"),
        ("[1] + [n]", [1, 5]),
        ("(1,) + (2,)", (1, 2)),
        ("dict(base, b=2)", {"a": [1, 2], "b": 2}),
        ("dict(**base, b=2)", {"a": [1, 2], "b": 2}),
        ("{**base, 'a': 0}", {"a": 0}),
        ("base['a'][-1]", 2),
    ],
)
def test_simple_expressions__are_computed(expression: str, value: object) -> None:
    assert read_literals(f"n = 5\nbase = dict(a=[1, 2])\nx = {expression}\n", "x")["x"] == value


@pytest.mark.parametrize(
    "expression",
    [
        *("f()", "f'{n}'", "n.real", "n > 1", "not n", "10 ** 100", "9 ** 9 ** 9", "n / 0", "(-8) ** 0.5", "'a' * 3"),
        *("'%d' % n", "[*base]", "base['c']", "base[0]", "lambda: 1", "1j", "b'x'", "...", "{1}", "f().a", "y"),
    ],
)
def test_other_expressions__are_unknown(expression: str) -> None:
    config = read_literals(f"n = 5\nbase = dict(a=[1, 2])\nx = {expression}\ny = 1\n", "x")

    assert isinstance(config["x"], Unknown)
    assert config["y"] == 1


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("model = f()", "model is computed in the config (f())"),
        ("model.update(head=dict(act='b'))", "model is computed in the config (model.update("),
        ("model['head'].pop('act')", "(model['head'].pop('act'))"),
        ("old = model['head'].pop('act')", "(model['head'].pop('act'))"),
        ("head.update(f())", "model.head is computed"),
        ("patch(model)", "(patch(model))"),
        ("patch(config=model)", "(patch(config=model))"),
        ("del model['head']['act']", "(del model['head']['act'])"),
        ("model['head'] |= f()", "model is computed"),
        ("model |= dict(head=dict(act='b'))", "model is computed"),
        ("model.head = 5", "model is computed"),
        ("model['head']['act'] = f()", "model.head.act is computed in the config (f())"),
        ("if n: model = {}", "model is computed"),
        ("for n in range(3): model['head'] = n", "model is computed"),
        ("for model in range(3): pass", "model is computed"),
        ("with read_base(): from .base import *", "the whole config is computed"),
        ("from base import model", "model is computed in the config (from base import model)"),
        ("model = dict(head=dict(act='a', **f()))", "model.head is computed in the config (f())"),
        ("model = dict(head=dict({f(): 1}, act='a'))", "model.head is computed"),
        ("model, n = f()", "model is computed"),
        ("def model(): pass", "model is computed"),
        ("n = (model := {})", "model is computed"),
        ("dict = f\nmodel = dict(head=1)", "model is computed"),
    ],
)
def test_statements__that_change_a_value_make_it_unknown(statement: str, what: str) -> None:
    text = f"n = 1\nhead = dict(act='a')\nmodel = dict(head=head)\n{statement}\n"

    with pytest.raises(CheckpointError) as error:
        repr(Settings(read_literals(text, "x"), "m.pth")["model"]["head"]["act"])
    assert what in str(error.value)
    assert "write its value" in str(error.value)


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("model['head']['act'] = 'b'", "b"),
        ("head['act'] = 'b'", "b"),  # which the model holds
        ("copy = dict(**head)\ncopy['act'] = 'b'", "a"),
        ("print(model)", "a"),
        ("del head", "a"),
        ("a, (b, c) = 1, (2, 3)\nmodel['head']['act'] = c", 3),
        ("p = q = 4\nmodel['head']['act'] = p * q", 16),
        ("optimizer = dict(lr=f())\ntrain_pipeline = [f(), dict(a=f)]\nimport os\nos.mkdir('x')", "a"),
    ],
)
def test_statements__that_leave_values_known(statement: str, value: object) -> None:
    text = f"head = dict(act='a')\nmodel = dict(head=head)\n{statement}\n"

    assert Settings(read_literals(text, "x"), "m.pth")["model"]["head"]["act"] == value


@pytest.mark.parametrize(
    "text",
    [
        "a = [" + "0," * 1000 + "]\n" + "a = a + [1]\n" * 2000,
        "a = '" + "x" * 10_000 + "'\n" + "b = a + a\n" * 2000,
        "a = dict(" + ", ".join(f"k{i}=0" for i in range(1000)) + ")\n" + "b = dict(**a)\n" * 2000,
        "a = (" + "0," * 1000 + ")\n" + "f(a)\n" * 2000,
    ],
    ids=["lists", "texts", "mappings", "changes"],
)
def test_copies__are_bounded_in_all(text: str) -> None:
    with pytest.raises(CheckpointError, match="it copies more values"):
        read_literals(text, "x")


def test_base__that_is_computed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "leaf.py").write_text("_base_ = [f(), './base.py']\n")

    with pytest.raises(CheckpointError, match=r"leaf\.py: _base_\[0\] is computed in the config \(f\(\)\)"):
        read_config_file(tmp_path / "leaf.py")


def test_unknown_values__of_a_base_stay_until_they_are_stated(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("model = dict(neck=dict(a=f(), b=g()))\n")
    (tmp_path / "leaf.py").write_text("_base_ = './base.py'\nmodel = dict(neck=dict(a=1))\n")
    neck = Settings(read_config_file(tmp_path / "leaf.py"), "m.pth")["model"]["neck"]

    assert neck["a"] == 1
    with pytest.raises(CheckpointError, match=r"model\.neck\.b is computed"):
        neck.get("b")


def test_file__with_a_computed_model_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "infer.py").write_text("from mmseg.apis import init_model\nmodel = init_model('a', 'b')\n")

    assert "mmseg" not in read_side_files(tmp_path / "m.pth", {}, ["*.py"])
    assert "infer.py is passed over: it computes its model (init_model('a', 'b'))" in caplog.text


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
