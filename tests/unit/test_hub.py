"""Models in the form of the Hugging Face hub: a folder, a repository of a local server, and their errors."""

import hashlib
import json
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, errors

import densevit
from densevit.checkpoints.native import Card, TrainedOn, read_header
from densevit.errors import CheckpointError, ConfigError, DataError, OutputError
from densevit.inference.predictor import Predictor
from tests.fake_hub import READER, WRITER, FakeHub, fake_hub
from tests.parity.foreign import write_transformers
from tests.unit.predictors import photo, predictor

ENDPOINT = constants.ENDPOINT
FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub that this process talks to, with the token of a writer and an empty cache."""
    with fake_hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(ENDPOINT, running.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the server has the protocol of git-lfs only
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        yield running


def measured(**card: Any) -> Predictor:
    """A predictor with a card, as a training leaves it."""
    made = predictor()
    metrics = {"main": {"mIoU": 0.5, "aAcc": 0.75, "num_images": 7, "per_class": {}}}
    made.card = Card(**{"name": "tiny", "licence": "Apache-2.0", "metrics": metrics, **card})
    made.trained_on = (TrainedOn(heads=("main",), train={"root": "streets", "split": "train"}, val={"split": "val"}),)
    return made


def header_of(folder: Path) -> dict[str, Any]:
    """The YAML header of a card, as the hub's own library reads it."""
    return huggingface_hub.ModelCard((folder / "README.md").read_text(encoding="utf-8")).data.to_dict()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def predict(model: Predictor) -> Any:
    return model.predict(photo()).segmentation.scores


def test_folder__predicts_as_the_model_to_the_bit(tmp_path: Path) -> None:
    model = measured()

    folder = model.save_pretrained(tmp_path / "new" / "model")
    loaded = densevit.from_pretrained(folder)

    assert names_in(folder) == FILES
    np.testing.assert_array_equal(predict(loaded), predict(model))
    assert (loaded.card, loaded.fit, loaded.trained_on) == (model.card, model.fit, model.trained_on)


def test_weights__stand_by_themselves(tmp_path: Path) -> None:
    model = measured()
    folder = model.save_pretrained(tmp_path / "model")
    (folder / "config.json").unlink()
    (folder / "README.md").unlink()

    np.testing.assert_array_equal(predict(densevit.load(folder / "model.safetensors")), predict(model))


def test_weights__that_were_stored_small_stay_small(tmp_path: Path, small_default: None) -> None:
    model = densevit.load("default")

    small = model.save_pretrained(tmp_path / "model") / "model.safetensors"
    whole = model.save(tmp_path / "whole.safetensors")

    assert read_header(small).model == model.model.config
    assert small.stat().st_size <= whole.stat().st_size


def test_config__is_small_and_true(tmp_path: Path) -> None:
    model = measured()

    config = json.loads((model.save_pretrained(tmp_path / "model") / "config.json").read_text())

    assert config["library_name"] == "densevit"
    assert config["parameters"] == model.model.num_parameters()
    assert config["heads"] == {"main": {"task": "segmentation", "decoder": "segmenter_linear", "num_classes": 5}}
    assert config["license"] == "Apache-2.0"


def test_card__states_licence_task_data_and_metrics_with_their_protocol(tmp_path: Path) -> None:
    header = header_of(measured().save_pretrained(tmp_path / "model", repo_id="anna/tiny"))

    assert header["license"] == "apache-2.0"
    assert (header["library_name"], header["pipeline_tag"]) == ("densevit", "image-segmentation")
    assert header["tags"] == ["densevit", "vision-transformer", "segmenter", "semantic-segmentation"]
    assert (header["datasets"], header["metrics"]) == (["streets"], ["mean_iou", "accuracy"])
    (result,) = header["model-index"][0]["results"]
    assert result["dataset"] == {"type": "streets", "name": "streets", "split": "val"}
    assert [(metric["name"], metric["value"]) for metric in result["metrics"]] == [("mIoU", 0.5), ("aAcc", 0.75)]


def test_card__says_how_to_load_it_and_what_the_file_is(tmp_path: Path) -> None:
    model = measured(provenance=("init from default",), data_licence="research only")

    text = (model.save_pretrained(tmp_path / "model", repo_id="anna/tiny") / "README.md").read_text()

    assert 'predictor = densevit.from_pretrained("anna/tiny")' in text
    assert "| main | mIoU | 0.5 | streets | val |" in text
    assert "| training data | research only |" in text
    assert "- init from default" in text
    assert hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest() in text


@pytest.mark.parametrize(
    ("licence", "stated"),
    [
        ("CC-BY-NC-4.0", {"license": "cc-by-nc-4.0"}),
        ("GPL-3.0-only", {"license": "gpl-3.0"}),
        ("MIT AND Apache-2.0", {"license": ["mit", "apache-2.0"]}),
        ("unknown", {"license": "unknown"}),
        ("As the data allow", {"license": "other", "license_name": "as-the-data-allow"}),
    ],
)
def test_card__has_the_licence_in_the_words_of_the_hub(licence: str, stated: dict[str, Any], tmp_path: Path) -> None:
    header = header_of(measured(licence=licence).save_pretrained(tmp_path / "model"))

    assert {key: header[key] for key in ("license", "license_name") if key in header} == stated


def test_card__has_a_published_metric_with_its_data_and_protocol(tmp_path: Path) -> None:
    model = measured(metrics={"main": {"ADE20K mIoU": 0.4763, "protocol": "whole image, 480"}})
    model.trained_on = ()

    (result,) = header_of(model.save_pretrained(tmp_path / "model"))["model-index"][0]["results"]

    assert result["dataset"] == {"type": "ade20k", "name": "ADE20K"}
    assert result["metrics"] == [
        {"type": "mean_iou", "name": "mIoU", "value": 0.4763, "args": {"protocol": "whole image, 480"}}
    ]


def test_card__shows_a_metric_of_unknown_data_only_in_its_table(tmp_path: Path) -> None:
    model = measured()
    model.trained_on = ()

    folder = model.save_pretrained(tmp_path / "model")

    assert "model-index" not in header_of(folder)
    assert "| main | mIoU | 0.5 |  |  |  |" in (folder / "README.md").read_text()


def test_card__takes_no_word_of_others_for_markup(tmp_path: Path) -> None:
    model = measured(name="a | <b>\n---\nlicense: mit", description="[x](http://y)\n\n# z", provenance=("a\n\n## b",))

    folder = model.save_pretrained(tmp_path / "model")

    text = (folder / "README.md").read_text()
    assert "\n# a \\| \\<b\\> --- license: mit\n" in text
    assert "\n\\[x\\](http://y) \\# z\n" in text
    assert header_of(folder)["license"] == "apache-2.0"


def test_published_files__do_not_tell_where_the_data_were(tmp_path: Path) -> None:
    metrics = {"main": {"mIoU": 0.5, "data": "/home/anna/secret/streets", "model": "/home/anna/m.safetensors"}}

    folder = measured(metrics=metrics).save_pretrained(tmp_path / "model")

    assert read_header(folder / "model.safetensors").card.metrics["main"]["data"] == "streets"
    assert not any(b"/home/anna" in path.read_bytes() for path in folder.iterdir() if path.is_file())


def test_folder__is_written_again(tmp_path: Path) -> None:
    measured().save_pretrained(tmp_path / "model")

    measured(licence="MIT").save_pretrained(tmp_path / "model")

    assert header_of(tmp_path / "model")["license"] == "mit"


def test_folder__keeps_a_card_that_a_person_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = measured().save_pretrained(tmp_path / "model") / "README.md"
    card.write_text(card.read_text().replace("# tiny", "# My model"))
    mine = card.read_text()

    measured().save_pretrained(tmp_path / "model")

    assert card.read_text() == mine
    assert f"{card} is kept, since a person wrote or changed it" in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_folder__with_a_file_of_somebody_else_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")

    with pytest.raises(DataError, match=f"{name} exists, and densevit did not write what is there now"):
        measured().save_pretrained(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_licence__can_be_stated_where_the_card_has_none(tmp_path: Path) -> None:
    folder = measured(licence="unknown").save_pretrained(tmp_path / "model", licence="mit")

    assert read_header(folder / "model.safetensors").card.licence == "MIT"


def test_licence__cannot_allow_more_than_that_of_the_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        measured(licence="CC-BY-NC-4.0").save_pretrained(tmp_path / "model", licence="MIT")

    assert str(caught.value) == (
        "licence 'MIT' allows more than that of these weights, CC-BY-NC-4.0 (non-commercial use only), which also "
        "binds what is made from them; leave it out"
    )
    assert not (tmp_path / "model").exists()


def test_repository__is_created_and_predicts_as_the_model_to_the_bit(hub: FakeHub, tmp_path: Path) -> None:
    model = measured()

    address = model.push_to_hub("anna/tiny")

    assert address.startswith(f"{hub.url}/anna/tiny/commit/")
    assert sorted(hub.repos["anna/tiny"].files()) == [".gitattributes", *FILES]
    for loaded in (densevit.load("hf://anna/tiny"), densevit.from_pretrained("anna/tiny", cache_dir=tmp_path / "c")):
        np.testing.assert_array_equal(predict(loaded), predict(model))
    assert (tmp_path / "c" / "models--anna--tiny").is_dir()


def test_repository__of_a_name_only_is_in_the_own_account(hub: FakeHub) -> None:
    measured().push_to_hub("tiny")

    assert 'from_pretrained("anna/tiny")' in hub.repos["anna/tiny"].files()["README.md"].decode()


def test_repository__can_be_private_and_is_read_with_the_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    measured().push_to_hub("anna/tiny", private=True)
    monkeypatch.delenv("HF_TOKEN")

    with pytest.raises(CheckpointError, match="has no repository anna/tiny that you may read"):
        densevit.from_pretrained("anna/tiny", token=False)
    assert densevit.from_pretrained("anna/tiny", token=READER).card.name == "tiny"


def test_repository__gives_the_revision_that_is_asked_for(hub: FakeHub) -> None:
    measured(name="first").push_to_hub("anna/tiny")
    first = hub.repos["anna/tiny"].branches["main"]

    measured(name="second").push_to_hub("anna/tiny")

    assert densevit.from_pretrained("anna/tiny").card.name == "second"
    assert densevit.from_pretrained("anna/tiny", revision=first).card.name == "first"


def test_repository__keeps_a_card_that_a_person_changed(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    measured().push_to_hub("anna/tiny")
    repo = hub.repos["anna/tiny"]
    repo.commit({**repo.files(), "README.md": b"# Mine"})

    measured(name="other").push_to_hub("anna/tiny")

    assert repo.files()["README.md"] == b"# Mine"
    assert "the README.md of anna/tiny is kept" in caplog.text
    assert densevit.from_pretrained("anna/tiny").card.name == "other"


def test_repository__gets_a_new_card_where_nobody_changed_it(hub: FakeHub) -> None:
    measured().push_to_hub("anna/tiny")

    measured(licence="MIT").push_to_hub("anna/tiny")

    assert b"license: mit" in hub.repos["anna/tiny"].files()["README.md"]


def test_repository__with_weights_of_another_program_is_refused(hub: FakeHub) -> None:
    theirs = {"model.safetensors": b"theirs", "config.json": b'{"model_type": "dpt"}', "README.md": b"theirs"}
    repo = hub.add("anna/dpt", theirs)

    with pytest.raises(CheckpointError, match=r"anna/dpt holds a model.safetensors that densevit did not write"):
        measured().push_to_hub("anna/dpt")
    assert repo.files() == theirs

    measured().push_to_hub("anna/dpt", overwrite=True)
    assert b"library_name: densevit" in repo.files()["README.md"]


def test_commit__fails_if_somebody_commits_in_the_meantime(hub: FakeHub) -> None:
    measured().push_to_hub("anna/tiny")
    hub.race = "anna/tiny"

    with pytest.raises(CheckpointError, match="somebody else has committed in the meantime; look at it and push again"):
        measured(name="second").push_to_hub("anna/tiny")


def test_push__to_a_branch_that_does_not_exist_is_refused(hub: FakeHub) -> None:
    with pytest.raises(CheckpointError, match="anna/tiny has no such branch; create it on the hub"):
        measured().push_to_hub("anna/tiny", branch="v2")


@pytest.mark.parametrize(
    ("repo", "token", "message"),
    [
        ("anna/tiny", "hf_wrong", "anna/tiny was not written: the hub does not accept the token; run `hf auth login`"),
        ("anna/tiny", READER, "anna/tiny was not written: the token may not write there"),
        ("bert/tiny", WRITER, "bert/tiny was not written: the token may not write there"),
    ],
)
def test_push__without_the_right_token_is_refused(repo: str, token: str, message: str, hub: FakeHub) -> None:
    with pytest.raises(CheckpointError) as caught:
        measured().push_to_hub(repo, token=token)

    assert str(caught.value).startswith(message)
    assert repo not in hub.repos


def test_push__without_a_token_is_refused_before_any_work(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))

    with pytest.raises(CheckpointError) as caught:
        measured().push_to_hub("anna/tiny")

    assert str(caught.value) == (
        "anna/tiny cannot be written without a token of the hub; run `hf auth login`, or set HF_TOKEN"
    )
    assert hub.requests == []


def test_push__says_what_the_hub_dislikes_in_the_card(hub: FakeHub) -> None:
    hub.refuse_card = '"license" must be a string'

    with pytest.raises(CheckpointError, match=r'Invalid metadata in README.md.* "license" must be a string'):
        measured().push_to_hub("anna/tiny")


@pytest.mark.parametrize("offline", [True, False])
def test_push__says_when_the_hub_cannot_be_reached(
    offline: bool, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")

    with pytest.raises(CheckpointError, match="upload them later with `hf upload`"):
        measured().push_to_hub("anna/tiny")


@pytest.mark.parametrize("name", ["a/b/c", "", "a b", "../x", "hf://", "a/.."])
def test_push__to_what_is_no_repository_is_refused(name: str, hub: FakeHub) -> None:
    with pytest.raises((ConfigError, CheckpointError), match="is no repository of the hub"):
        measured().push_to_hub(name)


@pytest.mark.parametrize("name", ["default", "no/such/folder", "tiny", "a/b c"])
def test_from_pretrained__refuses_what_is_neither_a_folder_nor_a_repository(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder here and no repository of the hub; give a folder or OWNER/NAM"):
        densevit.from_pretrained(name)


def test_from_pretrained__refuses_a_revision_of_a_folder(tmp_path: Path) -> None:
    folder = measured().save_pretrained(tmp_path / "model")

    with pytest.raises(ConfigError, match="is here and not on the hub, so it has no revision 'main'; leave it out"):
        densevit.from_pretrained(folder, revision="main")


def test_from_pretrained__refuses_an_option_that_nothing_takes(hub: FakeHub) -> None:
    with pytest.raises(ConfigError, match="unknown option 'access'"):
        densevit.from_pretrained("anna/tiny", access=1)


def test_from_pretrained__reads_models_of_other_programs_with_their_licence(hub: FakeHub, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in write_transformers(tmp_path / "dpt").iterdir()}
    card = b"---\nlicense: cc-by-nc-4.0\n---\n# DPT\n"
    hub.add("anna/dpt", {**files, "README.md": card}, private=True)

    model = densevit.from_pretrained("anna/dpt", token=READER, cache_dir=tmp_path / "cache")

    assert model.card.licence == "CC-BY-NC-4.0"
    assert model.model.config.encoder.norm_eps == 1e-12  # from config.json


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            errors.HfHubHTTPError.__bases__[0]("the server left"),
            CheckpointError,
            r"not be downloaded \(the server left",
        ),
        (OSError(ENOSPC, "No space left"), OutputError, r"in the hub's cache \(No space left\); free some space"),
    ],
)
def test_from_pretrained__says_why_a_download_failed(
    error: Exception, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    with pytest.raises(kind, match=message):
        densevit.from_pretrained("anna/tiny")


def test_from_pretrained__refuses_an_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://[::1")

    with pytest.raises(ConfigError, match="HF_ENDPOINT is"):
        densevit.from_pretrained("anna/tiny")


def test_from_pretrained__says_when_the_licence_was_not_accepted(hub: FakeHub) -> None:
    hub.add("anna/tiny", {"model.safetensors": b""}, gated=True)

    with pytest.raises(CheckpointError, match="hf://anna/tiny is gated; accept its licence on"):
        densevit.from_pretrained("anna/tiny", token=False)


def test_command__pushes_and_prints_the_address(hub: FakeHub, cli: Any, tmp_path: Path) -> None:
    path = measured(licence="unknown").save(tmp_path / "m.safetensors")

    outcome = cli("push", path, "anna/tiny", "--licence", "MIT", "--private", "--message", "First")

    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{hub.url}/anna/tiny/commit/")
    assert hub.repos["anna/tiny"].private


def test_command__writes_the_folder_and_uploads_nothing(hub: FakeHub, cli: Any, tmp_path: Path) -> None:
    path = measured().save(tmp_path / "m.safetensors")

    outcome = cli("push", path, "anna/tiny", "--out", tmp_path / "look")

    assert (outcome.code, outcome.out.strip(), hub.requests) == (0, str(tmp_path / "look"), [])
    assert names_in(tmp_path / "look") == FILES


def test_command__that_is_refused_ends_with_2(hub: FakeHub, cli: Any, tmp_path: Path) -> None:
    path = measured().save(tmp_path / "m.safetensors")

    outcome = cli("push", path, "bert/tiny")

    assert outcome.code == 2
    assert "densevit: bert/tiny was not written: the token may not write there" in outcome.err
