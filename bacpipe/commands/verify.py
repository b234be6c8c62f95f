"""``bacpipe verify``: check a results tree."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from bacpipe.commands.arguments import parse_words, read_settings
from bacpipe.errors import SettingsError, counted
from bacpipe.options import make_options, user_settings
from bacpipe.user_input import typed_path


def run(arguments: Sequence[str]) -> int:
    """Print one sentence for everything that is damaged; 1 if there is anything, else 0."""
    parser = argparse.ArgumentParser(
        prog="bacpipe verify",
        description="Check results: journals against files, sizes, hashes, shapes and values. "
        "Nothing is changed unless --repair is given.",
    )
    parser.add_argument(
        "results",
        nargs="*",
        help="main_results_dir, or the folder of one data set in it (default: main_results_dir "
        "of settings.yaml in the current folder, or bacpipe_results); audio_dir=FOLDER for the "
        "data set of these recordings, main_results_dir=FOLDER as in other commands",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="mark what is damaged, so that the next run computes it again; nothing is deleted",
    )
    options = parser.parse_intermixed_args(arguments)
    results = _results(options.results)
    from bacpipe.store.verification import find_damage, repair_results

    findings = []
    for finding in find_damage(results):
        # Names of files need not be text.
        print(str(finding).encode(errors="backslashreplace").decode(), flush=True)  # noqa: T201
        findings.append(finding)
    if not findings:
        print(f"{results}: everything is as the journals say.")  # noqa: T201
        return 0
    number = counted(len(findings), "finding")
    marked = sum(finding.folder is not None for finding in findings)
    if options.repair:
        print(  # noqa: T201
            f"Marked {repair_results(findings)} of {number}; run the pipeline "
            f"again to compute these."
        )
    elif marked:
        print(  # noqa: T201
            f"{number}. bacpipe verify {results} --repair marks {marked} "
            f"of them, so that the next run computes them again."
        )
    else:
        print(f"{number}.")  # noqa: T201
    return 1


def _results(words: Sequence[str]) -> Path:
    """Folder that the words name, as a path or as settings."""
    plain = [word for word in words if "=" not in word or Path(word).exists()]
    if len(plain) > 1 or (plain and len(words) > 1):
        raise SettingsError(
            f"verify takes one folder of results, but got {' and '.join(words)}; use verify "
            f"FOLDER, or audio_dir=FOLDER main_results_dir=FOLDER."
        )
    if plain:
        return typed_path(plain[0])
    given = parse_words(words)
    own = read_settings(argparse.Namespace(config=None, settings=None, words=[]))
    main = own.get("main_results_dir", user_settings().main_results_dir)
    options = make_options(**{"main_results_dir": main, **given})
    if "audio_dir" not in given:
        return typed_path(options.main_results_dir)
    from bacpipe.store.layout import paths_of

    return paths_of(given["audio_dir"], "none", options).dataset_path
