"""The command line: ``python -m bacpipe`` or ``bacpipe``."""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from bacpipe._version import __version__
from bacpipe.commands import COMMANDS
from bacpipe.commands.arguments import HelpFormatter, add_settings, read_settings, refuse_dashes
from bacpipe.errors import BacpipeError, RecordingsFailedError, SettingsError
from bacpipe.models.backends.cpu.memory import keep_freed_memory

_RUN_MODELS = ("bench", "calls", "demo", "shards")

_EXAMPLES = """\
examples:
  bacpipe                             run the models of config.yaml; without an
                                      audio_dir, on synthetic demo recordings
  bacpipe audio_dir=/data/recordings  run on your recordings
  bacpipe audio_dir=/data/recordings models='[birdnet, beats]' device=cpu
  bacpipe --config my_config.yaml --settings my_settings.yaml

Every key of config.yaml and settings.yaml can be given as key=value; these
files say what the keys do, and are used when they are in the current folder.

commands (bacpipe COMMAND --help says more):
"""

_WELCOME = """\
bacpipe runs bioacoustic models over a folder of recordings and keeps embeddings and predictions.
You named no recordings, so this is a demonstration: it makes some synthetic recordings in
./bacpipe_demo, runs BirdNET over them and writes to ./bacpipe_results. For your own recordings:

  bacpipe audio_dir=/path/to/recordings
  bacpipe --help
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
        line or the settings, 3 when recordings failed and ``strict`` is set, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may have letters that the terminal does not know; and where standard
        # output and error go to one file, their lines stay in order.
        sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Other libraries' chatter would hide what the user needs to read.
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("bacpipe").setLevel(logging.INFO)
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
    try:
        refuse_dashes(words)
        if not words or words[0] not in COMMANDS or words[0] in _RUN_MODELS:
            # This process is ours alone; as a library, bacpipe leaves the memory to its user.
            keep_freed_memory()
        if words[:1] and words[0] in COMMANDS:
            command = importlib.import_module(f"bacpipe.commands.{words[0]}")
            return int(command.run(words[1:]))
        return _play(words)
    except SettingsError as error:
        return _complain(error, code=2)
    except RecordingsFailedError as error:
        return _complain(error, code=3)
    except BacpipeError as error:
        return _complain(error, code=1)
    except BrokenPipeError:
        # Whoever read our output, such as head, has seen enough; Python's exit would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(  # noqa: T201
            "\nInterrupted. To go on, run the same command again: it keeps what is there.",
            file=sys.stderr,
        )
        return 130
    finally:
        if arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            # Everything is in order.  Python, which ends now, would not be when it is interrupted.
            with suppress(ValueError):  # in another thread than the main one, which goes on
                signal.signal(signal.SIGINT, signal.SIG_DFL)


def _play(words: Sequence[str]) -> int:
    options = _parser().parse_intermixed_args(words)
    settings = read_settings(options)
    if not words and settings.get("audio_dir") is None:
        print(_WELCOME)  # noqa: T201
    from bacpipe.workflows import play

    play(bool_save_logs=options.save_logs, **settings)
    return 0


def _parser() -> argparse.ArgumentParser:
    commands = "\n".join(f"  bacpipe {name:<10} {line}" for name, line in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="bacpipe",
        description="Run bioacoustic models over a folder of recordings.",
        epilog=_EXAMPLES + commands,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bacpipe {__version__}")
    parser.add_argument(
        "--save-logs", action="store_true", help="save log and settings with the results"
    )
    add_settings(parser)
    return parser


def _complain(error: BacpipeError, *, code: int) -> int:
    print(f"bacpipe: {error}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
