"""A small annotated soundscape to try bacpipe with, made of synthetic sounds.

Twelve recordings of three sites at four times of the day, with wind, background noise and
calls of six invented species that differ in pitch, rhythm and the hours they are active.

Layout and guarantees
---------------------
``README.txt`` is written first and marks the folder as ours, ``annotations.csv`` is written
last and marks it as complete.  Every file appears under its name only when it is whole, so
an interrupted call is finished by the next one, and nothing that exists is ever replaced.
Every recording has random numbers of its own, so its sound does not depend on the others.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
from scipy import signal

from bacpipe.errors import BacpipeError
from bacpipe.user_input import typed_path

SAMPLE_RATE = 48_000
README = "README.txt"
ANNOTATIONS = "annotations.csv"

_SEED = 20250504
_FIRST_LINE = "Demo recordings of bacpipe: all sounds are synthetic."
_README_TEXT = f"""{_FIRST_LINE}

bacpipe made these files to be tried out with. Nothing here was recorded in nature: the
wind, the noise and the calls of the six invented species are computed. Names of files tell
the time of the pretended recording. annotations.csv says which species calls where.
Do not use them to judge how well a model recognises real animals.

Delete the folder whenever you like; bacpipe can make it again.
"""
_COLUMNS = ("audiofilename", "start", "end", "label:species", "label:call_type")

_Random = np.random.Generator


@dataclass(frozen=True)
class _Species:
    name: str
    call_type: str
    call: Callable[[_Random], np.ndarray]
    """Makes one call, song or chorus of peak 1."""
    active: tuple[str, ...]
    """Times of the day (HHMMSS) at which it is heard."""


@dataclass(frozen=True)
class _Recording:
    site: str
    date: str
    time: str
    suffix: str = ".wav"
    channels: int = 1

    @property
    def name(self) -> str:
        return f"{self.site}/{self.date}_{self.time}{self.suffix}"


@dataclass(frozen=True)
class _Event:
    start: float  # s
    end: float  # s
    species: _Species


def make_demo(folder: str | Path) -> Path:
    """Make the demo recordings and their annotations, unless they are there already.

    Parameters
    ----------
    folder : str or Path
        A folder that does not exist yet, is empty, or holds (a part of) the demo.

    Returns
    -------
    Path
        The folder, to be used as ``audio_dir``.

    Raises
    ------
    BacpipeError
        If the folder holds anything else, or cannot be written.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.make_demo("recordings").name  # the demo is there already, so nothing is made
    'recordings'
    """
    folder = typed_path(folder)
    try:
        if _is_complete(folder):
            return folder
        _write_text(folder / README, _README_TEXT)
        rows = []
        for number, recording in enumerate(_RECORDINGS):
            samples, events = _compose(recording, np.random.default_rng((_SEED, number)))
            _write_audio(folder / recording.name, samples)
            rows += [(recording, event) for event in events]
        _write_text(folder / ANNOTATIONS, _annotation_table(rows))
    except (OSError, sf.SoundFileError) as error:
        code = error.errno if isinstance(error, OSError) else None
        raise BacpipeError(
            f"{folder}: the demo recordings cannot be written here "
            f"({os.strerror(code) if code else error}); work in a folder where you may write, "
            f"or make room on the disk."
        ) from error
    return folder


def _is_complete(folder: Path) -> bool:
    """Whether the demo is there in full; an error if the folder is somebody else's."""
    if not folder.exists():
        return False
    # Hidden files are of no account: .DS_Store, and what a killed run left behind.
    entries = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    if not entries:
        return False
    readme = folder / README
    if not readme.is_file() or not readme.read_bytes().startswith(_FIRST_LINE.encode()):
        raise BacpipeError(
            f"{folder}: this folder holds other files, so the demo recordings are not written "
            f"here; choose a folder that is empty or does not exist yet."
        )
    return ANNOTATIONS in entries


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Path to write to; the file appears under its own name when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    with _whole(path) as temporary:
        temporary.write_bytes(text.encode())


def _write_audio(path: Path, samples: np.ndarray) -> None:
    if path.exists():
        return
    subtype = "VORBIS" if path.suffix == ".ogg" else "PCM_16"
    with (
        _whole(path) as temporary,
        sf.SoundFile(
            temporary,
            "w",
            samplerate=SAMPLE_RATE,
            channels=samples.shape[1],
            format=path.suffix[1:],
            subtype=subtype,
        ) as audio,
    ):
        # libsndfile's Vorbis encoder overflows the stack when it gets everything at once.
        for second in range(0, len(samples), SAMPLE_RATE):
            audio.write(samples[second : second + SAMPLE_RATE])


def _annotation_table(rows: list[tuple[_Recording, _Event]]) -> str:
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for recording, event in rows:
        species = event.species
        times = (f"{event.start:.2f}", f"{event.end:.2f}")
        writer.writerow((recording.name, *times, species.name, species.call_type))
    return table.getvalue()


# ---------------------------------------------------------------- the soundscape


def _compose(recording: _Recording, rng: _Random) -> tuple[np.ndarray, list[_Event]]:
    """Samples (n, channels) of a recording and what is heard in it, in order of time."""
    seconds = round(rng.uniform(35, 39), 2)
    samples = _background(round(seconds * SAMPLE_RATE), recording.channels, rng)
    events = []
    for at, species in _schedule(recording, seconds, rng):
        call = species.call(rng)
        start = min(at, seconds - len(call) / SAMPLE_RATE - 0.1)
        first = round(start * SAMPLE_RATE)
        # From close by to hardly above the noise.
        peak = 10 ** (rng.uniform(-32, -10) / 20)
        samples[first : first + len(call)] += peak * call[:, None] * _pan(recording, rng)
        events.append(_Event(start, start + len(call) / SAMPLE_RATE, species))
    events.sort(key=lambda event: (event.start, event.end))
    return samples.clip(-0.99, 0.99), events


def _schedule(
    recording: _Recording, seconds: float, rng: _Random
) -> Iterator[tuple[float, _Species]]:
    """When which species begins: everyone active once, some twice, seven calls in all."""
    active = [species for species in _SPECIES if recording.time in species.active]
    more = rng.permutation(len(active))[: 7 - len(active)]
    singers = active + [active[i] for i in more]
    slot = seconds / len(singers)
    for number, i in enumerate(rng.permutation(len(singers))):
        yield (number + rng.uniform(0, 0.7)) * slot, singers[i]


def _background(n_samples: int, channels: int, rng: _Random) -> np.ndarray:
    """Gusts of wind below a few hundred hertz and a faint hiss above."""
    white = rng.standard_normal((2, n_samples, channels), dtype=np.float32)
    rumble = _filter(white[0], rng.uniform(80, 200))
    hiss = _filter(white[1], rng.uniform(3000, 8000))
    gusts = rng.uniform(0.2, 1, int(n_samples / SAMPLE_RATE / 1.5) + 2)
    at = np.linspace(0, len(gusts) - 1, n_samples)
    strength = np.interp(at, np.arange(len(gusts)), gusts).astype(np.float32)[:, None]
    wind_level = 10 ** (rng.uniform(-40, -30) / 20)
    hiss_level = 10 ** (rng.uniform(-56, -46) / 20)
    rumble *= strength * np.float32(wind_level / rumble.std())
    hiss *= np.float32(hiss_level / hiss.std())
    return rumble + hiss


def _filter(samples: np.ndarray, hertz: float) -> np.ndarray:
    """First-order low-pass, in the precision of the samples."""
    b, a = signal.butter(1, hertz, fs=SAMPLE_RATE)
    filtered: np.ndarray = signal.lfilter(
        b.astype(samples.dtype), a.astype(samples.dtype), samples, axis=0
    )
    return filtered


def _pan(recording: _Recording, rng: _Random) -> np.ndarray:
    """Gain of every channel."""
    angle = rng.uniform(0.1, 0.4) * np.pi
    stereo = np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)
    return stereo if recording.channels == 2 else np.ones(1, dtype=np.float32)


# ---------------------------------------------------------------- what the species sound like


def _tone(hertz: np.ndarray, overtones: tuple[float, ...] = ()) -> np.ndarray:
    """Tone of a frequency that changes from sample to sample, faded in and out."""
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    tone = np.sin(phase)
    for number, strength in enumerate(overtones, start=2):
        tone += strength * np.sin(number * phase)
    faded: np.ndarray = tone * signal.windows.tukey(len(tone), 0.4)
    return faded


def _sweep(start: float, end: float, seconds: float) -> np.ndarray:
    return np.linspace(start, end, round(seconds * SAMPLE_RATE))


def _sequence(parts: list[np.ndarray], pauses: list[float]) -> np.ndarray:
    """Sounds one after the other, with a pause in seconds after each but the last."""
    pieces = []
    for part, pause in zip(parts, [*pauses[: len(parts) - 1], 0.0], strict=True):
        pieces += [part, np.zeros(round(pause * SAMPLE_RATE))]
    return _to_peak(np.concatenate(pieces))


def _to_peak(sound: np.ndarray) -> np.ndarray:
    return (sound / np.abs(sound).max()).astype(np.float32)


def _warbler_song(rng: _Random) -> np.ndarray:
    """Whistled syllables that sweep up and down between 2.5 and 7 kHz."""
    n = int(rng.integers(7, 11))
    syllables = []
    for _ in range(n):
        low, high = rng.uniform(2500, 4500), rng.uniform(4500, 7000)
        ends = (low, high) if rng.random() < 0.5 else (high, low)
        syllables.append(_tone(_sweep(*ends, rng.uniform(0.08, 0.25)), (0.2,)))
    return _sequence(syllables, list(rng.uniform(0.04, 0.15, n)))


def _trill(rng: _Random) -> np.ndarray:
    """One short note again and again, 14 to 20 times a second."""
    top, rate = rng.uniform(5000, 6000), rng.uniform(14, 20)
    note = _tone(_sweep(top, top - 1800, 0.55 / rate))
    n = int(rate * rng.uniform(1.8, 3))
    trill = _sequence([note] * n, [0.45 / rate] * n)
    return _to_peak(trill * np.linspace(0.3, 1, len(trill)))


def _two_tones(rng: _Random) -> np.ndarray:
    """A high note and a lower one, two to four times."""
    first = rng.uniform(1000, 1200)
    high = _tone(np.full(round(0.2 * SAMPLE_RATE), first), (0.15, 0.05))
    low = _tone(np.full(round(0.3 * SAMPLE_RATE), first * 0.78), (0.15, 0.05))
    n = int(rng.integers(2, 5))
    return _sequence([high, low] * n, [0.08, 0.5] * n)


def _hoot(rng: _Random) -> np.ndarray:
    """Deep, soft notes of half a second, the last one drawn out and trembling."""
    hertz = rng.uniform(330, 420)
    parts = [_tone(_sweep(hertz, hertz * 0.95, rng.uniform(0.35, 0.5)), (0.3, 0.1))]
    parts *= int(rng.integers(2, 4))
    seconds = rng.uniform(0.8, 1.2)
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    parts.append(_tone(hertz * (1 + 0.04 * np.sin(2 * np.pi * 9 * t)), (0.3, 0.1)))
    return _sequence(parts, list(rng.uniform(0.25, 0.4, len(parts))))


def _insect_chorus(rng: _Random) -> np.ndarray:
    """Several insects, each a steady carrier around 8 kHz in pulses of its own rhythm."""
    return _chorus(rng, _insect, singers=4, seconds=rng.uniform(3, 4.5))


def _insect(n_samples: int, rng: _Random) -> np.ndarray:
    t = np.arange(n_samples) / SAMPLE_RATE
    carrier = np.sin(2 * np.pi * rng.uniform(7200, 9200) * t)
    pulses = (rng.uniform(28, 45) * t) % 1 < 0.5
    chirps = np.sin(2 * np.pi * rng.uniform(1.5, 3) * t + rng.uniform(0, 6)) > -0.3
    insect: np.ndarray = carrier * _filter((pulses & chirps).astype(np.float32), 300)
    return insect


def _frog_chorus(rng: _Random) -> np.ndarray:
    """Several frogs that croak in turns: trains of damped pulses around 1.5 kHz."""
    return _chorus(rng, _frog, singers=3, seconds=rng.uniform(3, 4.5))


def _frog(n_samples: int, rng: _Random) -> np.ndarray:
    t = np.arange(n_samples) / SAMPLE_RATE
    hertz, rate = rng.uniform(1300, 1900), rng.uniform(35, 60)
    since_pulse = (t * rate) % 1 / rate
    throat = np.sin(2 * np.pi * hertz * t) + 0.5 * np.sin(2 * np.pi * 0.5 * hertz * t)
    croaks = np.sin(2 * np.pi * rng.uniform(1.2, 2.2) * t + rng.uniform(0, 6)) > 0
    return throat * np.exp(-since_pulse * 150) * _filter(croaks.astype(np.float32), 20)


def _chorus(
    rng: _Random, singer: Callable[[int, _Random], np.ndarray], *, singers: int, seconds: float
) -> np.ndarray:
    """Individuals near and far, all starting and ending together."""
    n_samples = round(seconds * SAMPLE_RATE)
    total = sum(rng.uniform(0.3, 1) * singer(n_samples, rng) for _ in range(singers))
    return _to_peak(total * signal.windows.tukey(n_samples, 0.15))


_DAWN, _DAY, _EVENING, _NIGHT = "043000", "100000", "193000", "230000"

_SPECIES = (
    _Species("synthetic warbler", "song", _warbler_song, (_DAWN, _DAY, _EVENING)),
    _Species("synthetic trill", "song", _trill, (_DAWN, _DAY, _EVENING)),
    _Species("synthetic two-tone", "call", _two_tones, (_DAWN, _DAY, _NIGHT)),
    _Species("synthetic hoot", "call", _hoot, (_DAWN, _EVENING, _NIGHT)),
    _Species("synthetic insects", "chorus", _insect_chorus, (_DAY, _EVENING, _NIGHT)),
    _Species("synthetic frogs", "chorus", _frog_chorus, (_DAWN, _EVENING, _NIGHT)),
)

_RECORDINGS = (
    _Recording("SITE-A", "20250504", _DAWN, channels=2),
    _Recording("SITE-A", "20250504", _DAY),
    _Recording("SITE-A", "20250504", _EVENING),
    _Recording("SITE-A", "20250504", _NIGHT),
    _Recording("SITE-B", "20250504", _DAWN),
    _Recording("SITE-B", "20250504", _DAY, suffix=".flac"),
    _Recording("SITE-B", "20250504", _EVENING, channels=2),
    _Recording("SITE-B", "20250504", _NIGHT),
    _Recording("SITE-C", "20250505", _DAWN),
    _Recording("SITE-C", "20250505", _DAY),
    _Recording("SITE-C", "20250505", _EVENING, suffix=".ogg"),
    _Recording("SITE-C", "20250505", _NIGHT),
)
