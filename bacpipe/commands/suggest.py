"""``bacpipe suggest``: what to listen to next."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

from bacpipe.commands.arguments import add_settings, place, read_settings, split_words
from bacpipe.errors import SettingsError, counted


def run(arguments: Sequence[str]) -> int:
    """Print the windows, or write them as a table to be filled in."""
    parser = argparse.ArgumentParser(
        prog="bacpipe suggest",
        usage="bacpipe suggest RECOGNISER audio_dir=FOLDER [-n 20] [--csv FILE] ...",
        description="Say which windows to listen to next. With --csv, they are written as a table; "
        "fill in the column value (yes, no, unsure), and give it to bacpipe label.",
    )
    add_settings(parser)
    parser.add_argument("-n", type=int, default=20, help="how many windows")
    parser.add_argument(
        "--strategy", default="mixed",
        help="mixed, margin, top, stratified, random or novel",
    )  # fmt: skip
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="for which (default: all)")
    parser.add_argument(
        "--any-site", action="store_true", help="do not take sites and days by turns"
    )
    parser.add_argument("--csv", type=place, metavar="FILE", help="write a table instead")
    options = parser.parse_intermixed_args(arguments)
    others, options.words = split_words(options.words)
    settings = read_settings(options)
    audio_dir = settings.pop("audio_dir", None)
    settings.pop("recogniser", None)  # of a settings.yaml: the first word names it
    if len(others) != 1 or audio_dir is None:
        raise SettingsError(
            "suggest takes the name of a recogniser, and audio_dir=FOLDER with the recordings: "
            "bacpipe suggest my_frogs audio_dir=recordings."
        )
    from bacpipe.options import make_options
    from bacpipe.recognisers.suggestions import Strategy, suggest
    from bacpipe.store.files import write_csv

    if options.strategy not in get_args(Strategy):
        raise SettingsError(
            f"--strategy {options.strategy} is not possible: expected one of "
            f"{', '.join(get_args(Strategy))}."
        )
    table = suggest(
        audio_dir, others[0], n=options.n, strategy=options.strategy, classes=options.classes,
        per_site=not options.any_site, **settings,
    )  # fmt: skip
    if options.csv is None:
        print(table.drop(columns="value").to_string(index=False, float_format="%.3f"))  # noqa: T201
        return 0
    write_csv(options.csv, table, escape_formulas=make_options(**settings).escape_formulas)
    print(f"{counted(len(table), 'window')} in {options.csv}; fill in the column value.")  # noqa: T201
    return 0
