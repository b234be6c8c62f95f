"""``bacpipe train``: train a recogniser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bacpipe.commands.arguments import add_settings, read_settings, split_words
from bacpipe.errors import SettingsError, counted


def run(arguments: Sequence[str]) -> int:
    """Train it, and say what it has learnt from and how good it is."""
    parser = argparse.ArgumentParser(
        prog="bacpipe train",
        usage="bacpipe train NAME audio_dir=FOLDER [models=MODEL] [--classes CLASS ...] ...",
        description="Train a recogniser on labelled windows of recordings that a model has "
        "embedded. Labels are those of people (bacpipe label), or where there are none the "
        "annotations; labels_from chooses.",
    )
    add_settings(parser)
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="which labels (default: all)")
    parser.add_argument(
        "--labels-only", action="store_true", help="do without unlabelled windows as weak negatives"
    )
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random")
    options = parser.parse_intermixed_args(arguments)
    others, options.words = split_words(options.words)
    settings = read_settings(options)
    audio_dir = settings.pop("audio_dir", None)
    if len(others) != 1 or audio_dir is None:
        raise SettingsError(
            "train takes the name of the recogniser, and audio_dir=FOLDER with the recordings: "
            "bacpipe train my_frogs audio_dir=recordings."
        )
    from bacpipe.options import make_options
    from bacpipe.recognisers.training import train_recogniser
    from bacpipe.store.loader import Loader
    from bacpipe.store.typed_command import typed_command

    models = make_options(**settings).models
    if len(models) != 1:
        raise SettingsError(f"train takes one model, but got models={list(models)}.")
    loader = Loader(audio_dir, models[0], **settings)
    recogniser = train_recogniser(
        audio_dir, models[0], name=others[0], classes=options.classes,
        weak_negatives=not options.labels_only, seed=options.seed, loader=loader,
    )  # fmt: skip
    judged = recogniser.evaluate(loader)
    print(  # noqa: T201
        f"{recogniser.name}: {counted(len(recogniser.classes), 'class', 'classes')} on "
        f"{recogniser.model}, in {loader.paths.recognisers_path / recogniser.name}\n"
        f"Judged on {judged.attrs['how']}:\n{judged.to_string(index=False, float_format='%.3f')}\n"
        f"Apply it: {typed_command('', audio_dir, loader.options, recogniser=recogniser.name)}"
    )
    return 0
