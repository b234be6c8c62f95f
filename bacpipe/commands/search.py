"""``bacpipe search``: the windows that are most similar to a sound."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import suppress

import yaml

from bacpipe.annotations.cells import listed
from bacpipe.commands.arguments import (
    HelpFormatter,
    own_settings,
    parse_words,
    place,
    split_words,
)
from bacpipe.errors import SettingsError, counted
from bacpipe.user_input import typed_setting, typed_yaml

KEYS = (
    "model", "start", "end", "k", "where", "min_gap", "exclude_same_recording", "approximate",
)  # fmt: skip
"""What is written as key=value, beside the keys of the configuration."""


def run(arguments: Sequence[str]) -> int:
    """Print the most similar windows, and write what was asked for; 1 if nothing was found."""
    parser = argparse.ArgumentParser(
        prog="bacpipe search",
        description="Find the windows that are most similar to a sound, in embeddings that exist "
        "already. Settings are written as key=value.",
        epilog="examples:\n"
        "  bacpipe search clip.wav audio_dir=/data/birds\n"
        "  bacpipe search /data/birds/A/dawn.wav start=12 audio_dir=/data/birds k=20\n"
        "  bacpipe search 'the song of a robin' audio_dir=/data/birds model=biolingual\n"
        "  bacpipe search clip.wav audio_dir=/data/birds where='{site: A, hour: 22..4}' \\\n"
        "      min_gap=10 --csv found.csv --clips found\n"
        "  bacpipe search recogniser=my_frogs audio_dir=/data/birds\n"
        "  bacpipe search --build-index audio_dir=/data/birds\n"
        "  bacpipe search clip.wav audio_dir=/data/birds approximate=true",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="query | key=value",
        help="a clip, or words for models that understand them, or recogniser=NAME; audio_dir; "
        "model; start and end of the sound in the clip (seconds); k, how many "
        "(default: 50); where='{column: value}'; min_gap (seconds); exclude_same_recording=true; "
        "approximate=true; or a key of config.yaml or settings.yaml",
    )
    parser.add_argument("--csv", type=place, metavar="FILE", help="write the result as a table")
    parser.add_argument(
        "--clips", type=place, metavar="FOLDER", help="write the sounds as WAV files"
    )
    parser.add_argument(
        "--build-index",
        action="store_true",
        help="build the index of approximate searches instead, for tens of millions of windows; "
        "needs the extra 'search'",
    )
    parsed = parser.parse_intermixed_args(arguments)
    queries, words = split_words(parsed.words)
    given = parse_words(words)
    if parsed.build_index and (queries or "recogniser" in given):
        raise SettingsError("search --build-index takes no query; expected audio_dir=FOLDER only.")
    if not parsed.build_index and len(queries) + ("recogniser" in given) != 1:
        raise SettingsError(
            f"search takes one clip, words in quotes, or recogniser=NAME, but got "
            f"{listed(parsed.words) or 'none'}."
        )
    if parsed.build_index and (unused := parsed.csv or parsed.clips):
        raise SettingsError(
            f"search --build-index finds nothing to write to {unused}; leave --csv and --clips out."
        )
    own = own_settings([])
    if "models" in given:
        raise SettingsError("search takes one model; expected model=NAME instead of models=...")
    settings: dict[str, object] = {**own, **given}
    settings.pop("models", None)  # of the user's configuration
    where = settings.get("where")
    if isinstance(where, str):
        with suppress(yaml.YAMLError):
            settings["where"] = where = typed_yaml(where)
    if where is not None and not isinstance(where, dict):
        raise SettingsError(f"where={where!r} is not understood; expected where='{{site: A}}'.")
    from bacpipe.options import make_options
    from bacpipe.recognisers.recogniser import Recogniser, find_recogniser
    from bacpipe.search.find import build_search_index, save_clips, search
    from bacpipe.store.data_set_folder import paths_of
    from bacpipe.store.files import write_csv

    audio_dir, model = settings.pop("audio_dir", None), settings.pop("model", None)
    if audio_dir is None:
        raise SettingsError("audio_dir is missing; expected audio_dir=FOLDER with the recordings.")
    if parsed.build_index:
        about = build_search_index(str(audio_dir), model, **settings)  # type: ignore[arg-type]
        print(  # noqa: T201
            f"The index of {about['windows']} windows was built in {about['seconds']:.0f} s and "
            f"finds {about['recall']:.1%} of the nearest windows; search with approximate=true."
        )
        return 0
    query: str | Recogniser = queries[0] if queries else str(settings.pop("recogniser"))
    options = make_options(**{key: settings[key] for key in settings if key not in KEYS})
    if not queries:
        query = find_recogniser(query, paths_of(str(audio_dir), "none", options))
        model = model or query.model
    table = search(query, str(audio_dir), model, **settings)  # type: ignore[arg-type]
    if len(table):
        print(table.dropna(axis=1, how="all").to_string(index=False, max_colwidth=60))  # noqa: T201
    else:
        print(_nothing(settings))  # noqa: T201
    if not table.attrs["bacpipe"]["exact"]:
        print(  # noqa: T201
            "An approximate answer: the index finds "
            f"{table.attrs['bacpipe']['recall']:.1%} of the nearest windows."
        )
    if parsed.csv is not None:
        write_csv(parsed.csv, table, escape_formulas=options.escape_formulas)
        print(f"The table is in {parsed.csv}.")  # noqa: T201
    if parsed.clips is not None:
        clips = save_clips(table, str(audio_dir), parsed.clips)
        print(f"{parsed.clips} holds {counted(len(clips), 'clip')}.")  # noqa: T201
    return 0 if len(table) else 1


def _nothing(settings: Mapping[str, object]) -> str:
    """That no window was found, with what has left windows out."""
    keys = ("where", "exclude_same_recording")
    narrowed = [typed_setting(key, settings[key]) for key in keys if settings.get(key)]
    if not narrowed:
        return "No window was found."
    return f"No window fits these conditions: {' '.join(narrowed)}"
