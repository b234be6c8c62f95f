"""``bacpipe models``: the zoo as a table; its weights, fetched ahead; a proof that they work."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bacpipe._version import __version__
from bacpipe.commands.arguments import own_settings, place
from bacpipe.errors import (
    BacpipeError,
    CheckpointNotFoundError,
    ModelUnavailableError,
    SettingsError,
)
from bacpipe.models.card import ModelCard
from bacpipe.models.loading import find_card, model_table
from bacpipe.models.weights import checkpoints
from bacpipe.models.zoo import CARDS
from bacpipe.options import Options, make_options
from bacpipe.store.files import write_text

REPORT = "bacpipe_models_check.md"
_ACTIONS = ("get", "check")
_BELONGS = {"--all": _ACTIONS, "--names": ("get",), "--report": ("check",)}
_OK, _NOT_CHECKED, _PROBLEM = "ok", "not checked", "PROBLEM"


def run(arguments: Sequence[str]) -> int:
    """List the zoo, fetch weights, or check models; 1 when something is missing or wrong."""
    parser = _parser()
    parsed = parser.parse_intermixed_args(arguments)
    settings = [word for word in parsed.words if "=" in word]
    action, *names = [word for word in parsed.words if "=" not in word] or [""]
    options = make_options(**own_settings(settings))
    base = Path(options.model_base_path)
    if action and action not in _ACTIONS:
        raise SettingsError(
            f"bacpipe models {action} is not understood; expected bacpipe models, bacpipe models "
            f"get NAME ... or bacpipe models check [NAME ... | --all]."
        )
    _refuse_others(parser, parsed, action, names)
    if not action:
        print(model_table(base))  # noqa: T201
        return 0
    cards = list(CARDS.values()) if parsed.all else [find_card(name) for name in names]
    if action == "get":
        if not cards:
            raise SettingsError(
                "bacpipe models get: expected the names of the models whose weights are wanted, "
                "or --all."
            )
        return _get_names(cards, base) if parsed.names else _get(cards, base)
    if not cards:
        cards = [c for c in CARDS.values() if not checkpoints.missing_files(c, base)]
    checks = []
    for card in cards:
        checks.append(check(card, options))
        print(f"{checks[-1].status:<11}  {card.name}", flush=True)  # noqa: T201
    text = report(checks)
    print(f"\n{text}\n")  # noqa: T201
    target = parsed.report or Path(REPORT)
    write_text(target, text + "\n")
    print(f"Written to {target}.")  # noqa: T201
    return int(any(item.status != _OK for item in checks))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bacpipe models",
        description="List the models. get: fetch weights and names ahead, for computers without "
        "a network. check: fetch what is missing, load each model, embed a second of sound, and "
        "compare hashes, names and dimension with what the card says; without names, those whose "
        "weights are on this machine.",
        epilog="Settings are given as key=value, such as model_base_path=/data/weights.",
    )
    parser.add_argument(
        "words", nargs="*", metavar="get | check | NAME | key=value", help="what to do with which"
    )
    parser.add_argument("--all", action="store_true", help="all models")
    parser.add_argument(
        "--names",
        action="store_true",
        help="get: only the small files with the names and codes of classes",
    )
    parser.add_argument(
        "--report", metavar="FILE", type=place, help=f"what check writes (default: {REPORT})"
    )
    return parser


def _refuse_others(
    parser: argparse.ArgumentParser, parsed: argparse.Namespace, action: str, names: Sequence[str]
) -> None:
    """Say which option belongs to another word, instead of doing without it."""
    given = {"--all": parsed.all, "--names": parsed.names, "--report": parsed.report is not None}
    for option, actions in _BELONGS.items():
        if given[option] and action not in actions:
            parser.error(
                f"{option} belongs to bacpipe models {' and '.join(actions)}, not to "
                f"{action or 'the list of all models'}"
            )
    if parsed.all and names:
        parser.error(f"--all means all models, {', '.join(names)} some; expected one of the two")


def _get(cards: Iterable[ModelCard], base: Path) -> int:
    missing = 0
    for card in cards:
        try:
            files = checkpoints.resolve(card, base)
        except CheckpointNotFoundError as error:
            print(f"{card.name}: {error}")  # noqa: T201
            missing += 1
            continue
        missing += bool(checkpoints.fetch_labels(card.labels, base))
        checkpoints.fetch_labels(card.optional_labels, base)
        size = sum(checkpoints.size_of(path) for path in files.values()) / 1e6
        places = sorted({str(path.parent) for path in files.values()})
        print(f"{card.name}: {size:.0f} MB at {', '.join(places)}")  # noqa: T201
    return int(missing > 0)


def _get_names(cards: Iterable[ModelCard], base: Path) -> int:
    """Fetch what `bacpipe classes` needs of models whose names are in files of their own."""
    problems = 0
    for card in cards:
        files = (*card.labels, *card.optional_labels)
        lacking = checkpoints.fetch_labels(files, base)
        problems += len(lacking)
        if not files:
            print(f"{card.name}: has no names beside its weights")  # noqa: T201
        elif not lacking:
            print(f"{card.name}: names at {base}")  # noqa: T201
    return int(problems > 0)


@dataclass
class Check:
    """What became of the check of one model."""

    name: str
    status: str = _OK
    facts: dict[str, str] = field(default_factory=dict)  # column of the report to what was found
    problems: list[str] = field(default_factory=list)

    def expect(self, fact: str, value: str, wrong: str | None = None) -> None:
        """Note what was found, and what is wrong with it."""
        self.facts[fact] = value
        if wrong:
            self.problems.append(wrong)
            self.status = _PROBLEM


def check(card: ModelCard, options: Options) -> Check:
    """Fetch, load and run one model, and compare it with its card.

    Parameters
    ----------
    card : ModelCard
        The model.
    options : Options
        Device and folder of the checkpoints.

    Returns
    -------
    Check
        Whatever goes wrong is in it.
    """
    done = Check(card.name)
    steps: tuple[Callable[[Check, ModelCard, Options], None], ...] = (_check_files, _check_model)
    for step in steps:
        try:
            step(done, card, options)
        except (CheckpointNotFoundError, ModelUnavailableError) as error:
            done.status = _NOT_CHECKED
            done.problems.append(str(error))
            break
        # Whatever a model meets is what the report is for.
        except Exception as error:
            text = " ".join(str(error).split())
            named = text if isinstance(error, BacpipeError) else f"{type(error).__name__}: {text}"
            done.status = _PROBLEM
            done.problems.append(named)
            break
    return done


def _check_files(done: Check, card: ModelCard, options: Options) -> None:
    base = Path(options.model_base_path)
    known = checkpoints.known_hashes(card)
    for name, path in checkpoints.resolve(card, base).items():
        digest = checkpoints.checkpoint_hash(path, base)
        inside = path.relative_to(base).as_posix() if path.is_relative_to(base) else name
        wanted = known.get(inside)
        verdict = "no hash on the card" if wanted is None else "as on the card"
        wrong = None
        if wanted not in (None, digest):
            verdict = "differs from the card"
            wrong = f"{path} has the SHA-256 {digest}, but the card says {wanted}"
        done.expect(f"file {inside}", f"sha256 {digest} ({verdict})", wrong)
    for problem in checkpoints.fetch_labels(card.labels, base):
        done.expect("labels", "missing", problem)
    checkpoints.fetch_labels(card.optional_labels, base)
    for file in (*card.labels, *card.optional_labels):
        listed = checkpoints.find_labels(file, base)
        if listed is not None:
            digest = checkpoints.checkpoint_hash(listed, base)
            done.facts[f"labels {file.name}"] = f"sha256 {digest}"


def _check_model(done: Check, card: ModelCard, options: Options) -> None:
    from bacpipe.embedder import Embedder

    embedder = Embedder(card.name, options=options)
    model = embedder.loaded_model
    noise = np.random.default_rng(0).normal(0, 0.05, model.sr).astype(np.float32)
    embeddings = embedder.embeddings_using_multithreading([noise])
    dim = embeddings.shape[1]
    done.expect("dimension", str(dim), None if dim == card.dim else f"the card says {card.dim}")
    if not np.isfinite(embeddings).all():
        done.expect("values", "not finite", "embeddings of noise are not all finite numbers")
    if not card.is_classifier:
        return
    count = len(model.classes)
    wrong = None if count == card.n_classes else f"the card says {card.n_classes} classes"
    done.expect("classes", f"{count}, such as {', '.join(model.classes[:3])}", wrong)
    scores = embedder.classifier.predictions
    if scores is None or scores.shape[1:] != (count,):
        done.expect("scores", "missing", f"there are no {count} scores per window")
    if count and model.classes[0].startswith("class_0"):
        done.expect("names", "only numbers", "its classes have no names")
    known = sum(map(bool, model.scientific_names))
    done.facts["names"] = f"{known} scientific, {sum(map(bool, model.codes))} codes"


def report(checks: Sequence[Check]) -> str:
    """What was checked, as text to paste into an issue; the home folder is written as ``~``."""
    lines = [
        f"bacpipe {__version__}, Python {platform.python_version()}, {platform.platform()}",
        "",
        "| model | result | dimension | classes | names |",
        "|---|---|---|---|---|",
    ]
    for item in checks:
        cells = [item.facts.get(key, "") for key in ("dimension", "classes", "names")]
        lines.append(f"| {' | '.join([item.name, item.status, *cells])} |")
    for item in checks:
        details = [
            *(f"problem: {text}" for text in item.problems),
            *(
                f"{key}: {text}"
                for key, text in item.facts.items()
                if key.startswith(("file", "labels"))
            ),
        ]
        if details:
            lines += ["", f"{item.name}", *(f"- {text}" for text in details)]
    missing = [item.name for item in checks if item.status == _NOT_CHECKED]
    if missing:
        lines += ["", f"Not checked, because something is missing here: {', '.join(missing)}."]
    return "\n".join(lines).replace(str(Path.home()), "~")
