from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from panel.reactive import Syncable

import bacpipe
from bacpipe.dashboard.server import DashboardError, Server, _lock_the_page_for_clicks
from bacpipe.errors import ResultsNotFoundError, SettingsError
from bacpipe.user_input import in_notebook


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


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


@pytest.mark.parametrize(("origin", "allowed"), [("elsewhere.example", False), (None, True)])
def test_only_its_own_pages_can_talk_to_it(
    server: Server, origin: str | None, allowed: bool
) -> None:
    connection = http.client.HTTPConnection(server.address, server.port, timeout=20)
    own = f"{server.address}:{server.port}"
    headers = {
        "Origin": f"http://{origin or own}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    connection.request("GET", "/ws", headers=headers)
    assert (connection.getresponse().status == 403) is not allowed
    connection.close()


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
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "clicks" in caplog.text
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
