"""The command line: ``python -m bacpipe`` or ``bacpipe``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bacpipe import configuration
from bacpipe._version import __version__
from bacpipe.errors import BacpipeError, SettingsError

_EXAMPLES = """\
examples:
  bacpipe                                          run the models of config.yaml; without an
                                                   audio_dir, on synthetic demo recordings
  bacpipe audio_dir=/data/recordings               run on your recordings
  bacpipe audio_dir=/data/recordings models='[birdnet, beats]' device=cpu
  bacpipe --config my_config.yaml --settings my_settings.yaml
  bacpipe demo                                     make the demo recordings and stop

Every key of config.yaml and settings.yaml can be given as key=value; these files say what the
keys do. config.yaml and settings.yaml in the current folder are used when they are there.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line; those of the process unless given.

    Returns
    -------
    int
        Exit code: 0 when the job was done, 1 when it was not, 2 for a mistake in the command
        line or the settings, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Other libraries' chatter would hide what the user needs to read.
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("bacpipe").setLevel(logging.INFO)
    try:
        if options.words[:1] == ["demo"]:
            return _demo(options.words[1:])
        from bacpipe.workflows import play

        play(bool_save_logs=options.save_logs, **_overrides(options))
    except SettingsError as error:
        return _complain(error, code=2)
    except BacpipeError as error:
        return _complain(error, code=1)
    except KeyboardInterrupt:
        print(  # noqa: T201
            "\nInterrupted. What is finished is kept; run the same command again to go on.",
            file=sys.stderr,
        )
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bacpipe",
        description="Run bioacoustic models over a folder of recordings.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bacpipe {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file: what to run")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML file: how to run it")
    parser.add_argument(
        "--save-logs", action="store_true", help="save log and settings with the results"
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="key=value",
        help="a key of config.yaml or settings.yaml; or the command: demo [FOLDER]",
    )
    return parser


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """Keys of the user's files, then those of the command line, which win."""
    overrides: dict[str, Any] = {}
    for name in ("config", "settings"):
        path = getattr(options, name)
        beside = Path(f"{name}.yaml")
        if path is None and beside.is_file():
            path = beside
        if path is not None:
            overrides |= configuration.read_overrides(path, name)
    for word in options.words:
        key, separator, text = word.partition("=")
        if not separator:
            raise SettingsError(
                f"{word!r} is not understood; expected key=value, such as audio_dir=recordings "
                f"(bacpipe --help shows examples)."
            )
        overrides[key] = _parse_value(key, text)
    return overrides


def _parse_value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(
            f"{key}={text!r} is not understood; lists are written as {key}='[first, second]'."
        ) from None


def _demo(words: Sequence[str]) -> int:
    from bacpipe.demo import make_demo

    folder = make_demo(Path(words[0]) if words else Path("bacpipe_demo"))
    print(  # noqa: T201
        f"Demo recordings with annotations are in {folder}. Run the models on them with:\n"
        f"  bacpipe audio_dir={folder}"
    )
    return 0


def _complain(error: BacpipeError, *, code: int) -> int:
    print(f"bacpipe: {error}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
