"""``bacpipe demo``: make the demo recordings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bacpipe.commands.arguments import place


def run(arguments: Sequence[str]) -> int:
    """Make the demo recordings and say where they are."""
    parser = argparse.ArgumentParser(
        prog="bacpipe demo", description="Make the synthetic demo recordings and stop."
    )
    parser.add_argument("folder", nargs="?", type=place, default=Path("bacpipe_demo"))
    options = parser.parse_intermixed_args(arguments)
    from bacpipe.demo import make_demo
    from bacpipe.options import make_options
    from bacpipe.store.typed_command import typed_command

    folder = make_demo(options.folder)
    print(  # noqa: T201
        f"Demo recordings with annotations are in {folder}. Run the models on them with:\n"
        f"  {typed_command('', folder, make_options())}"
    )
    return 0
