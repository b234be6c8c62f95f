"""``bacpipe shards``: a data set in parts, on which any number of machines work."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bacpipe.commands.arguments import HelpFormatter, add_settings, read_settings
from bacpipe.errors import counted

if TYPE_CHECKING:
    from bacpipe.options import Options

_NAMED = 10  # shards in a message
_ABOUT = """\
Part a data set into shards, work on them with any number of processes on
machines that share the folder of results, and put the results together.

  plan     write which recordings belong to which shard; again, for new ones
  work     work on shards: one, or one after the other until none is free
  status   say how far each shard is
  merge    make one journal and the tables over all recordings
"""
_EXAMPLES = """\
examples:
  bacpipe shards plan audio_dir=/data/2024 models=birdnet hours_per_shard=10
  bacpipe shards work --next audio_dir=/data/2024
  bacpipe shards work --shard 7 audio_dir=/data/2024
  bacpipe shards status audio_dir=/data/2024
  bacpipe shards merge audio_dir=/data/2024
"""


def run(arguments: Sequence[str]) -> int:
    """Plan, work, say how far it is, or merge."""
    parser = argparse.ArgumentParser(
        prog="bacpipe shards",
        description=_ABOUT,
        epilog=_EXAMPLES,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("what", choices=["plan", "work", "status", "merge"], metavar="WHAT",
                        help="plan, work, status or merge")  # fmt: skip
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--shard", type=int, metavar="N", help="work: on this shard")
    chosen.add_argument(
        "--next", action="store_true",
        help="work: on one free shard after the other, until none is left (default)",
    )  # fmt: skip
    parser.add_argument("--most", type=int, metavar="N", help="work: end after N shards")
    parser.add_argument(
        "--anew", action="store_true",
        help="plan: forget the shards that were planned before; what is done is kept",
    )  # fmt: skip
    parser.add_argument(
        "--incomplete", action="store_true", help="merge: also if shards are not done"
    )
    add_settings(parser)
    parsed = parser.parse_intermixed_args(arguments)
    _refuse_others(parser, parsed)
    settings = read_settings(parsed)
    from bacpipe.options import make_options

    options = make_options(**settings)
    doing = {"plan": _plan, "work": _work, "status": _status, "merge": _merge}
    return doing[parsed.what](options, parsed)


def _refuse_others(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Say which option belongs to another word, instead of doing without it."""
    working = {"shard": parsed.shard, "next": parsed.next or None, "most": parsed.most}
    given = {
        "work": next((f"--{name}" for name, value in working.items() if value is not None), ""),
        "plan": "--anew" if parsed.anew else "",
        "merge": "--incomplete" if parsed.incomplete else "",
    }
    for what, option in given.items():
        if option and what != parsed.what:
            parser.error(f"{option} belongs to bacpipe shards {what}, not to {parsed.what}")
    if parsed.shard is not None and parsed.most is not None:
        parser.error(
            f"--shard {parsed.shard} is one shard, so --most {parsed.most} says nothing more; "
            f"expected one of the two"
        )
    if parsed.shard is not None and parsed.shard < 1:
        parser.error(f"--shard {parsed.shard} is not possible: shards are counted from 1")
    if parsed.most is not None and parsed.most < 1:
        parser.error(f"--most {parsed.most} is not possible: expected a number from 1")


def _plan(options: Options, parsed: argparse.Namespace) -> int:
    from bacpipe.scaling.planning import plan
    from bacpipe.store.typed_command import typed_command

    manifest = plan(options, anew=parsed.anew)
    table = manifest.shard_table()
    print(  # noqa: T201
        f"{counted(manifest.recordings, 'recording')}, about {table['hours'].sum():,.1f} h, in "
        f"{counted(len(table), 'shard')} of {table['hours'].min():.2f} to "
        f"{table['hours'].max():.2f} h for {', '.join(manifest.models)}: {manifest.path}"
    )
    if manifest.gone or manifest.added != manifest.recordings:
        print(  # noqa: T201
            f"New since the last plan: {manifest.added:,}; no longer there: {manifest.gone:,}."
        )
    command = typed_command("shards work --next", manifest.audio_dir, options)
    print(f"Work on them, on as many machines as you like, with: {command}")  # noqa: T201
    return 0


def _work(options: Options, parsed: argparse.Namespace) -> int:
    from bacpipe.errors import RecordingsFailedError
    from bacpipe.inference.report import printable
    from bacpipe.scaling.shards import ShardWorker, done_shards

    worker = ShardWorker(options)
    failed = number = 0
    in_vain = False
    with_failures: list[int] = []
    reports = (
        iter([worker.work(parsed.shard)])
        if parsed.shard is not None
        else worker.work_on_all(parsed.most)
    )
    for report in reports:
        number += 1
        failed += len(report.failed)
        in_vain |= any(r.failed and not r.done + r.kept for r in report.reports.values())
        if report.failed:
            with_failures.append(report.number)
        print(report, flush=True)  # noqa: T201
        for name, reason in report.failed:
            print(  # noqa: T201
                f"  failed: {printable(reason if name in reason else f'{name}: {reason}')}"
            )
    done = done_shards(worker.paths)
    left = len(worker.manifest.shards) - len(done)
    print(  # noqa: T201
        f"{counted(number, 'shard')} done here; "
        + (f"{left:,} left, which others work on or nobody yet." if left else "all are done.")
    )
    if not number and not left:  # nothing was free, and failures are not tried again
        with_failures = [shard for shard, path in sorted(done.items()) if _failed(path)]
    _say_how_to_try_again(with_failures, options)
    if options.strict and failed:
        raise RecordingsFailedError(
            f"{counted(failed, 'recording')} failed; all else of these shards is done."
        )
    return int(in_vain)


def _failed(path: Path) -> int:
    """Recordings that failed, of what a worker wrote about a shard."""
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["failed"])
    except (OSError, ValueError, KeyError, TypeError):  # of another version, or gone since
        return 0


def _say_how_to_try_again(shards: Sequence[int], options: Options) -> None:
    """Name the shards with recordings that failed, which only those who name them work on again."""
    if not shards:
        return
    from bacpipe.store.typed_command import typed_command

    assert options.audio_dir is not None
    more = f" and {len(shards) - _NAMED:,} more" if len(shards) > _NAMED else ""
    command = typed_command(f"shards work --shard {shards[0]}", options.audio_dir, options)
    print(  # noqa: T201
        f"Recordings failed in {'shard' if len(shards) == 1 else 'shards'} "
        f"{', '.join(map(str, shards[:_NAMED]))}{more}. When they are mended, try them again, "
        f"shard by shard, with: {command}"
    )


def _status(options: Options, parsed: argparse.Namespace) -> int:
    from bacpipe.scaling.shards import shard_status

    table = shard_status(options)
    print(table.to_string(index=False, float_format="%.2f"))  # noqa: T201
    counts = table["state"].value_counts()
    told = ", ".join(f"{number:,} {state}" for state, number in counts.items())
    print(  # noqa: T201
        f"{counted(len(table), 'shard')}: {told}; {int(table['done'].sum()):,} of "
        f"{counted(int(table['recordings'].sum()), 'recording')} done, "
        f"{int(table['failed'].sum()):,} failed."
    )
    again = (table["state"] == "done") & (table["failed"] > 0)
    _say_how_to_try_again(table.loc[again, "shard"].tolist(), options)
    return 0


def _merge(options: Options, parsed: argparse.Namespace) -> int:
    from bacpipe.scaling.merging import merge

    for model, loader in merge(options, incomplete=parsed.incomplete).items():
        print(  # noqa: T201
            f"{model}: {counted(len(loader.entries), 'recording')} in {loader.embed_dir}"
        )
    return 0
