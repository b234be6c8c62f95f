"""``bacpipe bench``: how long the models would take for the user's recordings."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bacpipe.audio.remote import shown
from bacpipe.commands.arguments import HelpFormatter, add_settings, read_settings
from bacpipe.errors import counted
from bacpipe.options import Options, make_options

if TYPE_CHECKING:
    from bacpipe.commands.estimate import Estimate, Survey
    from bacpipe.store.selection import AudioDir

_HEADINGS = ("model", "windows/s", "× real time", "slowest stage", "time for all", "results")


def run(arguments: Sequence[str]) -> int:
    """Measure the models and print a table; 1 if none could be measured, else 0."""
    parser = argparse.ArgumentParser(
        prog="bacpipe bench",
        description="Run models for some seconds on windows of your own recordings (those of "
        "audio_dir; without one, on demo recordings) and predict how long they take for all of "
        "them on this machine, and how large the results are. Nothing is written, and no weights "
        "are fetched.",
        epilog="examples:  bacpipe bench audio_dir=/data/recordings models='[birdnet, perch_v2]'\n"
        "           bacpipe bench audio_dir=/data/recordings models=all device=cpu",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "--seconds", type=_positive, default=10.0, help="to measure each model (default: 10)"
    )
    add_settings(parser)
    parsed = parser.parse_intermixed_args(arguments)
    settings = read_settings(parsed)
    audio_dir = settings.pop("audio_dir", None)
    options = make_options(**settings)
    if audio_dir is not None:
        return _bench(audio_dir, options, parsed.seconds)
    from bacpipe.demo import make_demo

    with tempfile.TemporaryDirectory() as folder:
        _say("No audio_dir is set, so the models run on synthetic demo recordings.")
        return _bench(make_demo(Path(folder) / "demo"), options, parsed.seconds)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 86_400:
        raise argparse.ArgumentTypeError("expected a number of seconds above 0")
    return value


def _bench(audio_dir: AudioDir, options: Options, seconds: float) -> int:
    # PyTorch takes seconds, which `bacpipe bench --help` need not wait for.
    from bacpipe.commands.estimate import Estimate, estimate_models, survey
    from bacpipe.models.zoo import CARDS
    from bacpipe.store.loader import Loader

    names = tuple(CARDS) if options.models == ("all",) else options.models
    loader = Loader(audio_dir, options=options)
    folder = survey([loader.audio_dir / name for name in loader.selection.names])
    _say(_describe(loader.audio_dir, folder))
    estimates: list[Estimate] = []
    try:
        for result in estimate_models(names, folder, options, seconds=seconds):
            if isinstance(result, Estimate):
                estimates.append(result)
            else:
                _say(f"  {result}")
    finally:  # also after Ctrl-C: what was measured so far
        if estimates:
            _say(f"\n{_table(estimates)}")
            _say("\nTimes hold while nothing else runs; writing the results is extra.")
    return 0 if estimates else 1


def _describe(audio_dir: Path, folder: Survey) -> str:
    about = "" if folder.examined == folder.recordings else "about "
    hours = f"{about}{folder.hours:,.1f} h of audio"
    text = f"{shown(audio_dir)}: {counted(folder.recordings, 'recording')}, {hours}"
    if about:
        text += f" (from {folder.examined:,} headers)"
    if folder.unreadable:
        text += f"; {folder.unreadable:,} of {folder.examined:,} cannot be read"
    return text


def _table(estimates: Sequence[Estimate]) -> str:
    rows = [_HEADINGS]
    for item in estimates:
        rows.append(
            (
                item.model,
                f"{item.windows_per_second:,.1f}",
                f"{item.times_real_time:,.0f}"
                if item.times_real_time >= 10
                else f"{item.times_real_time:.1f}",
                item.slowest,
                format_hours(item.hours),
                format_bytes(item.bytes),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def format_hours(hours: float) -> str:
    """Duration with a unit that suits it.

    Examples
    --------
    >>> format_hours(0.005), format_hours(0.5), format_hours(5), format_hours(100)
    ('18 s', '30 min', '5.0 h', '100 h (4.2 days)')
    """
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours:,.0f} h ({hours / 24:,.1f} days)"


def format_bytes(size: int) -> str:
    """Size with a unit that suits it.

    Examples
    --------
    >>> format_bytes(2_500), format_bytes(3_400_000_000)
    ('0.0 MB', '3.4 GB')
    """
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
