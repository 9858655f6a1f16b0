"""A hub on the loopback interface: the endpoints that a download needs, and the ways they fail."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FalseHub:
    """What the server knows; a test changes it between requests."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.info: dict[str, object] = {}
        self.fail: tuple[int, dict[str, str]] | None = None
        """Status and headers of the answer to everything."""
        self.fail_files: tuple[int, dict[str, str]] | None = None
        """The same for files alone, as a gated repository does it."""
        self.cut = False
        """Files arrive shorter than announced."""
        self.mute = threading.Event()
        """Set: answers wait until `released`."""
        self.released = threading.Event()
        self.requests: list[str] = []
        self.address = ""

    def publish(self, name: str, folder: Path) -> None:
        self.repos[name] = {file.name: file.read_bytes() for file in folder.iterdir()}

    def fetched(self) -> set[str]:
        """Names of the files that were really sent."""
        return {
            r.rpartition("/")[2] for r in self.requests if r.startswith("GET") and "/resolve/" in r
        }


@contextmanager
def false_hub() -> Iterator[FalseHub]:
    hub = FalseHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: FalseHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            hub.requests.append(f"{self.command} {self.path.partition('?')[0]}")
            if hub.mute.is_set():
                hub.released.wait(30)
                return
            failure = hub.fail or (hub.fail_files if "/resolve/" in self.path else None)
            if failure is not None:
                self.send(failure[0], b'{"error": "no"}', failure[1])
                return
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/"):
                self.describe(path.removeprefix("/api/models/"))
            else:
                self.file(path)

        def describe(self, path: str) -> None:
            name, _, rest = path.partition("/revision/") if "/revision/" in path else (path, "", "")
            name, tree, revision = name.partition("/tree/")
            files = hub.repos.get(name)
            if files is None:
                self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif (rest or revision or "main") not in ("main", COMMIT):
                self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif tree:
                entries = [
                    {"type": "file", "path": n, "size": len(b), "oid": _sha(b)}
                    for n, b in files.items()
                ]
                self.send(200, json.dumps(entries).encode(), {})
            else:
                info = {
                    "id": name,
                    "modelId": name,
                    "sha": COMMIT,
                    "private": False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                    "siblings": [
                        {"rfilename": n, "size": len(b), "blobId": _sha(b)}
                        for n, b in files.items()
                    ],
                    **hub.info,
                }
                self.send(200, json.dumps(info).encode(), {})

        def file(self, path: str) -> None:
            name, _, rest = path.strip("/").partition("/resolve/")
            content = hub.repos.get(name, {}).get(rest.partition("/")[2])
            if content is None:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            headers = {"ETag": f'"{_sha(content)}"', "X-Repo-Commit": COMMIT}
            if hub.cut and self.command == "GET":
                content = content[: len(content) // 2]
            self.send(200, content, headers)

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler


def _sha(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
