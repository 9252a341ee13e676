"""A hub on the loopback device: what `huggingface_hub` asks of a server to download from and push to a repository.

Files are answered with the hub's headers (`X-Repo-Commit`, the ETag, ranges) and its error codes; a large file's ETag
is its sha256, a small one's its git blob id, as on the real hub. For tests of failures a download can be cut, and a
file's bytes can differ from what its ETag promises.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = (".pt", ".safetensors")


@dataclass
class Hub:
    """`repos[repo][revision]` are the files of a revision by name; `log` the requests as `(method, path, Range)`."""

    url: str = ""
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    cut_after: dict[str, int] = field(default_factory=dict)  # file -> bytes sent before its first download is cut
    promised: dict[str, bytes] = field(default_factory=dict)  # file -> the content that its ETag belongs to
    uploads: dict[str, bytes] = field(default_factory=dict)  # sha256 -> content
    sent: int = 0  # bytes of files

    def commit_of(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """(commit id, files) of a branch, a tag or a commit id; None where there is no such revision."""
        for name, files in self.repos[repo].items():
            digest = hashlib.sha1(name.encode())
            for file in sorted(files):
                digest.update(file.encode() + files[file])
            if revision in (name, digest.hexdigest()):
                return digest.hexdigest(), files
        return None

    def etag(self, file: str, content: bytes) -> str:
        content = self.promised.get(file, content)
        return hashlib.sha256(content).hexdigest() if file.endswith(LARGE) else git_blob_id(content)


def git_blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers on a free port of 127.0.0.1 until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        """Silent: tests read `hub.log`."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.log.append((self.command, path, self.headers.get("Range")))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._revision(match[1], match[2] or "main", self._send_info)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+).*", path):
            self._revision(match[1], match[2], self._send_tree)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._revision(match[1], match[2], lambda commit, files: self._send_file(match[3], commit, files))
        else:
            self._error(404, "EntryNotFound")

    def _revision(self, repo, revision, answer) -> None:
        if repo not in self.hub.repos:
            self._error(404, "RepoNotFound")
        elif (found := self.hub.commit_of(repo, revision)) is None:
            self._error(404, "RevisionNotFound")
        else:
            answer(*found)

    def _send_info(self, commit, files) -> None:
        self._json({"id": "owner/repo", "sha": commit, "siblings": [{"rfilename": name} for name in files]})

    def _send_tree(self, commit, files) -> None:
        self._json([{"type": "file", "path": name, "size": len(c), "oid": git_blob_id(c)} for name, c in files.items()])

    def _send_file(self, file, commit, files) -> None:
        if file not in files:
            self._error(404, "EntryNotFound", {"X-Repo-Commit": commit})
            return
        content = files[file]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{self.hub.etag(file, content)}"', "Accept-Ranges": "bytes"}
        start = 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._answer(206 if start else 200, content[start:], headers, cut=self._cut(file))

    def _cut(self, file) -> int | None:
        return self.hub.cut_after.pop(file, None) if self.command == "GET" else None

    # ------------------------------------------------------------------------------------------------------- pushing

    def do_PUT(self) -> None:
        self.hub.uploads[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, b"", {})

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.log.append((self.command, path, None))
        body = self._body()
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked.get('organization') or 'owner'}/{asked['name']}"
            self.hub.repos.setdefault(repo, {"main": {}})
            self._json({"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif re.search("/preupload/", path):
            files = [file["path"] for file in json.loads(body)["files"]]
            mode = {name: "lfs" if name.endswith(LARGE) else "regular" for name in files}
            self._json({"files": [{"path": n, "uploadMode": mode[n], "shouldIgnore": False} for n in files]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = [{**o, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{o['oid']}"}}} for o in objects]
            self._json({"transfer": "basic", "objects": upload})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", path):
            self._commit(match[1], match[2], [json.loads(line) for line in body.splitlines()])
        else:
            self._error(404, "EntryNotFound")

    def _commit(self, repo, revision, lines) -> None:
        files = self.hub.repos[repo].setdefault(revision, {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        commit, _ = self.hub.commit_of(repo, revision)
        self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit})

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    # ------------------------------------------------------------------------------------------------------ answering

    def _json(self, content: object) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._answer(status, b"", {"X-Error-Code": code} | (headers or {}))

    def _answer(self, status: int, content: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[:cut])
        if "ETag" in headers:
            self.hub.sent += len(content[:cut])
        if cut is not None:
            self.close_connection = True
