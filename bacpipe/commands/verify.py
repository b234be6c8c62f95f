"""``bacpipe verify``: check a results tree."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bacpipe.commands.arguments import results_folder
from bacpipe.errors import counted


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
    results = results_folder(options.results, command="verify")
    from bacpipe.store.typed_command import typed_words
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
            f"{number}. To mark {marked} of them, so that the next run computes them again: "
            f"{typed_words('verify', results, '--repair')}"
        )
    else:
        print(f"{number}.")  # noqa: T201
    return 1
