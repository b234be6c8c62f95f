"""Who may speak to the dashboard, and how much of it at a time.

A page of somebody else in the user's browser can reach this server, too: directly, or after it has
given its own name the address of this machine (DNS rebinding).  Browsers say which name they were
told (Host) and whose page asks (Origin); both must be names of ours, on every route.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import weakref
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream
from tornado.routing import Matcher
from tornado.web import RequestHandler

from bacpipe.user_input import typed_hosts

logger = logging.getLogger(__name__)

_MOST_PAGES = 16  # in the making; others are asked to come back
_COME_BACK = 2  # seconds
_MOST_TOLD = 20  # names in the log
_LAST_WORDS = 30  # seconds
_EVERYWHERE = frozenset({"0.0.0.0", "::"})

Hosts = frozenset[tuple[str, int | None]]
"""Names of hosts in lower case, with the port; None for that of http or https."""


class Doorkeeper(Matcher):
    """Matches the requests that are refused; goes before all routes of the server.

    Parameters
    ----------
    address : str
        Where the server listens.
    port : int
        Its port.
    others : str or False
        Further names, as in the setting dashboard_websocket_origin.
    """

    def __init__(self, address: str, port: int, others: str | bool) -> None:
        self._port = None if port in {80, 443} else port
        names = {"localhost", "127.0.0.1", "::1", address.lower()}
        if address in _EVERYWHERE:
            name = socket.gethostname().lower()
            names |= {name, f"{name}.local"}
        allowed = {(name, self._port) for name in names - _EVERYWHERE}
        for host, other in typed_hosts(others) if isinstance(others, str) else ():
            # Without a port, it may be a proxy's, on that of http or https, or this server's own.
            allowed |= {(host, other), (host, self._port if other is None else other)}
        self._allowed: Hosts = frozenset(allowed)
        self._told: set[str] = set()
        self._pages: weakref.WeakSet[HTTPServerRequest] = weakref.WeakSet()
        self._connections: weakref.WeakSet[IOStream] = weakref.WeakSet()

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Arguments of `Refusal`; None lets the request pass."""
        if (stream := _stream_of(request)) is not None:
            self._connections.add(stream)
        for header in ("Host", "Origin"):
            names = request.headers.get_list(header)
            if header == "Origin" and not names:
                continue  # not sent when an address is opened
            if len(names) != 1 or not self._is_ours(names[0], request):
                return {"target_kwargs": {"status": 403, "text": self._complain(header, names)}}
        if request.path == "/" and request.method == "GET":
            if len(self._pages) >= _MOST_PAGES:
                text = "The dashboard is busy; this page tries again by itself."
                return {"target_kwargs": {"status": 503, "text": text}}
            self._pages.add(request)
        if request.host.startswith("["):
            request.host = f"localhost:{self._port or 80}"  # Panel cannot read IPv6 addresses
        return None

    def done(self, handler: RequestHandler) -> None:
        """Count a request as answered; Tornado's ``log_function``."""
        self._pages.discard(handler.request)

    def close(self) -> None:
        """End all connections.

        Browsers keep theirs, and would go on asking a server that does not answer any more instead
        of the one that may have come in its place.
        """
        for stream in list(self._connections):
            stream.close()

    async def last_words(self) -> None:
        """Wait for those who serve connections that were ended, and for what they answer.

        Of both, Bokeh makes a traceback once the session is gone.
        """
        loop = asyncio.get_running_loop()
        last = loop.time() + _LAST_WORDS
        while (others := asyncio.all_tasks() - {asyncio.current_task()}) and loop.time() < last:
            await asyncio.wait(others, timeout=last - loop.time())

    def _is_ours(self, text: str, request: HTTPServerRequest) -> bool:
        try:
            ((host, port),) = typed_hosts(text)
        except ValueError:
            return False
        if (host, port) in self._allowed:
            return True
        if port == self._port and host == _local_address(request):
            return True  # no name that anybody could have made up
        return any(
            port == other and name.startswith("*.") and host.endswith(name[1:])
            for name, other in self._allowed
        )

    def _complain(self, header: str, names: list[str]) -> str:
        name = ", ".join(names)[:100].encode("ascii", "backslashreplace").decode()
        text = (
            f"The dashboard refused a request with {header}: {name or 'nothing'}, which is no name "
            f"of this server. If it is yours, allow it: dashboard_websocket_origin=<name>"
        )
        if name not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(name)
            logger.warning("%s", text)
        return text


def _stream_of(request: HTTPServerRequest) -> IOStream | None:
    """The connection that a request came by; None if that is gone."""
    return getattr(request.connection, "stream", None)


def _local_address(request: HTTPServerRequest) -> str | None:
    """Address of this machine at which a request came in; None if its connection is gone."""
    stream = _stream_of(request)
    try:
        return None if stream is None else str(stream.socket.getsockname()[0]).partition("%")[0]
    except (OSError, AttributeError):
        return None


class Refusal(RequestHandler):
    """Says why a request is not answered."""

    def initialize(self, status: int, text: str) -> None:
        """Take what `Doorkeeper.match` found."""
        self._status, self._text = status, text

    def prepare(self) -> None:
        """Answer, whatever the method."""
        self.set_status(self._status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        if self._status == 503:
            self.set_header("Retry-After", str(_COME_BACK))
            self.set_header("Refresh", str(_COME_BACK))
        self.finish(self._text)
