"""The HTTP API of the Hugging Face hub on this machine, as far as reading and writing models needs it."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
"""Tokens of the account "anna"; the second may only read."""


@dataclass
class Repo:
    """Files by commit, and the commits of branches."""

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        text = json.dumps([len(self.commits), sorted(files)])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]]


@dataclass
class FakeHub:
    """What the server holds, and every request it got."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    refuse_card: str = ""
    race: str = ""  # a repository in which somebody commits just before a commit of ours

    def add(self, repo_id: str, files: dict[str, bytes], **facts: Any) -> Repo:
        repo = self.repos[repo_id] = Repo(**facts)
        repo.commit(files)
        return repo


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append(f"{self.command} {path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.account = "anna" if token in (WRITER, READER) else ""
        self.writes = token == WRITER
        routes = (
            (r"/api/whoami-v2", self._whoami),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/models/(?P<repo>[^/]+/[^/]+?)(?:/revision/(?P<revision>.+))?", self._info),
            (r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>.+)", self._preupload),
            (r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>.+)", self._commit),
            (r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/lfs/(?P<oid>[0-9a-f]{64})", self._upload),
            (r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)", self._resolve),
        )
        for pattern, answer in routes:
            if match := re.fullmatch(pattern, path):
                answer(**match.groupdict())
                return
        self._error(404, "no such route")

    def _json(self, data: Any, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(data).encode(), status, **{"Content-Type": "application/json", **headers})

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, message: str, code: str = "") -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._json({"error": message}, status, **headers)

    def _repo(self, name: str) -> Repo | None:
        """The repository if it may be read; else the error has been sent, which does not tell what is private."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.account):
            self._error(404 if self.account else 401, "Repository not found", "RepoNotFound")
            return None
        return repo

    def _whoami(self) -> None:
        if self.account:
            self._json({"name": self.account, "type": "user"})
        else:
            self._error(401, "Invalid credentials")

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization'] or self.account}/{asked['name']}"
        url = {"url": f"{self.hub.url}/{name}"}
        if not self.account:
            self._error(401, "Invalid credentials")
        elif not self.writes or not name.startswith(f"{self.account}/"):
            self._error(403, "You don't have the rights to create a model under this namespace")
        elif name in self.hub.repos:
            self._json(url | {"error": "You already created this model repo"}, 409)
        else:
            self.hub.add(name, {".gitattributes": b""}, private=asked.get("visibility") == "private")
            self._json(url)

    def _validate(self) -> None:
        if self.hub.refuse_card:
            self._json({"errors": [{"message": self.hub.refuse_card}], "warnings": []}, 400)
        else:
            self._json({"errors": [], "warnings": []})

    def _info(self, repo: str, revision: str | None) -> None:
        if (found := self._repo(repo)) is None:
            return
        sha = found.branches.get(revision or "main", revision or "")
        if sha not in found.commits:
            self._error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            return
        files = [{"rfilename": name} for name in found.commits[sha]]
        self._json({"id": repo, "modelId": repo, "sha": sha, "siblings": files, "tags": [], "private": found.private})

    def _may_write(self, repo: str) -> bool:
        if not self.writes:
            self._error(403, "Forbidden: the token may not write")
        return self.writes and self._repo(repo) is not None

    def _preupload(self, repo: str, revision: str) -> None:
        if not self._may_write(repo):
            return
        names = [file["path"] for file in json.loads(self.body)["files"]]
        modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
        self._json({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})

    def _batch(self, repo: str) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}}}
            for one in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _upload(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.uploads[oid] = self.body
        self._send(b"")

    def _commit(self, repo: str, revision: str) -> None:
        if not self._may_write(repo):
            return
        held = self.hub.repos[repo]
        if self.hub.race == repo:
            held.commit({**held.files(revision), "note.txt": b"from somebody else"}, revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, held.branches[revision]):
            self._error(412, "A commit has happened since. Please refresh and try again.")
            return
        files = dict(held.files(revision))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        sha = held.commit(files, revision)
        self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{sha}", "commitOid": sha, "success": True})

    def _resolve(self, repo: str, revision: str, file: str) -> None:
        if (found := self._repo(repo)) is None:
            return
        if found.gated and not self.account:
            self._error(403, "Access to this model is restricted", "GatedRepo")
            return
        sha = found.branches.get(revision, revision)
        if sha not in found.commits:
            self._error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        elif file not in found.commits[sha]:
            self._error(404, "Entry not found", "EntryNotFound")
        else:
            body = found.commits[sha][file]
            etag = hashlib.sha256(body).hexdigest()
            self._send(body, **{"X-Repo-Commit": sha, "ETag": f'"{etag}"'})
