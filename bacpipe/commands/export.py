"""``bacpipe export``: detections for other programs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from bacpipe.commands.arguments import HelpFormatter, add_settings, place, read_settings
from bacpipe.errors import SettingsError, counted

_EPILOG = """\
formats:
  csv           every detection: site, time, species, score, range probability
  survey        species by site and day, with hours listened; by='[site, week]'
  occupancy     sites x occasions (1, 0, NA) by species; species=, occasion=7D
  raven         selection tables; combined=true writes one over all recordings
  audacity      label tracks, with scores
  kaleidoscope  a table for Kaleidoscope
  camtrap-dp    data package for archives of recordings
  darwin-core   archive for GBIF
  clips         sounds to listen to; n=10, order=stratified, clip_format=flac

examples:
  bacpipe export survey audio_dir=/data/recordings min_score=0.7
  bacpipe export raven audio_dir=/data/recordings --to selections event_gap=0
"""


def run(arguments: Sequence[str]) -> int:
    """Write the files, and say where they are."""
    parser = argparse.ArgumentParser(
        prog="bacpipe export",
        description="Write the stored detections of audio_dir for another program, with those "
        "settings that matter to its format and min_score=, the lowest score; recogniser=NAME "
        "takes the detections of a recogniser.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("format", help="one of those below")
    parser.add_argument(
        "--to",
        type=place,
        metavar="FOLDER",
        help="where to (or destination=FOLDER); exports/FORMAT/MODEL of the results by default",
    )
    add_settings(parser)
    parsed = parser.parse_intermixed_args(arguments)
    settings = read_settings(parsed)
    # Loading pyarrow takes a moment, which --help need not wait for.
    from bacpipe.exports.chosen import SETTINGS
    from bacpipe.exports.export import export, own_options
    from bacpipe.options import make_options
    from bacpipe.recognisers.recogniser import find_recogniser
    from bacpipe.store.data_set_folder import computed_models, paths_of
    from bacpipe.store.loader import Loader

    if (to := settings.pop("destination", None)) is not None:  # as Python calls it
        if parsed.to is not None:
            parser.error(
                f"--to {parsed.to} and destination={to} say the same; expected one of them"
            )
        parsed.to = str(to)
    own = {key: settings.pop(key) for key in own_options(parsed.format) if key in settings}
    options = make_options(**settings)
    if options.audio_dir is None:
        raise SettingsError("audio_dir is missing; expected the folder with the recordings.")
    named = "models" in settings
    models = list(options.models) if named else computed_models(options.audio_dir, options)
    audio_dir = settings.pop("audio_dir", options.audio_dir)
    if options.recogniser is not None:
        recogniser = find_recogniser(options.recogniser, paths_of(audio_dir, "none", options))
        loaders: list[Loader] = [
            recogniser.results(Loader(audio_dir, recogniser.model, **settings))
        ]
    else:
        loaders = [Loader(audio_dir, model, **settings) for model in models]
        loaders = [loader for loader in loaders if named or loader.has_predictions] or loaders[:1]
    if parsed.to is not None and len(loaders) > 1:
        raise SettingsError(
            f"--to names one folder, but there are results of {', '.join(models)}; choose one of "
            f"them, such as models={models[0]}."
        )
    chosen = {key: settings[key] for key in SETTINGS if key in settings}
    for loader in loaders:
        files = export(loader, parsed.format, parsed.to, **own, **chosen)
        where = files[0] if len(files) == 1 else Path(os.path.commonpath(files))
        print(f"{loader.model_name}: {counted(len(files), 'file')}: {where}")  # noqa: T201
    return 0
