import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field, ValidationError, field_validator

from densevit.config import Config, apply_overrides, merge, nearest, read_yaml, set_values, to_yaml
from densevit.errors import ConfigError
from densevit.model import ModelConfig


class Sgd(Config):
    kind: Literal["sgd"] = "sgd"
    momentum: float = 0.9


class Adam(Config):
    kind: Literal["adam"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)


class Run(Config):
    epochs: int = Field(default=10, gt=0)
    learning_rate: float = 1e-3
    name: str = "run"
    optim: Annotated[Sgd | Adam, Field(discriminator="kind")] = Sgd()

    @field_validator("name")
    @classmethod
    def _not_empty(cls, name: str) -> str:
        if not name:
            raise ValueError("name must not be empty")
        return name


def refusal(data: Any) -> str:
    """The message with which ``Run`` refuses the data."""
    with pytest.raises(ConfigError) as caught:
        Run.parse(data, source="run.yaml")
    return str(caught.value)


def test_parse__takes_what_plain_gives() -> None:
    run = Run(epochs=3, optim=Adam(betas=(0.8, 0.9)))

    assert Run.parse(run.plain()) == run


def test_parse__names_the_nearest_key() -> None:
    assert refusal({"epoch": 3}) == "run.yaml is not a valid Run:\n  epoch: unknown key; did you mean 'epochs'?"


def test_parse__lists_the_known_keys_when_none_is_near() -> None:
    message = refusal({"zzz": 3})

    assert message.endswith("zzz: unknown key; known: betas, epochs, kind, learning_rate, momentum, name, optim")


def test_parse__names_the_nearest_key_of_a_nested_config() -> None:
    assert "unknown key; did you mean 'momentum'?" in refusal({"optim": {"kind": "sgd", "momentm": 0.5}})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"momentum": 0.5}, "momentum: unknown key; did you mean 'optim.momentum'?"),
        ({"momentun": 0.5}, "momentun: unknown key; did you mean 'optim.momentum'?"),
        ({"optim": {"kind": "sgd", "epochs": 3}}, "optim.sgd.epochs: unknown key; did you mean 'epochs'?"),
        ({"optim": {"kind": "sgd", "beta": 3}}, "optim.sgd.beta: unknown key; did you mean 'betas'?"),
    ],
)
def test_parse__names_a_key_of_another_place_with_its_path(data: Any, message: str) -> None:
    assert message in refusal(data)


def test_parse__names_keys_in_lists_and_mappings_as_set_takes_them() -> None:
    class Part(Config):
        width: int = 1

    class Whole(Config):
        parts: tuple[Part, ...] = ()
        named: dict[str, Run] = Field(default_factory=dict)

    for key, path in (("width", "parts.0.width"), ("epochs", "named.NAME.epochs")):
        with pytest.raises(ConfigError, match=f"{key}: unknown key; did you mean '{path}'?"):
            Whole.parse({key: 1})


def test_set_values__takes_paths_and_mappings() -> None:
    data = {"optim": {"kind": "sgd", "momentum": 0.9}, "sources": [{"weight": 1}]}

    assert set_values(data, {"optim.momentum": 0.5, "optim": {"lr": 1}, "sources.0.weight": 2, "name": "x"}) == {
        "optim": {"kind": "sgd", "momentum": 0.5, "lr": 1},
        "sources": [{"weight": 2}],
        "name": "x",
    }
    with pytest.raises(ConfigError, match=r"sources.1.weight = 2 but sources is a list of 1"):
        set_values(data, {"sources.1.weight": 2})


def test_parse__names_the_nearest_key_of_a_decoder() -> None:
    decoder = {"kind": "setr_pup", "aux_tap": [0]}
    data = {
        "encoder": {"embed_dim": 8, "depth": 1, "num_heads": 1, "positions": {"kind": "rotary"}, "taps": [0]},
        "heads": {"main": {"decoder": decoder, "out_channels": 2}},
    }

    with pytest.raises(ConfigError, match=r"heads\.main\.decoder\.aux_tap: unknown key; did you mean 'aux_taps'\?"):
        ModelConfig.parse(data)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("setr_pop", "heads.main.decoder: decoder kind 'setr_pop' is unknown; did you mean 'setr_pup'?"),
        (
            "fcn",
            "heads.main.decoder: decoder kind 'fcn' is unknown; "
            "known: dpt, linear, segmenter_linear, segmenter_mask, setr_mla, setr_naive, setr_pup",
        ),
    ],
)
def test_parse__names_the_decoders_there_are(kind: str, message: str) -> None:
    data = {
        "encoder": {"embed_dim": 8, "depth": 1, "num_heads": 1, "positions": {"kind": "rotary"}, "taps": [0]},
        "heads": {"main": {"decoder": {"kind": kind}, "out_channels": 2}},
    }

    with pytest.raises(ConfigError, match=re.escape(message)):
        ModelConfig.parse(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (
            {"epochs": "many"},
            "epochs: Input should be a valid integer, unable to parse string as an integer (got 'many')",
        ),
        ({"epochs": 0}, "epochs: Input should be greater than 0 (got 0)"),
        ({"learning_rate": float("nan")}, "learning_rate: Input should be a finite number (got nan)"),
        ({"learning_rate": float("inf")}, "learning_rate: Input should be a finite number (got inf)"),
        ({"name": ""}, "name: name must not be empty (got '')"),
        (
            {"optim": {"kind": "adamm"}},
            "optim: Input tag 'adamm' found using 'kind' does not match any of the expected tags: 'sgd', 'adam'",
        ),
    ],
)
def test_parse__says_what_was_given_and_what_is_accepted(data: dict[str, Any], problem: str) -> None:
    assert refusal(data) == f"run.yaml is not a valid Run:\n  {problem}"


def test_parse__names_every_problem_on_a_line_of_its_own() -> None:
    lines = refusal({"epochs": 0, "nam": "x"}).splitlines()

    assert [line.split(":")[0].strip() for line in lines[1:]] == ["epochs", "nam"]


def test_config__cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Run().epochs = 3  # type: ignore[misc]


def test_yaml__keeps_the_order_of_definition() -> None:
    assert list(yaml.safe_load(to_yaml(Run()))) == ["epochs", "learning_rate", "name", "optim"]


def test_yaml__comes_back_from_disk(tmp_path: Path) -> None:
    run = Run(learning_rate=3e-5, name="Straße", optim=Adam())
    (tmp_path / "run.yaml").write_text(to_yaml(run), encoding="utf-8")

    assert Run.parse(read_yaml(tmp_path / "run.yaml")) == run


def test_read_yaml__names_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"

    with pytest.raises(ConfigError, match=re.escape(f"cannot read config {path}: No such file or directory; give the")):
        read_yaml(path)


def test_read_yaml__refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"cannot read config {tmp_path}: Is a directory")):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epochs: [1, 2", "is not valid YAML: "),
        (b"epochs: \xff", "is not valid YAML: "),
        (b"key: !!python/object/apply:os.getcwd []", "is not valid YAML: "),
        (b"- 1\n- 2\n", "holds list, but a config is a mapping of keys to values"),
        (b"", "holds NoneType, but a config is a mapping of keys to values"),
    ],
)
def test_read_yaml__refuses_what_is_no_mapping(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=re.escape(f"{path} {message}")):
        read_yaml(path)


def test_read_yaml__names_the_line_at_fault(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("epochs: 3\nname: [x\n")

    with pytest.raises(ConfigError, match="line 3"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1, 2, 3]}, {"a": [4]}, {"a": [4]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"o": {"kind": "sgd", "momentum": 1}}, {"o": {"momentum": 2}}, {"o": {"kind": "sgd", "momentum": 2}}),
        ({"o": {"kind": "sgd", "momentum": 1}}, {"o": {"kind": "sgd"}}, {"o": {"kind": "sgd", "momentum": 1}}),
        ({"o": {"kind": "sgd", "momentum": 1}}, {"o": {"kind": "adam"}}, {"o": {"kind": "adam"}}),
        ({"a": {"o": {"kind": "x", "y": 1}, "z": 1}}, {"a": {"o": {"kind": "w"}}}, {"a": {"o": {"kind": "w"}, "z": 1}}),
    ],
    ids=["new key", "nested", "list", "none", "mapping for scalar", "part", "same kind", "other kind", "nested kind"],
)
def test_merge__lays_one_over_the_other(base: dict[str, Any], over: dict[str, Any], merged: dict[str, Any]) -> None:
    assert merge(base, over) == merged


def test_merge__changes_neither_side() -> None:
    base, over = {"a": {"b": 1}}, {"a": {"c": 2}}

    merge(base, over)["a"]["d"] = 3

    assert (base, over) == ({"a": {"b": 1}}, {"a": {"c": 2}})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("3e-5", 3e-5),
        ("-2E3", -2000.0),
        ("0.5", 0.5),
        ("true", True),
        ("null", None),
        ("[1, 2]", [1, 2]),
        ("{b: 1}", {"b": 1}),
        ("resnet", "resnet"),
        ("'3'", "3"),
        ("nan", "nan"),
        (".nan", pytest.approx(float("nan"), nan_ok=True)),
        ("a=b", "a=b"),
        ("", None),
        ("[1", "[1"),
    ],
)
def test_override__reads_the_value_as_yaml(text: str, value: object) -> None:
    assert apply_overrides({}, [f"a={text}"]) == {"a": value}


def test_override__reaches_nested_keys() -> None:
    assert apply_overrides({"a": {"b": {"c": 1}, "d": 2}}, ["a.b.c=3"]) == {"a": {"b": {"c": 3}, "d": 2}}


def test_override__makes_the_mappings_on_its_way() -> None:
    assert apply_overrides({"a": None}, ["a.b.c=3", "d.e=4"]) == {"a": {"b": {"c": 3}}, "d": {"e": 4}}


def test_override__the_later_one_wins() -> None:
    assert apply_overrides({}, ["a=1", "a=2"]) == {"a": 2}


def test_override__of_a_kind_drops_the_old_kinds_keys() -> None:
    data = {"optim": {"kind": "sgd", "momentum": 0.5}}

    assert apply_overrides(data, ["optim.kind=adam"]) == {"optim": {"kind": "adam"}}


def test_override__leaves_its_base_alone() -> None:
    data = {"a": {"b": 1}}

    apply_overrides(data, ["a.b=2"])

    assert data == {"a": {"b": 1}}


@pytest.mark.parametrize("pair", ["optim.lr", "=3", "  =3", ""])
def test_override__refuses_what_is_no_pair(pair: str) -> None:
    message = f"--set got {pair!r} but takes KEY=VALUE, for example --set optim.lr=3e-5"

    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        apply_overrides({}, [pair])


@pytest.mark.parametrize(
    ("pair", "where", "held"),
    [("a.b.c=1", "a.b", "5"), ("taps.0.x=1", "taps.0", "2"), ("name.x.y=1", "name", "'run'")],
)
def test_override__refuses_to_walk_through_a_value(pair: str, where: str, held: str) -> None:
    data = {"a": {"b": 5}, "taps": [2, 5], "name": "run"}
    message = f"--set got {pair!r} but {where} is {held}, which has no keys; set {where} as a whole"

    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        apply_overrides(data, [pair])


def test_override__counts_the_items_of_a_list() -> None:
    data = {"sources": [{"train": {"root": "a"}, "batch_size": 2}, {"batch_size": 3, "weight": 2}], "taps": [2, 5]}

    found = apply_overrides(data, ["sources.1={batch_size: 8}", "sources.0.train.root=b", "taps.1=7"])

    assert found == {
        "sources": [{"train": {"root": "b"}, "batch_size": 2}, {"batch_size": 8, "weight": 2}],
        "taps": [2, 7],
    }
    assert data["sources"] == [{"train": {"root": "a"}, "batch_size": 2}, {"batch_size": 3, "weight": 2}]


@pytest.mark.parametrize("item", ["2", "-1", "x", ""])
def test_override__refuses_an_item_that_a_list_lacks(item: str) -> None:
    held = "a list of 2; its items are taps.0 to taps.1; or set taps as a whole"
    message = f"--set got 'taps.{item}=1' but taps is {held}"

    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        apply_overrides({"taps": [2, 5]}, [f"taps.{item}=1"])


def test_nearest__gives_the_close_name_else_all_in_order() -> None:
    assert (nearest("dtp", ["setr", "dpt"]), nearest("x", ["setr", "dpt"])) == (
        "; did you mean 'dpt'?",
        "; known: dpt, setr",
    )
