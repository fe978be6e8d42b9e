"""Published weights by name: every layout of the table through the whole road, from fake servers with tiny weights."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import densevit
from densevit.checkpoints import published
from densevit.checkpoints.native import read_header
from densevit.checkpoints.open import import_file, model_facts
from densevit.checkpoints.published import PUBLISHED, Published, find_published
from densevit.checkpoints.published import store as module
from densevit.checkpoints.published.store import weights_of
from densevit.errors import CheckpointError, ConfigError, OutputError
from tests.disks import files_up_to
from tests.publisher import LAYOUTS, Layout, Place
from tests.web_server import COMMIT, Served, put_on_hub


def refusal(name: str) -> str:
    with pytest.raises(CheckpointError) as error:
        weights_of(name)
    return str(error.value)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.source}-{layout.family}-{layout.task}")
def test_every_layout__is_loaded_by_name(layout: Layout, place: Place, tmp_path: Path) -> None:
    row = place.publish(LAYOUTS[layout], tmp_path / "origin")

    model = densevit.load(row.name)

    files = [file for file in (tmp_path / "origin").iterdir() if not file.name.endswith("_pretrain.pth")]
    path = next(file for file in files if file.suffix in {".pth", ".pt", ".safetensors"})
    expected = import_file(str(path), **row.import_options).bundle
    assert model.model.config == expected.model.config
    for key, tensor in expected.model.state_dict().items():
        assert torch.equal(model.model.state_dict()[key], tensor)
    assert model.protocol == expected.protocol
    assert (model.card.name, model.card.licence) == (row.name, row.licence)
    assert model.heads == tuple(expected.tasks)


def test_second_load__needs_no_network(row: Published, place: Place) -> None:
    first = weights_of(row.name)
    place.server.requests.clear()
    place.server.paths.clear()

    assert weights_of(row.name) == first == place.folder(row.name) / "model.safetensors"
    assert densevit.load(row.name).model.config == model_facts(row.name).model
    assert place.server.requests == []


def test_download__is_not_kept_beside_what_it_became(row: Published, place: Place) -> None:
    weights_of(row.name)

    names = sorted(str(path.relative_to(place.folder(row.name))) for path in place.folder(row.name).rglob("*"))
    assert names == ["model.safetensors", "record.json", "source"]


def test_alias_and_preset__mean_the_same_weights(row: Published, place: Place) -> None:
    place.monkeypatch.setitem(published._SPELLINGS, "another-name", row)

    assert weights_of("another-name") == weights_of(row.name)


def test_card__says_where_the_weights_come_from(row: Published) -> None:
    card = read_header(weights_of(row.name)).card

    (origin,) = row.sources
    assert card.metrics == {"labels": {**row.metrics, "protocol": row.protocol, "source": row.metrics_source}}
    assert origin.address in card.provenance[-2]
    assert "whose first 8 digits are published" in card.provenance[-2]
    assert card.provenance[-1] == f"licence of the weights: {row.licence_source}"


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda _: b""]
)
def test_damaged_cache__is_noticed_and_fetched_again(
    damage: Callable[[bytes], bytes], row: Published, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    path = weights_of(row.name)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))

    assert weights_of(row.name).read_bytes() == whole
    assert caplog.text.count(f"{path} is damaged; it is made again") == 1


@pytest.mark.parametrize("text", ["", "[]", '{"address": 1}', "{}"])
def test_damaged_record__means_that_the_weights_are_fetched_again(text: str, row: Published, place: Place) -> None:
    path = weights_of(row.name)
    (path.parent / "record.json").write_text(text)
    place.server.requests.clear()

    weights_of(row.name)

    assert len(place.server.requests) == 1


def test_weights_of_an_older_conversion__are_converted_again(row: Published, place: Place) -> None:
    weights_of(row.name)
    place.monkeypatch.setattr(module, "CONVERSION", 2)
    place.server.requests.clear()

    weights_of(row.name)
    weights_of(row.name)

    assert len(place.server.requests) == 1


def test_wrong_hash__is_refused_and_nothing_is_kept(row: Published, place: Place) -> None:
    (origin,) = row.sources
    place.use(replace(row, sources=(replace(origin, sha256_prefix="00000000"),)))

    message = refusal(row.name)

    assert "but 00000000... is published, so it is not kept" in message
    assert [path.name for path in place.folder(row.name).rglob("*")] == ["source"]


def test_unknown_hash__is_pinned_and_reported(place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = place.publish(PUBLISHED["segmenter-ti-mask"], tmp_path / "origin")

    path = weights_of(row.name)

    record = json.loads((path.parent / "record.json").read_text())
    sha256 = hashlib.sha256((tmp_path / "origin" / "checkpoint.pth").read_bytes()).hexdigest()
    assert (record["verified"], record["sha256"]) == ("unverified", sha256)
    assert (
        f"the weights of {row.name} are unverified: nobody is known to publish a hash of {row.sources[0].url}; its "
        f"SHA-256 {sha256} is pinned in {path.parent / 'record.json'}"
    ) in caplog.text
    assert "of which none is published: unverified" in read_header(path).card.provenance[-2]


@pytest.mark.parametrize("name", ["segmenter-ti-mask", "intel-dpt-large-ade"])
def test_pinned_hash__is_demanded_from_then_on(name: str, place: Place, tmp_path: Path) -> None:
    row = place.publish(PUBLISHED[name], tmp_path / "origin")
    path = weights_of(name)
    path.write_bytes(b"damaged")
    for served in place.server.paths.values():
        if len(served.data) > 10_000:
            served.data += b" "
    for file in (tmp_path / "hub").rglob("model.safetensors"):
        file.resolve().write_bytes(b"other")

    message = refusal(row.name)

    assert f"pinned at the first use; remove {path.parent / 'record.json'} to accept another file" in message


def test_head_and_encoder__are_two_files_that_become_one(place: Place, tmp_path: Path) -> None:
    row = place.publish(PUBLISHED["dinov2-small-nyu-linear"], tmp_path / "origin")

    path = weights_of(row.name)

    encoder = tmp_path / "origin" / "dinov2_vits14_pretrain.pth"
    sha256 = hashlib.sha256(encoder.read_bytes()).hexdigest()
    assert json.loads((path.parent / "record.json").read_text())["side_sha256"] == {encoder.name: sha256}
    assert read_header(path).card.provenance[-2] == f"{row.sources[0].side_address(encoder.name)}, SHA-256 {sha256}"
    assert list((path.parent / "source").iterdir()) == []


def test_pinned_hash_of_an_encoder__is_demanded_too(place: Place, tmp_path: Path) -> None:
    row = place.publish(PUBLISHED["dinov2-small-nyu-linear"], tmp_path / "origin")
    path = weights_of(row.name)
    path.write_bytes(b"damaged")
    for address, served in place.server.paths.items():
        if address.endswith("_pretrain.pth"):
            served.data += b" "

    message = refusal(row.name)

    assert "dinov2_vits14_pretrain.pth" in message
    assert f"pinned at the first use; remove {path.parent / 'record.json'} to accept another file" in message


def test_pinned_revision__is_that_of_the_first_use(place: Place, tmp_path: Path) -> None:
    row = place.publish(PUBLISHED["intel-dpt-large-ade"], tmp_path / "origin")
    path = weights_of(row.name)
    path.unlink()
    put_on_hub(place.server, "Intel/dpt-large-ade", "model.safetensors", b"newer", commit="f" * 40)

    weights_of(row.name)

    record = json.loads((path.parent / "record.json").read_text())
    assert record["revision"] == COMMIT


def test_second_source__is_asked_when_the_first_has_nothing(row: Published, place: Place) -> None:
    (origin,) = row.sources
    gone = replace(origin, url="https://gone.org/w.pth")
    place.use(replace(row, sources=(gone, origin)))

    weights_of(row.name)

    assert place.server.requests[0][1] == "/gone.org/w.pth"


def test_offline__says_what_to_fetch_and_where_to_put_it(place: Place, tmp_path: Path) -> None:
    row = place.publish(PUBLISHED["segmenter-ti-mask"], tmp_path / "origin")
    place.monkeypatch.delenv("DENSEVIT_MIRROR")
    place.monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    url, variant = row.sources[0].address, row.sources[0].side_address("variant.yml")
    source = place.folder(row.name) / "source"

    assert refusal(row.name) == (
        f"the weights of {row.name} could not be fetched and converted:\n"
        f"  {url} could not be downloaded (HF_HUB_OFFLINE is set)\n"
        f"fetch {url} and {variant} by hand and put them into {source}, or give the path of a copy instead of the name"
    )
    source.mkdir(parents=True, exist_ok=True)
    for name in ("checkpoint.pth", "variant.yml"):
        (source / name).write_bytes((tmp_path / "origin" / name).read_bytes())
    weights_of(row.name)
    assert sorted(path.name for path in source.iterdir()) == ["checkpoint.pth", "variant.yml"]  # they are a person's


def test_offline_hub__takes_files_that_were_put_there(place: Place, tmp_path: Path) -> None:
    row = place.publish(PUBLISHED["intel-dpt-large-ade"], tmp_path / "origin")
    place.server.paths.clear()
    source = place.folder(row.name) / "source"

    message = refusal(row.name)

    assert "https://huggingface.co/Intel/dpt-large-ade/resolve/main/model.safetensors and " in message
    source.mkdir(parents=True, exist_ok=True)
    for file in (tmp_path / "origin").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    assert densevit.load(row.name).card.name == row.name


def test_file_that_was_put_there__is_compared_too(row: Published, place: Place) -> None:
    source = place.folder(row.name) / "source"
    source.mkdir(parents=True)
    file = source / str(row.sources[0].url).rpartition("/")[2]
    file.write_bytes(b"another")

    assert "it is another file or damaged: remove it" in refusal(row.name)
    assert file.read_bytes() == b"another"


def test_page_in_place_of_the_weights__is_not_kept(place: Place, tmp_path: Path) -> None:
    row = place.publish(PUBLISHED["segmenter-ti-mask"], tmp_path / "origin")
    path = "/" + str(row.sources[0].url).removeprefix("https://")
    place.server.paths[path].data = b"<!doctype html><p>Please log in"

    assert "is a web page" in refusal(row.name)
    assert list((place.folder(row.name) / "source").iterdir()) == []


def test_full_disk__leaves_no_weights(row: Published, place: Place) -> None:
    with files_up_to(20_000), pytest.raises(OutputError, match="cannot be written"):
        weights_of(row.name)
    assert not (place.folder(row.name) / "model.safetensors").exists()


def test_full_disk__while_converting_leaves_no_download(row: Published, place: Place) -> None:
    def save(*_: object, **__: object) -> None:
        raise OutputError("no space")

    place.monkeypatch.setattr(module, "save_bundle", save)

    with pytest.raises(OutputError, match="no space"):
        weights_of(row.name)
    assert list((place.folder(row.name) / "source").iterdir()) == []


@pytest.mark.parametrize("cache", ["published/cache", "."])
def test_cache__that_cannot_be_written_is_refused(cache: str, row: Published, place: Place, tmp_path: Path) -> None:
    (tmp_path / "published").write_text("a file where the folder should be")
    place.monkeypatch.setenv("DENSEVIT_CACHE", str(tmp_path / cache))

    with pytest.raises(OutputError, match=r"/published/.* cannot be made .*; name another folder in DENSEVIT_CACHE"):
        weights_of(row.name)


def test_published_model__takes_no_import_overrides(place: Place) -> None:
    with pytest.raises(CheckpointError, match="dpt-large-ade20k is a published model and takes no import overrides"):
        densevit.load("dpt-large-ade20k", num_heads=3)
    assert place.server.requests == []


@pytest.mark.parametrize("option", ["num_classes", "classes"])
def test_other_classes__are_for_create_model(option: str, place: Place) -> None:
    with pytest.raises(ConfigError) as error:
        densevit.load("dpt-large-ade20k", **{option: 3})
    assert str(error.value) == (
        f"load() got {option!r}, but a model has the classes that it was trained with; "
        "densevit.create_model(NAME, num_classes=...) makes one with others, to train, and "
        "densevit.train(data, init=NAME) trains it for those of your data"
    )


def test_random_weights__are_for_create_model(place: Place) -> None:
    with pytest.raises(ConfigError, match=r"never gives random weights; densevit.create_model\(NAME, pretrained=False"):
        densevit.load("dpt-large-ade20k", pretrained=False)


def test_preset_without_weights__is_not_loaded(place: Place) -> None:
    assert find_published("segmenter-s-linear") is None
    with pytest.raises(CheckpointError) as error:
        densevit.load("segmenter-s-linear")
    assert str(error.value) == (
        "segmenter-s-linear is an architecture without published weights, and load() never gives random ones; "
        'densevit.create_model("segmenter-s-linear", pretrained=False) does, and densevit train --preset '
        "segmenter-s-linear trains it"
    )


def test_file__goes_before_a_name(row: Published, place: Place, tmp_path: Path) -> None:
    place.monkeypatch.chdir(tmp_path)
    (tmp_path / row.name).write_bytes(weights_of(row.name).read_bytes())
    place.server.requests.clear()

    densevit.load(row.name)

    assert place.server.requests == []


def test_name_that_is_mistyped__is_corrected() -> None:
    with pytest.raises(CheckpointError, match="did you mean 'dpt-large-ade20k'"):
        densevit.load("dpt-large-ade2k")


@pytest.mark.parametrize(
    "fault",
    [Served(answers=[404]), Served(answers=[403]), Served(location="/loop"), Served(b"other")],
    ids=["404", "403", "circle", "other"],
)
def test_command_line__ends_with_2(fault: Served, row: Published, place: Place, cli: Any, tmp_path: Path) -> None:
    place.server.paths["/loop"] = Served(location="/loop")
    for path in list(place.server.paths):
        if path != "/loop":
            place.server.paths[path] = fault
    photo = Path(__file__).parents[2] / "examples" / "photos" / "street.jpg"

    result = cli("predict", photo, "--model", row.name, "--out", tmp_path / "out")

    assert result.code == 2
    assert f"the weights of {row.name} could not be fetched and converted" in result.err
    assert "Traceback" not in result.err


def test_command_line__predicts_with_a_published_model(row: Published, cli: Any, tmp_path: Path) -> None:
    photo = Path(__file__).parents[2] / "examples" / "photos" / "street.jpg"

    assert cli("predict", photo, "--model", row.name, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "street.json").exists()
