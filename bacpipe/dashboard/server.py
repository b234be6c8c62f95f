"""Opening the dashboard: a server on this machine, or an object for `panel serve` and notebooks."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import webbrowser
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any, ParamSpec, TypeVar

import panel as pn
from panel.io.resources import LOCAL_DIST
from panel.reactive import Syncable
from tornado.routing import Rule

from bacpipe.dashboard.access import Doorkeeper, Refusal
from bacpipe.dashboard.background import SERVING
from bacpipe.dashboard.page import Page
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.errors import BacpipeError, SettingsError
from bacpipe.models.zoo import canonical_name
from bacpipe.options import make_options, with_changes
from bacpipe.store.data_set_folder import computed_models
from bacpipe.store.selection import data_set_of
from bacpipe.user_input import in_notebook

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")
_PORTS_TRIED = 100
_PATIENCE = 60_000  # milliseconds until a page that its browser has not opened is thrown away
# The page sends no bodies, and whoever says nothing is hung up on.
_HTTP_LIMITS = {
    "max_body_size": 100_000,
    "max_header_size": 65_536,
    "idle_connection_timeout": 60.0,
    "body_timeout": 30.0,
}


class DashboardError(BacpipeError, RuntimeError):
    """The dashboard cannot be opened."""


def app(models: str | Sequence[str] | None = None, **kwargs: Any) -> Any:
    """Page of the dashboard, for ``panel serve`` and notebooks.

    Parameters
    ----------
    models : str or sequence of str, optional
        Models to show; by default all that have results for the recordings.
    **kwargs
        ``audio_dir`` and any key of ``bacpipe.config`` and ``bacpipe.settings``;
        ``main_results_dir`` says where results are, ``models`` which are shown, and
        ``edit`` whether visitors may mark and teach.

    Returns
    -------
    panel.Column
        ``.servable()`` makes it the page of a script that ``panel serve`` runs; the last line
        of a notebook's cell shows it there.

    Raises
    ------
    SettingsError
        If no folder is named.
    ResultsNotFoundError
        If there are no results and no models are named.
    """
    _load_extensions()
    data_set = open_data_set(models, **kwargs)
    if data_set.options.edit is None:  # who can reach the server of `panel serve` is not known
        changed = with_changes(data_set.options, edit=in_notebook())
        data_set = DataSetResults(data_set.audio_dir, data_set.models, changed)
    # `panel serve` runs its script for every visitor; what was read for one serves the others.
    shared = f"bacpipe {data_set.models} {data_set.options}"
    return Page(pn.state.cache.setdefault(shared, data_set)).panel


def visualize_using_dashboard(
    models: str | Sequence[str] | None,
    dashboard_port: int = 5006,
    dashboard_address: str = "localhost",
    dashboard_websocket_origin: bool | str = False,
    *,
    show: bool = True,
    block: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Open the dashboard in the browser.

    Parameters
    ----------
    models : str or sequence of str, or None
        Models to show; None shows all that have results.
    dashboard_port : int
        Port; the next free one is taken when it is in use.
    dashboard_address : str
        Address to listen on.  'localhost' can be reached from this machine only.
    dashboard_websocket_origin : bool or str
        Other hosts under which the dashboard may be opened, such as ``myserver:5006``,
        ``https://bio.example.org`` or ``*.example.org``, with commas between several; False:
        none.
    show : bool
        False does not open a browser.
    block : bool, optional
        True serves until Ctrl-C; False serves in a thread and returns.  Unless given, scripts
        wait and notebooks go on.
    **kwargs
        ``audio_dir`` and any key of ``bacpipe.config`` and ``bacpipe.settings``;
        ``main_results_dir`` says where results are, ``dashboard_port`` and
        ``dashboard_address`` where it is served, and ``edit`` whether visitors may mark and
        teach.

    Returns
    -------
    Server
        With `port`, `url` and `stop()`.

    Raises
    ------
    SettingsError
        If no folder is named.
    DashboardError
        If no port is free or the address is not one of this machine.

    Examples
    --------
    >>> import bacpipe
    >>> server = bacpipe.visualize_using_dashboard(["birdnet"], audio_dir="recordings",
    ...     show=False, block=False)
    >>> server.url.startswith("http://localhost:")
    True
    >>> server.stop()
    """
    options = {
        "dashboard_port": dashboard_port,
        "dashboard_address": dashboard_address,
        "dashboard_websocket_origin": dashboard_websocket_origin,
    }
    return serve(open_data_set(models, **{**kwargs, **options}), show=show, block=block)


def serve(data_set: DataSetResults, *, show: bool = True, block: bool | None = None) -> Server:
    """Open the dashboard of a data set; parameters as for `visualize_using_dashboard`."""
    server = Server(data_set)
    server.start(show=show)
    if block or (block is None and not in_notebook()):
        server.wait()
    return server


def open_data_set(models: str | Sequence[str] | None = None, **kwargs: Any) -> DataSetResults:
    """Results that a dashboard shows; parameters as for `app`."""
    chosen = kwargs if models is None else {**kwargs, "models": models}
    options = make_options(**chosen)
    if options.audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    # The first of the configuration comes first; others may have results, too.
    wanted = dict.fromkeys(canonical_name(name) for name in options.models)
    names = list(wanted)
    if models is None:
        there = computed_models(options.audio_dir, options)
        names = [name for name in wanted if name in there]
        names += [name for name in there if name not in wanted]
    return DataSetResults(data_set_of(options.audio_dir).folder, names, options)


class Server:
    """Serves the dashboard of one data set to any number of visitors, from a thread of its own.

    Attributes
    ----------
    port : int
        Port that was free; 0 before `start`.
    """

    def __init__(self, data_set: DataSetResults) -> None:
        self.data_set = data_set
        self.address: str = data_set.options.dashboard_address
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._problem: Exception | None = None
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=SERVING, daemon=True)

    @property
    def url(self) -> str:
        """Address for a browser on this machine."""
        everywhere = self.address in {"0.0.0.0", "::"}
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{'localhost' if everywhere else address}:{self.port}"

    def start(self, *, show: bool) -> None:
        """Begin to serve, and open the page in the browser if `show` is True.

        Raises
        ------
        DashboardError
            If no port is free or the address is not one of this machine.
        """
        _load_extensions()
        self._thread.start()
        try:
            self._ready.wait()
            if self._problem is not None:
                raise self._problem
            logger.info("The dashboard is at %s (Ctrl-C ends it).", self.url)
            if show:
                webbrowser.open(self.url)
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        try:
            # No join: Python before 3.13 takes a thread whose join is interrupted for ended.
            while not self._ended.wait(0.5):
                pass
        except KeyboardInterrupt:
            logger.info("The dashboard was closed.")
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop serving; the port is free afterwards."""
        if self._thread.ident is None:
            return
        self._ready.wait()
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stopped.set)
        while not self._ended.wait(0.5):
            pass

    def _serve(self) -> None:
        # Its end cancels what still runs for visitors, and waits for the threads that it began.
        try:
            asyncio.run(self._until_stopped())
        finally:
            self._ended.set()
            self._ready.set()

    async def _until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            server = self._bind()
            self._loop.set_default_executor(_OneAfterTheOther())
        except Exception as error:  # handed to whoever called `start`
            self._problem = error
            return
        finally:
            self._ready.set()
        await self._stopped.wait()
        self._doorkeeper.close()
        await self._doorkeeper.last_words()
        server.stop(wait=False)
        self._doorkeeper.close()  # of who came meanwhile

    def _bind(self) -> Any:
        first = self.data_set.options.dashboard_port
        for port in range(first, min(first + _PORTS_TRIED, 65536)):
            try:
                server = self._make(port)
            except OSError as error:
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    continue
                raise DashboardError(
                    f"dashboard_address={self.address!r} is not an address of this machine; "
                    f"expected 'localhost', '0.0.0.0' (reachable from other machines) or one of "
                    f"its own."
                ) from None
            self.port = port
            return server
        raise DashboardError(
            f"dashboard_port={first}: this port and the {_PORTS_TRIED} after it are in use; choose "
            f"another."
        )

    def _make(self, port: int) -> Any:
        others = self.data_set.options.dashboard_websocket_origin
        self._doorkeeper = Doorkeeper(self.address, port, others)
        server = pn.io.server.get_server(
            {"/": self._new_page},
            port=port,
            address=self.address,
            title=f"bacpipe – {self.data_set.name}",
            start=False,
            show=False,
            verbose=False,
            log_function=self._doorkeeper.done,
            http_server_kwargs=_HTTP_LIMITS,
            check_unused_sessions_milliseconds=5000,
            unused_session_lifetime_milliseconds=_PATIENCE,
        )
        # Every route is the doorkeeper's to watch; Bokeh would check sockets only, and knows
        # neither IPv6 nor the addresses of this machine.
        routes = server._tornado
        routes.default_router.rules.insert(0, Rule(self._doorkeeper, Refusal))
        routes.websocket_origins.add("*")
        server.start()
        return server

    def _new_page(self) -> Any:
        # Panel says where its styles are when it sends a page.  A browser that was too slow, or was
        # away, asks for a session without another page, and would look for them in the internet.
        pn.state.curdoc.template_variables["dist_url"] = LOCAL_DIST
        return Page(self.data_set).panel


class _OneAfterTheOther(ThreadPoolExecutor):
    """Does on the loop what Bokeh 3.10 hands to threads, as Bokeh 3.9 did.

    Panel keeps records of all pages together, without locks: a page that is made in one thread
    while another changes in a second one can fail ("dictionary changed size during iteration").
    What takes longer than a blink is done in threads of our own, see `Background`.
    """

    def submit(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Call it at once."""
        done: Future[_T] = Future()
        try:
            done.set_result(call(*args, **kwargs))
        except BaseException as error:  # as any executor, to whoever waits for it
            done.set_exception(error)
        return done


def _load_extensions() -> None:
    pn.extension("tabulator", notifications=True)
    _lock_the_page_for_clicks()


@cache
def _lock_the_page_for_clicks() -> None:
    """Let Panel handle clicks with the page's lock, also while changes of other widgets wait.

    It would do so without; Bokeh then refuses whatever our views change of its models, and the
    click is lost.  `panel.io.with_lock` is for single handlers, and only for asynchronous ones;
    this marks in its way the private function of Panel that calls them all.
    """
    handler = getattr(Syncable, "_event_coroutine", None)
    if handler is None:
        logger.warning(
            "Panel %s handles clicks in a way that bacpipe does not know; if clicks in the "
            "dashboard are lost, install panel<1.11.",
            pn.__version__,
        )
    else:
        handler.lock = True
