"""Licences of weights: what they allow, how they are announced, and what derived weights inherit."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import pytest

import densevit
import densevit_runtime
from densevit.checkpoints.card_file import header_of, is_sealed, licence_beside, seal
from densevit.checkpoints.derived import Parent, derived_card
from densevit.checkpoints.merge import MergeConfig, merge_bundles
from densevit.checkpoints.native import Card, load_bundle, read_header
from densevit.checkpoints.open import import_file
from densevit.training.train import train
from densevit_runtime import licences
from densevit_runtime.licences import in_words, is_stricter, strictest, terms, usual_form
from tests.e2e.scenes import write_model
from tests.parity.foreign import write_mmseg
from tests.unit.predictors import predictor
from tests.unit.runs import config


@pytest.fixture(autouse=True)
def nothing_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "_announced", set())


def write(path: Path, licence: str, **card: Any) -> Path:
    made = predictor()
    made.card = Card(**{"name": path.stem, "licence": licence, **card})
    return made.save(path)


def announced(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(r.levelno, r.getMessage()) for r in caplog.records if r.getMessage().startswith("licence of the weights")]


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", "permissive"),
        ("apache-2.0", "permissive"),
        ("MIT AND Apache-2.0", "permissive"),
        ("cc-by-4.0", "permissive"),
        ("CC-BY-SA-4.0", "other"),
        ("AGPL-3.0", "other"),
        ("dinov3-license", "other"),
        ("CC-BY-NC-4.0", "non-commercial"),
        ("cc-by-nc-sa-4.0", "non-commercial"),
        ("MIT AND CC-BY-NC-4.0", "non-commercial"),
        ("FAIR Noncommercial Research License", "non-commercial"),
        ("for research and personal use", "non-commercial"),
        ("apple-amlr", "non-commercial"),
        ("NCSA", "other"),
        ("unknown", "unstated"),
        ("unstated", "unstated"),
        (" ", "unstated"),
    ],
)
def test_terms__of_a_licence(licence: str, expected: str) -> None:
    assert terms(licence) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (["MIT", "mit"], "MIT"),
        (["MIT", "Apache-2.0"], "MIT AND Apache-2.0"),
        (["MIT", "CC-BY-NC-4.0"], "CC-BY-NC-4.0"),
        (["CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "MIT"], "CC-BY-NC-4.0 AND CC-BY-NC-SA-4.0"),
        (["MIT", "unknown"], "unstated"),
        (["CC-BY-NC-4.0", "unknown"], "CC-BY-NC-4.0"),
        (["MIT", "my own words"], "my own words"),
        ([], "unstated"),
    ],
)
def test_strictest__of_several(found: list[str], expected: str) -> None:
    assert strictest(found) == expected


def test_spelling__is_that_of_spdx() -> None:
    assert [usual_form(name) for name in ("apache-2.0", "bsd-3-clause", "cc-by-nc-sa-4.0", "My  own", "UNKNOWN")] == [
        "Apache-2.0",
        "BSD-3-Clause",
        "CC-BY-NC-SA-4.0",
        "My own",
        "unstated",
    ]


def test_stricter__is_what_allows_less() -> None:
    assert is_stricter("CC-BY-NC-4.0", "MIT")
    assert not is_stricter("MIT", "Apache-2.0")
    assert not is_stricter("MIT", "CC-BY-NC-4.0")


@pytest.mark.parametrize(
    ("licence", "level", "words"),
    [
        ("OpenRAIL-M", logging.INFO, "OpenRAIL-M"),
        ("CC-BY-NC-4.0", logging.WARNING, "CC-BY-NC-4.0 (non-commercial use only)"),
    ],
)
def test_load__logs_once_what_a_licence_restricts(
    licence: str, level: int, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "m.safetensors", licence)
    caplog.set_level(logging.INFO)

    densevit.load(path)
    densevit.load(path)

    assert announced(caplog) == [(level, f"licence of the weights of {path}: {words}")]


def test_load__says_nothing_of_a_permissive_licence_of_ones_own_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    densevit.load(write(tmp_path / "m.safetensors", "MIT"))

    assert announced(caplog) == []


def test_load__logs_the_licence_of_the_default_model(small_default: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    densevit.load("default")

    assert [message.partition(": ")[0] for _, message in announced(caplog)] == ["licence of the weights of default"]


def test_load__says_nothing_of_a_file_without_a_licence_or_of_random_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "m.safetensors", "unknown")
    caplog.set_level(logging.INFO)

    densevit.load(path)

    assert announced(caplog) == []


def test_unstated_licence__is_named_so() -> None:
    assert in_words("unknown") == "not stated; ask the authors before you use or share them"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: cc-by-nc-4.0\n---\n# X\n", "CC-BY-NC-4.0"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "MIT AND Apache-2.0"),
        ("---\nlicense: other\nlicense_name: dinov3-license\n---\n", "dinov3-license"),
        ("---\r\nlicense: mit\r\n---\r\n", "MIT"),
        ("---\nlicense: unknown\n---\n", "unstated"),
        ("---\ntags: [a]\n---\n", None),
        ("# X\nlicense: mit\n", None),
        ("---\nlicense: {a: 1}\n---\n", None),
    ],
)
def test_card__beside_the_weights_states_their_licence(card: str, licence: str | None, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(card.encode())

    assert licence_beside(tmp_path / "w.safetensors") == licence


@pytest.mark.parametrize("card", [b"---\n{\n---\n", b"---\n- a\n---\n", b"\xff\xfe\xff", b"---\na: &a [*a]\n---\n"])
def test_damaged_card__is_named_in_a_warning(card: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "README.md").write_bytes(card)

    assert licence_beside(tmp_path / "w.safetensors") is None
    assert f"the licence in {tmp_path / 'README.md'} cannot be read" in caplog.text


def test_card__without_a_file_states_none(tmp_path: Path) -> None:
    assert licence_beside(tmp_path / "w.safetensors") is None


def test_seal__is_broken_by_any_change() -> None:
    text = seal("---\nlicense: mit\n---\n# X\n")

    assert is_sealed(text)
    assert is_sealed(text.replace("\n", "\r\n"))
    assert not is_sealed(text.replace("mit", "MIT"))
    assert not is_sealed(text + "More.\n")
    assert not is_sealed("# X\n")
    assert header_of(text) == {"license": "mit"}


def test_import__takes_the_licence_of_the_card_or_of_the_option(tmp_path: Path) -> None:
    path = write_mmseg(tmp_path / "w.pth")
    assert import_file(str(path)).bundle.card.licence == "unstated"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")

    assert import_file(str(path)).bundle.card.licence == "Apache-2.0"
    assert import_file(str(path), licence="mit").bundle.card.licence == "MIT"


def test_convert__keeps_the_licence_and_says_it(cli: Any, tmp_path: Path) -> None:
    path = write_mmseg(tmp_path / "w.pth")

    outcome = cli("convert", path, tmp_path / "m.safetensors", "--licence", "cc-by-nc-4.0")

    assert outcome.out.splitlines()[-1].endswith("licence of the weights: CC-BY-NC-4.0 (non-commercial use only)")
    assert load_bundle(tmp_path / "m.safetensors").card.licence == "CC-BY-NC-4.0"


def test_merged_model__has_the_strictest_licence_and_says_of_what(tmp_path: Path) -> None:
    one = write(tmp_path / "one.safetensors", "MIT", data_licence="free")
    two = write(tmp_path / "two.safetensors", "CC-BY-NC-4.0", data_licence="research", provenance=("made by hand",))
    heads = {name: {"checkpoint": str(path), "head": "main"} for name, path in (("a", one), ("b", two))}

    card = merge_bundles(MergeConfig.parse({"heads": heads, "card": {"name": "both"}})).card

    assert (card.licence, card.data_licence) == ("CC-BY-NC-4.0", "free; research")
    lines = [line.partition("; sha256")[0] for line in card.provenance]
    assert lines == [
        "merged from one (one.safetensors): licence MIT",
        "merged from two (two.safetensors): licence CC-BY-NC-4.0 (non-commercial use only)",
        "two (two.safetensors): made by hand",
        "licence of these weights: CC-BY-NC-4.0 (non-commercial use only); the strictest of those that they were made "
        "from",
    ]


def test_stated_licence__stays_unless_others_bind(caplog: pytest.LogCaptureFixture) -> None:
    def made_from(licence: str) -> str:
        parent = Parent("initialised from", "p", Card(licence=licence), "0")
        return derived_card(Card(licence="MIT"), [parent]).licence

    assert [made_from(licence) for licence in ("Apache-2.0", "unknown", "CC-BY-NC-4.0")] == [
        "MIT",
        "MIT",
        "CC-BY-NC-4.0",
    ]
    assert "the card states the licence MIT, but these weights are made from others under CC-BY-NC-4.0" in caplog.text


def test_card__of_nothing_is_unchanged() -> None:
    assert derived_card(Card(licence="MIT", provenance=("a",)), []) == Card(licence="MIT", provenance=("a",))


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("init", "initialised from"),
        ("encoder_weights", "encoder initialised from"),
        ("teacher", "learnt from the outputs of"),
    ],
)
def test_trained_model__says_what_it_was_made_from(
    key: str, role: str, dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    donor = densevit.Predictor(load_bundle(write_model(tmp_path / "first.safetensors", "coarse")))
    donor.card = Card(name="donor.safetensors", licence="CC-BY-NC-4.0", provenance=("made by hand",))
    path = str(donor.save(tmp_path / "donor.safetensors"))
    source = {key: {"checkpoint": path} if key == "teacher" else path}

    made = train(config(dataset, "coarse", iterations=1, **source), tmp_path / "run")

    sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    card = read_header(made).card
    assert len(announced(caplog)) == 1
    assert card.licence == "CC-BY-NC-4.0"
    assert card.provenance == (
        f"{role} donor.safetensors: licence CC-BY-NC-4.0 (non-commercial use only); sha256 {sha256}",
        "donor.safetensors: made by hand",
        "licence of these weights: CC-BY-NC-4.0 (non-commercial use only); that of those that they were made from",
    )


def test_exported_file__carries_and_says_its_licence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    from densevit_runtime.cli import main

    path = write(tmp_path / "m.safetensors", "CC-BY-NC-4.0", provenance=("made by hand",))
    exported = densevit.export_model(path, tmp_path / "m.onnx")
    caplog.clear()

    model = densevit_runtime.load(tmp_path / "m.onnx")
    with pytest.raises(SystemExit):
        main(["info", str(tmp_path / "m.onnx")])

    assert exported.metadata.card["provenance"] == ["made by hand"]
    assert model.metadata.licence == "CC-BY-NC-4.0"
    assert announced(caplog) == [
        (logging.WARNING, f"licence of the weights of {tmp_path / 'm.onnx'}: CC-BY-NC-4.0 (non-commercial use only)")
    ]
    assert "licence of the weights: CC-BY-NC-4.0 (non-commercial use only)" in capsys.readouterr().out
