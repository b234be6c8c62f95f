"""Opening the dashboard: a server on this machine, or an object for `panel serve` and notebooks."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import panel as pn

from bacpipe import configuration
from bacpipe.configuration import Options
from bacpipe.dashboard.page import Page
from bacpipe.dashboard.results import DataSet
from bacpipe.errors import BacpipeError, SettingsError
from bacpipe.workflows import get_model_names

logger = logging.getLogger(__name__)

_PORTS_TRIED = 100


class DashboardError(BacpipeError, RuntimeError):
    """The dashboard cannot be opened."""


def app(models: str | Sequence[str] | None = None, **kwargs: Any) -> Any:
    """Page of the dashboard, for ``panel serve`` and notebooks.

    Parameters
    ----------
    models : str or sequence of str, optional
        Models to show; by default all that have results for the recordings.
    **kwargs
        ``audio_dir`` and any key of ``bacpipe.config`` and ``bacpipe.settings``.

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
    return Page(open_data_set(models, **kwargs)).panel


def visualize_using_dashboard(
    models: str | Sequence[str] | None,
    dashboard_port: int = 5006,
    dashboard_address: str = "localhost",
    dashboard_websocket_origin: bool | str | Sequence[str] = False,
    *,
    show: bool = True,
    block: bool = True,
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
    dashboard_websocket_origin : bool, str or sequence of str
        Other hosts whose pages may talk to the dashboard, such as 'myserver:5006'; False: none.
    show : bool
        False does not open a browser.
    block : bool
        True serves until Ctrl-C; False serves in a thread and returns.
    **kwargs
        ``audio_dir`` and any key of ``bacpipe.config`` and ``bacpipe.settings``.

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
    """
    options = {
        "dashboard_port": dashboard_port,
        "dashboard_address": dashboard_address,
        "dashboard_websocket_origin": dashboard_websocket_origin,
    }
    data_set = open_data_set(models, **{**kwargs, **options})
    server = Server(data_set)
    server.start(show=show)
    if block:
        server.wait()
    return server


def open_data_set(models: str | Sequence[str] | None = None, **kwargs: Any) -> DataSet:
    """Results that a dashboard shows; parameters as for `app`."""
    options: Options = configuration.current(**{k: v for k, v in kwargs.items() if v is not None})
    if options.audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    given = {key: value for key, value in vars(options).items() if key != "already_computed"}
    names = get_model_names(
        **{**given, "models": options.models if models is None else models},
        already_computed=models is None,
    )
    return DataSet(Path(options.audio_dir), names, options)


class Server:
    """Serves the dashboard of one data set to any number of visitors.

    Parameters
    ----------
    data_set : DataSet
        What to show.

    Attributes
    ----------
    port : int
    url : str
    """

    def __init__(self, data_set: DataSet) -> None:
        self.data_set = data_set
        options = data_set.options
        self.address: str = options.dashboard_address
        self.port = _free_port(self.address, options.dashboard_port)
        self.url = f"http://{self.address}:{self.port}"
        self._server: Any = None

    def start(self, *, show: bool) -> None:
        """Begin to serve, in a thread."""
        _load_extensions()
        origins = [f"{self.address}:{self.port}", f"localhost:{self.port}"]
        origins += _origins(self.data_set.options.dashboard_websocket_origin)
        self._server = pn.serve(
            {"/": lambda: Page(self.data_set).panel},
            port=self.port,
            address=self.address,
            websocket_origin=origins,
            title=f"bacpipe – {self.data_set.name}",
            show=show,
            threaded=True,
            verbose=False,
        )
        logger.info("The dashboard is at %s (Ctrl-C ends it).", self.url)

    def wait(self) -> None:
        """Serve until Ctrl-C."""
        try:
            while self._server.is_alive():
                self._server.join(0.5)
        except KeyboardInterrupt:
            logger.info("The dashboard was closed.")
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop serving."""
        self._server.stop()


def _load_extensions() -> None:
    pn.extension("tabulator", notifications=True)


def _origins(setting: bool | str | Sequence[str]) -> list[str]:
    if isinstance(setting, bool):
        return []
    return [setting] if isinstance(setting, str) else list(setting)


def _free_port(address: str, first: int) -> int:
    for port in range(first, min(first + _PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except PermissionError:
                continue
            except OSError as error:
                if isinstance(error, socket.gaierror) or error.errno == 99:
                    raise DashboardError(
                        f"dashboard_address={address!r} is not an address of this machine; expected "
                        f"'localhost', '0.0.0.0' (reachable from other machines) or one of its own."
                    ) from None
                continue
            return port
    raise DashboardError(
        f"dashboard_port={first}: this port and the {_PORTS_TRIED} after it are in use; choose another."
    )
