"""``bacpipe recognisers``: what recognisers there are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bacpipe.commands.arguments import add_settings, read_settings
from bacpipe.errors import BacpipeError


def run(arguments: Sequence[str]) -> int:
    """Print a line for each recogniser in the results; 1 if one of them cannot be read."""
    parser = argparse.ArgumentParser(
        prog="bacpipe recognisers",
        description="List the recognisers in main_results_dir, or those of one data set.",
    )
    add_settings(parser)
    settings = read_settings(parser.parse_intermixed_args(arguments))
    from bacpipe.options import make_options
    from bacpipe.recognisers.recogniser import Recogniser, stored_recognisers
    from bacpipe.store.data_set_folder import paths_of

    options, code = make_options(**settings), 0
    folders = stored_recognisers(Path(options.main_results_dir))
    if options.audio_dir is not None:
        own = paths_of(options.audio_dir, "none", options).recognisers_path
        folders = [folder for folder in folders if folder.parent == own]
    for folder in folders:
        try:
            recogniser = Recogniser.load(folder)
        except BacpipeError as error:
            print(error)  # noqa: T201
            code = 1
            continue
        labels = recogniser.about.get("labels", {})
        counts = [
            f"{name} ({labels.get(name, {}).get('present', '?')} yes, "
            f"{labels.get(name, {}).get('absent', '?')} no)"
            for name in recogniser.classes
        ]
        print(f"{recogniser.name}  on {recogniser.model}: {', '.join(counts)}\n  {folder}")  # noqa: T201
    if not folders:
        print(  # noqa: T201
            f"{options.main_results_dir}: no recognisers here yet; train one with bacpipe train."
        )
    return code
