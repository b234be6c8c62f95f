"""``bacpipe cite``: what a paper should say of results, and whom it should cite."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bacpipe._version import __version__
from bacpipe.commands.arguments import HelpFormatter, results_folder
from bacpipe.errors import ResultsNotFoundError, counted
from bacpipe.models.card import ModelCard, Paper
from bacpipe.models.zoo import CARDS
from bacpipe.store.embedding_set import EmbeddingSet, metadata_of
from bacpipe.store.layout import JOURNALS, REDUCER, is_stamped
from bacpipe.user_input import is_folder

_BACPIPE = "bacpipe"
_SYSTEM = (("Python", "python"), ("PyTorch", "torch"), ("on", "device"))
_PADDING = {"wrap": "by repeating the sound", "constant": "with silence"}
_CHANNELS = {
    "left": "the first channel was used",
    "right": "the second channel was used",
    "loudest": "the channel with most power was used",
    "each": "each channel was used by itself",
}


def run(arguments: Sequence[str]) -> int:
    """Print a paragraph for the methods, notes on licences, and BibTeX."""
    parser = argparse.ArgumentParser(
        prog="bacpipe cite",
        description="Write the methods paragraph and the BibTeX entries for a paper, from what "
        "the results say of how they were made: models, weights, settings and versions.",
        epilog="example:  bacpipe cite bacpipe_results > methods.txt",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "results",
        nargs="*",
        help="main_results_dir, or the folder of one data set in it; audio_dir=FOLDER for the data "
        "set of these recordings (default: main_results_dir of settings.yaml)",
    )
    results = results_folder(parser.parse_intermixed_args(arguments).results, command="cite")
    print(citation_of(results))  # noqa: T201
    return 0


def citation_of(results: Path) -> str:
    """Methods, licences and BibTeX of all embeddings below a folder of results.

    Raises
    ------
    ResultsNotFoundError
        If there are none.
    """
    paragraphs: list[str] = []
    cards: dict[str, ModelCard] = {}
    own: list[str] = []
    for embedding_set in _sets(results):
        facts = metadata_of(embedding_set, "", embedding_set.folder)
        model = str(facts.get("bacpipe", {}).get("model") or facts.get("model_name"))
        if model in CARDS:
            cards[model] = CARDS[model]
        else:
            own.append(f"{model} is no model of bacpipe's: cite its authors, too.")
        paragraphs.append(_sentences(embedding_set, model, facts))
    if not paragraphs:
        raise ResultsNotFoundError(
            f"{results}: holds no finished embeddings to write about; expected a main_results_dir, "
            f"or the folder of a data set in it."
        )
    papers = dict.fromkeys(paper for card in cards.values() for paper in card.papers)
    licences = [
        f"The weights of {name} are under {card.licence}"
        + (": no commercial use." if card.non_commercial else ".")
        for name, card in cards.items()
    ] + list(dict.fromkeys(own))
    keys = _keys(papers)
    entries = [_software()] + [_entry(keys[paper], paper) for paper in papers]
    return "\n\n".join((*paragraphs, "\n".join(licences), *entries)).strip()


def _sets(results: Path) -> Iterator[EmbeddingSet]:
    """Sets of embeddings below a folder that hold at least one finished recording."""
    if not is_folder(results):
        raise ResultsNotFoundError(f"{results}: there is no such folder; expected results.")
    for name, folders, _ in os.walk(results):
        stamped = sorted(folder for folder in folders if is_stamped(folder))
        folders[:] = sorted(set(folders) - set(stamped))
        for folder in (Path(name, folder) for folder in stamped):
            if any(folder.glob(JOURNALS)) or not (folder / REDUCER).exists():
                embedding_set = EmbeddingSet(folder)
                if len(embedding_set.content.done):
                    yield embedding_set


def _sentences(embedding_set: EmbeddingSet, model: str, facts: Mapping[str, Any]) -> str:
    made = facts.get("bacpipe", {})
    rate, samples = facts.get("sample_rate (Hz)"), facts.get("segment_length (samples)")
    done = embedding_set.content.done
    hours = sum(entry.duration for entry in done.values()) / 3600
    card = CARDS.get(model)
    cited = f" ({'; '.join(paper.in_text for paper in card.papers)})" if card else ""
    text = (
        f"We computed embeddings of {counted(len(done), 'recording')} ({hours:.4g} hours) with the "
        f"model {model}{cited}, using bacpipe {made.get('version', 'of an unknown version')}"
    )
    system = [f"{name} {made[key]}" for name, key in _SYSTEM if made.get(key)]
    text += f" ({', '.join(system)})." if system else "."
    if rate and samples:
        speed = made.get("speed", 1)
        seconds = samples / rate * speed
        hop = made.get("hop") or seconds
        played = "" if speed == 1 else f"played at {speed:g} times their speed, "
        text += (
            f" Recordings were {played}resampled to {rate} Hz and cut into windows of "
            f"{seconds:.4g} s{' of the recording' if played else ''}, "
            f"{'one every' if hop != seconds else 'which do not overlap, one every'} {hop:.4g} s"
        )
        padding = str(made.get("padding") or "")
        filled = _PADDING.get(padding, f"by numpy.pad's mode {padding!r}")
        text += f"; the last window of a recording was filled {filled}." if padding else "."
    if used := _CHANNELS.get(str(made.get("channel"))):
        text += f" Of recordings with several channels, {used}."
    if made.get("only_annotated"):
        text += " Only annotated segments were embedded."
    if made.get("precision", "float32") != "float32":
        text += f" The network computed in {made['precision']}."
    if thresholds := {
        entry.predictions.threshold
        for entry in done.values()
        if entry.predictions is not None and entry.predictions.threshold is not None
    }:
        lowest = " or ".join(f"{value:g}" for value in sorted(thresholds))
        text += f" Predictions of its classifier with a score of at least {lowest} were kept."
        sensitivities = {
            entry.predictions.sensitivity for entry in done.values() if entry.predictions
        } - {None, 1}
        if sensitivities:
            told = " or ".join(f"{value:g}" for value in sorted(sensitivities))
            text += f" They were computed with a sensitivity of {told}."
    checkpoint = made.get("checkpoint")
    if isinstance(checkpoint, dict):
        hashes = ", ".join(f"{Path(name).name} {value}" for name, value in checkpoint.items())
        text += f" SHA-256 of its files: {hashes}."
    return text


def _keys(papers: Iterable[Paper]) -> dict[Paper, str]:
    """A key for each paper, such as kahl2021; letters tell alike ones apart."""
    keys: dict[Paper, str] = {}
    for paper in papers:
        name = paper.authors.removesuffix(" et al.").split(" and ")[0]
        plain = "".join(letter for letter in name.lower() if letter.isalnum()) + str(paper.year)
        taken = [key for key in keys.values() if key.rstrip("bcdefgh") == plain]
        keys[paper] = plain + ("" if not taken else "bcdefgh"[len(taken) - 1])
    return keys


def _entry(key: str, paper: Paper) -> str:
    authors = paper.authors.replace(" et al.", " and others")
    # Braces keep the capitals of names such as BirdNET.
    fields = {
        "author": authors if " and " in authors else f"{{{authors}}}",
        "title": f"{{{paper.title}}}",
        "journal": paper.published,
        "year": str(paper.year),
        "doi": paper.doi,
        "url": f"https://doi.org/{paper.doi}",
    }
    return _bibtex("article", key, fields)


def _software() -> str:
    fields = {
        "author": "{The bacpipe developers}",
        "title": "{bacpipe: bioacoustic deep-learning models over recordings}",
        "version": __version__,
        "url": "https://github.com/bioacoustic-ai/bacpipe",
    }
    return _bibtex("software", _BACPIPE, fields)


def _bibtex(kind: str, key: str, fields: dict[str, str]) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join((f"@{kind}{{{key},", *lines, "}"))
