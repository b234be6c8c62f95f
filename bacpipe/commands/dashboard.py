"""``bacpipe dashboard``: show stored results in the browser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bacpipe.commands.arguments import add_settings, read_settings

_DEMO = Path("bacpipe_demo")


def run(arguments: Sequence[str]) -> int:
    """Serve the dashboard until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="bacpipe dashboard",
        description="Show stored results in the browser until Ctrl-C: those of all models that "
        "have results for audio_dir, unless models=... is given.",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    add_settings(parser)
    options = parser.parse_intermixed_args(arguments)
    settings = read_settings(options)
    if settings.get("audio_dir") is None and _DEMO.is_dir():
        settings["audio_dir"] = _DEMO  # where a run without an audio_dir has put its recordings
    from bacpipe.dashboard.server import visualize_using_dashboard

    visualize_using_dashboard(
        settings.pop("models", None), show=not options.no_browser, block=True, **settings
    )
    return 0
