from __future__ import annotations

import sys

import pytest

from bacpipe.inference.report import RunProgress


def use(progress: RunProgress) -> None:
    progress.advance(500, 1800.0)
    progress.advance(500, 1800.0)
    progress.close()


def test_nobody_watches_nothing_is_printed(capsys: pytest.CaptureFixture) -> None:
    use(RunProgress("birdnet", 2, 1000))
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_a_terminal_shows_recordings_hours_and_speed(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    use(RunProgress("birdnet", 2, 1000))
    shown = capsys.readouterr().err
    assert "birdnet: 100%" in shown
    assert "2/2 recordings, 1.00 h" in shown
    assert "× real time" in shown
