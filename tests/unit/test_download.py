"""``fetch_url``: whole files or none, whatever the server and the disk do."""

import hashlib
import multiprocessing
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import Request

import pytest

from densevit.checkpoints import transfer
from densevit.checkpoints.download import cache_folder, fetch_url
from densevit.checkpoints.transfer import Patience
from densevit.checkpoints.web import Redirects
from densevit.errors import CheckpointError, ConfigError, OutputError
from tests.disks import files_up_to
from tests.web_server import Served, Server, serve

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()
IMPATIENT = Patience(timeout_s=0.5, attempts=3, enough=10**9, pause_s=0.0, window_s=0.1, window_bytes=10**6)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("DENSEVIT_MIRROR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running.paths.clear()
    running.requests.clear()
    return running


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.pth"


def fetch(server: Server, into: Path, **options: Any) -> Path:
    return fetch_url(f"{server.url}/w.pth", into, **{"patience": IMPATIENT, **options})


def refusal(server: Server, into: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        fetch(server, into, **options)
    assert not into.exists()
    return str(error.value).replace(server.url, "URL")


def left(into: Path) -> list[str]:
    return sorted(path.name for path in into.parent.iterdir())


@pytest.mark.parametrize("chunked", [False, True])
def test_file__comes_whole_and_nothing_else_is_left(chunked: bool, server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, chunked=chunked)
    told = []

    path = fetch(server, into, sha256=SHA256, size=len(DATA), progress=lambda done, total: told.append((done, total)))

    assert path.read_bytes() == DATA
    assert left(into) == ["weights.pth"]
    assert told[-1] == (len(DATA), None if chunked else len(DATA))


def test_file_that_is_there__is_not_fetched_again(server: Server, into: Path) -> None:
    into.parent.mkdir()
    into.write_bytes(DATA)

    assert fetch(server, into, sha256_prefix=SHA256[:8]) == into
    assert server.requests == []


def test_file_that_is_there__is_never_replaced(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA)
    into.parent.mkdir()
    into.write_bytes(b"mine")

    with pytest.raises(CheckpointError) as error:
        fetch(server, into, sha256=SHA256)

    other = hashlib.sha256(b"mine").hexdigest()
    assert into.read_bytes() == b"mine"
    assert str(error.value) == (
        f"{into} has the SHA-256 {other}, but {SHA256} is published; it is another file or damaged: remove it, and it "
        "is downloaded again"
    )


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"sha256_prefix": "01234567"}, {"size": 7}], ids=lambda wrong: next(iter(wrong))
)
def test_other_file_than_the_published__is_not_kept(wrong: dict[str, Any], server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA)

    message = refusal(server, into, **wrong)

    assert left(into) == []
    assert "published" in message


def test_hash__is_named_with_what_came_instead(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA)

    assert refusal(server, into, sha256_prefix="01234567") == (
        f"what came from URL/w.pth has the SHA-256 {SHA256}, but 01234567... is published, so it is not kept; try "
        "again, and if the message stays, its publisher or a mirror serves another file"
    )


def test_cut_connection__is_resumed_where_it_ended(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, cut=[1000, 500])

    assert fetch(server, into).read_bytes() == DATA
    assert server.asked("/w.pth") == ["", "bytes=1000-", "bytes=1500-"]


def test_cut_download__is_resumed_by_the_next_call(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, cut=[1000, 0, 0])

    assert refusal(server, into) == (
        f"URL/w.pth could not be downloaded (the connection was closed after 1000 of {len(DATA)} bytes, 3 times in a "
        "row, with 1000 bytes, which the next attempt continues)"
    )
    assert fetch(server, into).read_bytes() == DATA
    assert server.asked("/w.pth")[-1] == "bytes=1000-"


def test_changed_file__is_not_joined_to_a_part_of_the_old_one(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, cut=[1000, 0, 0])
    refusal(server, into)
    server.paths["/w.pth"] = Served(DATA[::-1])

    assert fetch(server, into).read_bytes() == DATA[::-1]


def test_changed_file__is_noticed_where_the_server_ignores_if_range(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, cut=[1000, 0, 0], etag='"1"')
    refusal(server, into)
    part = into.with_name("weights.pth.part")
    server.paths["/w.pth"] = Served(DATA, headers={"ETag": '"2"'}, etag='"1"')

    assert fetch(server, into).read_bytes() == DATA
    assert not part.exists()


def test_part_without_mark__is_resumed_only_if_a_hash_can_tell(server: Server, into: Path) -> None:
    for known, ranges in (({}, ["", ""]), ({"sha256": SHA256}, ["", "bytes=1000-"])):
        server.requests.clear()
        server.paths["/w.pth"] = Served(DATA, cut=[1000], etag="")
        assert fetch(server, into, **known).read_bytes() == DATA
        assert server.asked("/w.pth") == ranges
        into.unlink()


def test_server_that_ignores_ranges__begins_again(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, ranges=False, cut=[1000])

    assert fetch(server, into).read_bytes() == DATA
    assert server.asked("/w.pth") == ["", "bytes=1000-"]


def test_complete_part__is_taken(server: Server, into: Path) -> None:
    """As a process leaves it that is killed before the last step."""
    server.paths["/w.pth"] = Served(DATA, cut=[1000, 0, 0])
    refusal(server, into)
    into.with_name("weights.pth.part").write_bytes(DATA)

    assert fetch(server, into, sha256=SHA256).read_bytes() == DATA


def test_part_that_is_too_long__is_fetched_again(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, cut=[1000, 0, 0])
    refusal(server, into)
    into.with_name("weights.pth.part").write_bytes(DATA + b"more")

    assert fetch(server, into).read_bytes() == DATA


@pytest.mark.parametrize("notes", ["", "[]", "{", '{"url": 1}'])
def test_damaged_notes__mean_that_the_part_is_fetched_again(notes: str, server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA)
    into.parent.mkdir()
    into.with_name("weights.pth.part").write_bytes(b"xyz")
    into.with_name("weights.pth.part.json").write_text(notes)

    assert fetch(server, into).read_bytes() == DATA


@pytest.mark.parametrize("length", [len(DATA) + 1, len(DATA) * 1000])
def test_length_that_is_too_large__is_a_cut_connection(length: int, server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, ranges=False, length=length)

    assert f"the connection was closed after {len(DATA)} of {length} bytes, 3 times in a row" in refusal(server, into)


@pytest.mark.parametrize("known", [{"size": len(DATA)}, {"sha256": SHA256}])
def test_length_that_is_too_small__is_noticed(known: dict[str, Any], server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, length=100)

    assert "published" in refusal(server, into, **known)
    assert left(into) == []


def test_endless_file__ends_at_the_limit(server: Server, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEVIT_LIMITS", "download_bytes=5000")
    for chunked in (False, True):
        server.paths["/w.pth"] = Served(DATA, chunked=chunked)
        message = refusal(server, into)
        assert message.endswith(
            "bytes or more, and up to 5,000 are accepted; if it is right, set DENSEVIT_LIMITS=download_bytes=NUMBER"
        )
        assert left(into) == []


def test_slow_server__is_given_up(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, drip_s=0.06)

    assert "bytes came in 0 s, 3 times in a row" in refusal(server, into)


def test_silent_server__is_given_up(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, drip_s=30.0)

    assert "timed out, 3 times in a row" in refusal(
        server, into, patience=Patience(timeout_s=0.1, pause_s=0, attempts=3)
    )


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, "the server answers 404: not there"),
        (410, "the server answers 410: not there"),
        (401, "the server answers 401 Unauthorized"),
        (403, "the server answers 403 Forbidden"),
        (204, "the server answers 204 No Content"),
    ],
)
def test_refusal__is_passed_on_at_once(status: int, reason: str, server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, answers=[status])

    assert refusal(server, into) == f"URL/w.pth could not be downloaded ({reason})"
    assert left(into) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_server__is_asked_again(status: int, server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, answers=[status])

    assert fetch(server, into).read_bytes() == DATA


def test_busy_server__is_not_asked_for_ever(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, answers=[503] * 9)

    assert "the server answers 503 Service Unavailable, 3 times in a row" in refusal(server, into)
    assert len(server.requests) == 3


def test_redirect__is_followed_with_the_range(server: Server, into: Path) -> None:
    server.paths |= {"/w.pth": Served(location="/other.pth"), "/other.pth": Served(DATA, cut=[1000])}

    assert fetch(server, into).read_bytes() == DATA
    assert server.asked("/other.pth") == ["", "bytes=1000-"]


@pytest.mark.parametrize("to", ["/w.pth", "/back", "/1", "", "file:///etc/passwd"])
def test_redirect__in_a_circle_or_to_nowhere_is_refused(to: str, server: Server, into: Path) -> None:
    server.paths |= {"/w.pth": Served(location=to), "/back": Served(location="/w.pth")}
    server.paths |= {f"/{number}": Served(location=f"/{number + 1}") for number in range(1, 30)}

    assert "redirects lead in a circle, or nowhere, or there are more than 10" in refusal(server, into)
    assert len(server.requests) < 15


@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        ("https://a.org/w", "https://b.org/w", True),
        ("http://127.0.0.1/w", "http://b.org/w", True),
        ("https://a.org/w", "http://a.org/w", False),
        ("https://a.org/w", "http://localhost:80/w", True),
        ("https://a.org/w", "http://mirror.org/w", True),
        ("https://a.org/w", "http://mirror.org.evil.org/w", False),
        ("https://a.org/w", "ftp://a.org/w", False),
    ],
)
def test_redirect__does_not_leave_the_encryption(
    old: str, new: str, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answer:
        def close(self) -> None:
            pass

    monkeypatch.setenv("DENSEVIT_MIRROR", "http://mirror.org")
    arguments = (Request(old), Answer(), 302, "Found", {}, new)
    if accepted:
        request = Redirects().redirect_request(*arguments)
        assert request is not None
        assert request.full_url == new
    else:
        with pytest.raises(CheckpointError, match="leads"):
            Redirects().redirect_request(*arguments)


@pytest.mark.parametrize("url", ["http://example.org/w.pth", "ftp://example.org/w.pth", "file:///etc/passwd", "w.pth"])
def test_address_without_encryption__is_refused(url: str, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DENSEVIT_MIRROR", raising=False)
    with pytest.raises(CheckpointError) as error:
        fetch_url(url, into)
    assert str(error.value) == f"{url} is not encrypted; an address that begins with https:// is accepted"


def test_server_that_is_not_there__is_asked_once(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DENSEVIT_MIRROR", raising=False)
    with pytest.raises(CheckpointError, match=r"http://127.0.0.1:1/w.pth could not be downloaded \(Connection refused"):
        fetch_url("http://127.0.0.1:1/w.pth", into)  # with the usual patience, which would take a quarter of a minute


def test_machine_without_network__asks_only_the_mirror(
    server: Server, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=r"https://example.org/a/w.pth could not .*\(HF_HUB_OFFLINE is set\)"):
        fetch_url("https://example.org/a/w.pth", into)

    monkeypatch.setenv("DENSEVIT_MIRROR", server.url + "/m/")
    server.paths["/m/example.org/a/w.pth"] = Served(DATA)
    assert fetch_url("https://example.org/a/w.pth", into).read_bytes() == DATA


def test_mirror__may_have_the_paths_without_the_hosts(
    server: Server, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DENSEVIT_MIRROR", server.url)
    server.paths["/a/w.pth"] = Served(DATA)

    assert fetch_url("https://example.org/a/w.pth", into).read_bytes() == DATA
    assert [path for _, path, _ in server.requests] == ["/example.org/a/w.pth", "/a/w.pth"]


def test_mirror__is_no_excuse_for_another_file(server: Server, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEVIT_MIRROR", server.url)
    server.paths["/a/w.pth"] = Served(b"other")

    with pytest.raises(CheckpointError, match=r"what came from https://example.org/a/w.pth has the SHA-256"):
        fetch_url("https://example.org/a/w.pth", into, sha256=SHA256)


@pytest.mark.parametrize("variable", ["DENSEVIT_MIRROR", "HF_ENDPOINT"])
@pytest.mark.parametrize("mirror", ["mirror.org", "ftp://mirror.org", "https://", "/data/mirror", "http://[::1"])
def test_mirror__that_is_no_address_is_refused(
    variable: str, mirror: str, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, mirror)
    with pytest.raises(ConfigError, match=f"{variable} is"):
        fetch_url("https://huggingface.co/me/model/resolve/main/w.pth", into)


def test_full_disk__is_noticed_before_it_is(server: Server, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.paths["/w.pth"] = Served(DATA)
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))

    with pytest.raises(OutputError) as error:
        fetch(server, into)

    assert str(error.value) == (
        f"{server.url}/w.pth needs 10,240 bytes, but 1 are free in {into.parent}; free some space, or name a folder on "
        "another disk in DENSEVIT_CACHE"
    )
    assert left(into) == []


def test_full_disk__leaves_nothing(server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA)

    with files_up_to(5000), pytest.raises(OutputError, match=r"weights.pth.part cannot be written \(File too large\)"):
        fetch(server, into)

    assert left(into) == []


@pytest.mark.parametrize("start", [threading.Thread, multiprocessing.get_context("fork").Process])
def test_several_at_once__fetch_the_file_once(start: Any, server: Server, into: Path) -> None:
    server.paths["/w.pth"] = Served(DATA, drip_s=0.001)
    patient = {"patience": Patience(), "sha256": SHA256}
    others = [start(target=fetch, args=(server, into), kwargs=patient) for _ in range(3)]

    for other in others:
        other.start()
    for other in others:
        other.join()

    assert into.read_bytes() == DATA
    assert server.asked("/w.pth") == [""]


class Place(NamedTuple):
    variables: dict[str, str]
    folder: str


@pytest.mark.parametrize(
    "place",
    [
        Place({"DENSEVIT_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        Place({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/densevit"),
        Place({"XDG_CACHE_HOME": "b", "HOME": "/c"}, "/c/.cache/densevit"),
    ],
)
def test_cache__is_where_the_environment_says(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DENSEVIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in place.variables.items():
        monkeypatch.setenv(name, value)

    assert cache_folder() == Path(place.folder)
