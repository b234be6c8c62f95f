from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import panel as pn
import pytest
from bokeh.client import pull_session
from bokeh.models import ImportedStyleSheet
from panel.reactive import Syncable

import bacpipe
from bacpipe.dashboard.page import Page
from bacpipe.dashboard.server import DashboardError, Server, _lock_the_page_for_clicks
from bacpipe.dashboard.shared.results import DataSetResults
from bacpipe.errors import ResultsNotFoundError, SettingsError
from bacpipe.user_input import in_notebook
from tests.dashboard.conftest import PATIENCE, close_pages, eventually


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def free_port() -> int:
    """A port that nobody has, below those that the system gives to connections."""
    for port in random.sample(range(20_000, 30_000), 50):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def settings_of(results: tuple[Path, Path]) -> dict[str, Any]:
    return {"audio_dir": results[0], "main_results_dir": results[1]}


def test_a_second_dashboard_takes_the_next_port_and_both_can_be_stopped(
    results: tuple[Path, Path],
) -> None:
    first, second = (
        bacpipe.visualize_using_dashboard(
            ["tiny"], 5400, show=False, block=False, **settings_of(results)
        )
        for _ in range(2)
    )
    assert second.port > first.port >= 5400
    for server in (first, second):
        status, page = fetch(server.url)
        assert status == 200
        assert "field" in page
        server.stop()
    again = bacpipe.visualize_using_dashboard(
        ["tiny"], first.port, show=False, block=False, **settings_of(results)
    )
    assert again.port == first.port
    again.stop()


def test_another_can_take_the_place_of_one_that_was_stopped(
    results: tuple[Path, Path], context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As in notebooks, whose process goes on: the browser is not left with dead connections."""
    page = context.new_page()
    sockets: list[Any] = []
    page.on("websocket", lambda opened: sockets.append(opened))
    port = free_port()
    for _ in range(2):
        server = bacpipe.visualize_using_dashboard(
            ["tiny"], port, show=False, block=False, **settings_of(results)
        )
        assert server.port == port
        page.goto(server.url)
        page.wait_for_selector(".bp-brand")
        server.stop()
        assert sockets
        eventually(page, lambda: all(opened.is_closed() for opened in sockets))
        sockets.clear()
    assert not [record for record in caplog.records if record.name.startswith("tornado")]
    close_pages(context)


def test_a_session_that_comes_late_needs_no_internet(server: Server) -> None:
    """A browser that was too slow, or away for long, asks for one without fetching the page."""

    def styles() -> list[str]:
        session = pull_session(url=server.url)
        try:
            models = session.document.models
            return [model.url for model in models if isinstance(model, ImportedStyleSheet)]
        finally:
            session.close()

    with ThreadPoolExecutor(1) as thread:  # this one has a loop while a browser is open
        urls = thread.submit(styles).result(timeout=60)
    assert len(urls) > 3 and not [url for url in urls if url.startswith("http")]


def test_no_request_reads_a_file_of_the_machine(server: Server, results: tuple[Path, Path]) -> None:
    recording = "site1/rec_20240501_040000.wav"
    for path in (
        "../../../../etc/passwd",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "static/../../../../../../etc/passwd",
        "static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        recording,
        f"static/{results[0]}/{recording}",
        "shutdown",
    ):
        status, page = fetch(f"{server.url}/{path}")
        assert status in (403, 404), path
        assert "root:" not in page
    assert fetch(server.url)[0] == 200


ROUTES = ("/", "/ws", "/autoload.js", "/metadata", "/static/js/bokeh.min.js", "/favicon.ico", "/no")


def answer(server: Server, path: str, **headers: str) -> int:
    """Status of a request with these headers, Host included."""
    connection = http.client.HTTPConnection("localhost", server.port, timeout=PATIENCE)
    connection.putrequest("GET", path, skip_host=True)
    if path == "/ws":
        headers |= {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_answers_to_its_own_names_only(server: Server, route: str) -> None:
    own = f"localhost:{server.port}"
    expected = answer(server, route, Host=own)
    assert expected == {"/": 200, "/ws": 101, "/autoload.js": 400, "/no": 404}.get(route, 200)
    for name in (own, f"127.0.0.1:{server.port}", f"[::1]:{server.port}", own.upper()):
        assert answer(server, route, Host=name, Origin=f"http://{name}") == expected, name
        assert answer(server, route, Host=name) == expected, name
    for stranger in (
        "evil.com",
        f"evil.com:{server.port}",
        "localhost",
        f"localhost:{server.port + 1}",
        f"localhost.evil.com:{server.port}",
        f"notlocalhost:{server.port}",
        f"127.0.0.2:{server.port}",
        f"[::2]:{server.port}",
    ):
        # The first is what DNS rebinding makes a browser send.
        assert answer(server, route, Host=stranger, Origin=f"http://{stranger}") == 403, stranger
        assert answer(server, route, Host=stranger) == 403, stranger
        assert answer(server, route, Host=own, Origin=f"http://{stranger}") == 403, stranger
    for origin in ("null", "file://", "", "http://"):
        assert answer(server, route, Host=own, Origin=origin) == 403, origin


def test_names_that_are_allowed_are_served(
    results: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    server = bacpipe.visualize_using_dashboard(
        ["tiny"], 5420, show=False, block=False, **settings_of(results),
        dashboard_websocket_origin="https://bio.example.org/, *.field.example, MyServer:5006, "
        "[fe80::1]",
    )  # fmt: skip
    for name in ("bio.example.org", "bio.example.org:443", f"bio.example.org:{server.port}",
                 "a.b.field.example", "myserver:5006", "[fe80::1]"):  # fmt: skip
        for scheme in ("http", "https"):
            assert answer(server, "/", Host=name, Origin=f"{scheme}://{name}") == 200, name
        assert (
            answer(server, "/ws", Host=f"localhost:{server.port}", Origin=f"https://{name}") == 101
        )
    for name in ("example.org", "x.bio.example.org", "field.example", "xfield.example",
                 "myserver", "myserver:80", "bio.example.org:8080"):  # fmt: skip
        assert answer(server, "/", Host=name) == 403, name
        assert f"with Host: {name}, which is no name of this server" in caplog.text
    server.stop()


@pytest.mark.parametrize(
    "origin",
    ["*", "*:5006", "192.168.*.*", "https://bio.example.org/data", "ftp://a.b", "a b", "::1",
     "host:port", "user@host", "[::1", ","],
)  # fmt: skip
def test_names_that_mean_nothing_or_everybody_get_a_sentence(
    results: tuple[Path, Path], origin: str
) -> None:
    with pytest.raises(SettingsError, match=r"^dashboard_websocket_origin=.*expected "):
        bacpipe.visualize_using_dashboard(
            None, show=False, block=False, **settings_of(results), dashboard_websocket_origin=origin
        )


def test_pages_are_made_and_changed_one_after_the_other(
    results: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Panel keeps what it knows of all pages in dictionaries that no lock guards."""
    at_once, most, threads = 0, 0, set()
    changed = threading.Semaphore(0)

    def change() -> None:
        threads.add(threading.current_thread())
        changed.release()

    class Slow(Page):
        def __init__(self, data_set: DataSetResults) -> None:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            time.sleep(0.2)
            threads.add(threading.current_thread())
            pn.state.curdoc.add_next_tick_callback(change)
            super().__init__(data_set)
            at_once -= 1

    monkeypatch.setattr("bacpipe.dashboard.server.Page", Slow)
    server = bacpipe.visualize_using_dashboard(
        ["tiny"], 5480, show=False, block=False, **settings_of(results)
    )
    with ThreadPoolExecutor(4) as visitors:
        answers = [*visitors.map(fetch, [server.url] * 4)]
    assert all(changed.acquire(timeout=60) for _ in range(4))
    server.stop()
    assert [status for status, _ in answers] == [200] * 4
    assert most == 1 and len(threads) == 1


def test_many_requests_are_asked_to_come_back_and_leave_nothing_behind(server: Server) -> None:
    with ThreadPoolExecutor(60) as pool:
        own = f"localhost:{server.port}"
        statuses = list(pool.map(lambda _: answer(server, "/", Host=own), range(120)))
    assert {*statuses} == {200, 503}
    assert fetch(server.url)[0] == 200
    connection = http.client.HTTPConnection("localhost", server.port, timeout=PATIENCE)
    connection.request("POST", "/", body=b"x" * 200_000)
    with suppress(ConnectionError):
        assert connection.getresponse().status in (400, 405, 413)
    connection.close()
    assert fetch(server.url)[0] == 200


@pytest.mark.parametrize(
    ("settings", "error", "expected"),
    [
        ({"dashboard_address": "203.0.113.7"}, DashboardError, "not an address of this machine"),
        ({"audio_dir": None}, SettingsError, "audio_dir"),
        ({"main_results_dir": "elsewhere"}, ResultsNotFoundError, "there are no embeddings"),
    ],
)
def test_mistakes_get_a_sentence(
    results: tuple[Path, Path], settings: dict[str, Any], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        bacpipe.visualize_using_dashboard(
            None, show=False, block=False, **{**settings_of(results), **settings}
        )


def test_play_opens_it_with_what_it_was_given(
    results: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Server] = []

    def look(server: Server) -> None:
        opened.append(server)
        assert fetch(server.url)[0] == 200
        server.stop()

    monkeypatch.setattr(Server, "wait", look)
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    from tests.conftest import TinyModel

    bacpipe.play(
        **settings_of(results),
        models=["tiny"],
        CustomModels=[TinyModel],
        device="cpu",
        classifier_threshold=0.3,
        dashboard=True,
        dashboard_port=5450,
    )
    assert shown == [opened[0].url]
    assert opened[0].port >= 5450
    assert opened[0].data_set.models == ("tiny",)
    assert opened[0].data_set.audio_dir == results[0]


def test_the_command_serves_until_ctrl_c(results: tuple[Path, Path]) -> None:
    words = [f"audio_dir={results[0]}", f"main_results_dir={results[1]}", "dashboard_port=5470"]
    command = [sys.executable, "-m", "bacpipe", "dashboard", "--no-browser", *words]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stderr is not None
        line = next(text for text in process.stderr if "http://" in text)
        url = next(word for word in line.split() if word.startswith("http://"))
        assert fetch(url)[0] == 200
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(30) == 0
    assert "Traceback" not in rest


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one's own process")
def test_ctrl_c_in_a_script_or_notebook_stops_serving(results: tuple[Path, Path]) -> None:
    port = free_port()

    def serves() -> bool:
        with suppress(OSError):
            return fetch(f"http://localhost:{port}")[0] == 200
        return False

    def interrupt() -> None:
        try:
            eventually(None, serves)
        finally:
            for _ in range(3):  # what is called by the garbage collector may swallow one
                os.kill(os.getpid(), signal.SIGINT)
                end = time.monotonic() + 20
                while serves() and time.monotonic() < end:
                    time.sleep(0.1)
                if not serves():
                    break

    with ThreadPoolExecutor(1) as pool:
        interrupted = pool.submit(interrupt)
        with suppress(KeyboardInterrupt):  # if it comes while this still starts
            bacpipe.visualize_using_dashboard(["tiny"], port, show=False, **settings_of(results))
        interrupted.result()
    assert not serves()


def test_it_can_be_served_by_panel_and_shown_in_notebooks(results: tuple[Path, Path]) -> None:
    page = bacpipe.dashboard.app(**settings_of(results))
    assert page.servable() is page
    texts = [str(pane.object) for pane in page.select() if hasattr(pane, "object")]
    assert any("field" in text for text in texts)


def test_a_panel_without_the_function_that_is_marked_still_serves_and_says_so_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(Syncable, "_event_coroutine")
    _lock_the_page_for_clicks.cache_clear()
    for _ in range(2):
        _lock_the_page_for_clicks()
    monkeypatch.undo()
    _lock_the_page_for_clicks.cache_clear()
    # The pages of other tests end meanwhile, and Panel says so.
    told = [record for record in caplog.records if record.name.startswith("bacpipe")]
    assert [record.levelname for record in told] == ["WARNING"]
    assert "clicks" in told[0].getMessage()
    assert fetch(server.url)[0] == 200


@pytest.mark.parametrize(
    ("shell", "expected"), [(None, False), (object(), False), (SimpleNamespace(kernel=1), True)]
)
def test_notebooks_are_told_from_scripts_and_terminals(
    shell: object, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)  # type: ignore[arg-type]
    assert in_notebook() is expected
