"""A hub on this machine: the part of Hugging Face's HTTP protocol that downloads use.

``/{repo}/resolve/{revision}/{file}`` answers with the headers that describe the file
(`X-Repo-Commit`, `X-Linked-Etag`, `X-Linked-Size`) and redirects large files to a content
server under another host name, which understands `Range`.  ``/plain/{name}`` is an ordinary
web server.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@dataclass
class Hub:
    """What the server holds, how it misbehaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Path of a repository and file ('datasets/a/b/file', 'a/b/file') or 'plain/file'."""
    large: set[str] = field(default_factory=set)
    """Files that are stored with git-lfs: redirected, and tagged with their SHA-256."""
    lie_about: set[str] = field(default_factory=set)
    """Files that arrive with other bytes than their hash says."""
    kinds: dict[str, str] = field(default_factory=dict)
    """Content-Type of files that have one."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Where the content of a file is said to be instead."""
    linked_sizes: dict[str, str] = field(default_factory=dict)
    """Sizes that are told of large files instead of their own."""
    endless: set[str] = field(default_factory=set)
    """Files whose content comes without a length and does not end."""
    cut_after: int | None = None
    """Close the connection after this many bytes of a file."""
    cuts_left: int = 0
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """(method, path, Range, Authorization) of each request."""
    endpoint: str = ""
    content_host: str = ""

    def add(self, path: str, content: bytes, *, large: bool = True) -> None:
        self.files[path] = content
        if large:
            self.large.add(path)

    def downloads(self) -> list[str | None]:
        """Range of each transfer of content."""
        return [r for method, path, r, _ in self.requests if method == "GET" and "/cdn/" in path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = self.headers
        self.hub.requests.append(
            (self.command, path, headers.get("Range"), headers.get("Authorization"))
        )
        if path.startswith("/cdn/"):
            self._content(path.removeprefix("/cdn/"))
        elif path.startswith("/plain/"):
            self._content(path.removeprefix("/"))
        else:
            self._resolve(path)

    def _resolve(self, path: str) -> None:
        match = re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        repositories = {
            "/".join(name.split("/")[: 2 + name.startswith("datasets/")]) for name in self.hub.files
        }
        if match is None or match[1] not in repositories:
            self._empty(404, {"X-Error-Code": "RepoNotFound"})
            return
        name = f"{match[1]}/{match[3]}"
        if name not in self.hub.files:
            self._empty(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        content = self.hub.files[name]
        if name not in self.hub.large:
            self._content(name, {"ETag": f'"{git_sha1(content)}"', "X-Repo-Commit": COMMIT})
            return
        self._empty(
            302,
            {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": self.hub.linked_sizes.get(name, str(len(content))),
                "Location": self.hub.redirects.get(name, f"{self.hub.content_host}/cdn/{name}"),
            },
        )

    def _content(self, name: str, headers: dict[str, str] | None = None) -> None:
        if name not in self.hub.files:
            self._empty(404, {})
            return
        if name in self.hub.redirects:
            self._empty(302, {"Location": self.hub.redirects[name]})
            return
        if name in self.hub.endless:
            self._stream()
            return
        content = self.hub.files[name]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        if name in self.hub.lie_about:
            content = bytes(reversed(content))
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if asked and condition in (None, tag):
            start = int(asked[1])
        if start and start >= len(content):
            self._empty(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        self.send_response(206 if start else 200)
        for key, value in {"ETag": tag, **(headers or {})}.items():
            self.send_header(key, value)
        if name in self.hub.kinds:
            self.send_header("Content-Type", self.hub.kinds[name])
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        body = content[start:]
        if self.hub.cut_after is not None and self.hub.cuts_left > 0:
            self.hub.cuts_left -= 1
            body = body[: self.hub.cut_after]
            self.close_connection = True
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):  # the reader has had enough
            while True:
                self.wfile.write(bytes(1 << 16))

    def _empty(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": "0"}.items():
            self.send_header(key, value)
        self.end_headers()


class HubServer:
    """Context manager: a hub that answers on a free port of this machine."""

    def __enter__(self) -> Hub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        port = self._server.server_address[1]
        hub = Hub(endpoint=f"http://127.0.0.1:{port}", content_host=f"http://localhost:{port}")
        self._server.hub = hub  # type: ignore[attr-defined]
        # A short poll lets the test end at once.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return hub

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
