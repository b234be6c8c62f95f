"""``bacpipe label``: labels of people, from a table or from words, and as tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bacpipe.commands.arguments import add_settings, place, read_settings, split_words
from bacpipe.errors import SettingsError, counted

_VALUES = ("yes", "no", "unsure", "undo")


def run(arguments: Sequence[str]) -> int:
    """Write labels, export them, or show what there is."""
    parser = argparse.ArgumentParser(
        prog="bacpipe label",
        usage="bacpipe label audio_dir=FOLDER [TABLE | RECORDING START END LABEL [VALUE]] ...",
        description="Write down what people heard in seconds of recordings, or did not hear. TABLE "
        "is a CSV with the columns recording, start, end, label and value (yes, no, unsure, undo), "
        "or annotations of Raven, Audacity or another program. Without either, it counts the "
        "labels that there are.",
    )
    add_settings(parser)
    parser.add_argument("--annotator", metavar="NAME", help="who listened (default: you)")
    parser.add_argument("--format", help="format of TABLE, such as raven or audacity")
    parser.add_argument(
        "--export",
        metavar="FILE",
        type=place,
        help="write the labels instead: what was heard as annotations (--format csv, raven or "
        "audacity), or all (--format labels)",
    )
    options = parser.parse_intermixed_args(arguments)
    others, options.words = split_words(options.words)
    _refuse_others(parser, options, others)
    settings = read_settings(options)
    audio_dir = settings.pop("audio_dir", None)
    if audio_dir is None:
        raise SettingsError("audio_dir is missing; expected audio_dir=FOLDER with the recordings.")
    from bacpipe.exports.people import export_people_labels
    from bacpipe.labels.people import label_windows, people_labels

    if options.export is not None:
        kind = options.format or "csv"
        for path in export_people_labels(audio_dir, options.export, kind, **settings):
            print(path)  # noqa: T201
        return 0
    if not others:
        table = people_labels(audio_dir, **settings)
        counts = table.groupby(["label", "annotator", "value"]).size().unstack(fill_value=0)
        print(counts.to_string() if len(table) else "There are no labels yet.")  # noqa: T201
        return 0
    rows: str | dict[str, object] = others[0]
    if len(others) in {4, 5}:
        keys = ("recording", "start", "end", "label", "value")
        rows = dict(zip(keys, [*others, "yes"], strict=False))
    elif len(others) != 1:
        raise SettingsError(
            f"label takes one table, or RECORDING START END LABEL and one of {', '.join(_VALUES)}, "
            f"but got {' '.join(others)}."
        )
    number = label_windows(audio_dir, rows, options.annotator, format=options.format, **settings)
    print(f"{counted(number, 'label')} written.")  # noqa: T201
    return 0


def _refuse_others(
    parser: argparse.ArgumentParser, parsed: argparse.Namespace, others: Sequence[str]
) -> None:
    """Say which option or word is for something else, instead of doing without it."""
    if parsed.export is not None and others:
        parser.error(f"--export writes the labels that there are, so {others[0]} has no use there")
    if parsed.annotator is not None and not others:
        parser.error(
            f"--annotator {parsed.annotator} says who heard what is written down; expected a "
            f"TABLE, or RECORDING START END LABEL"
        )
    if parsed.format is not None and parsed.export is None and len(others) != 1:
        parser.error(f"--format {parsed.format} is that of a TABLE, or of what --export writes")
