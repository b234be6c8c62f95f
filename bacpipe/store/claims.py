"""Who works on which part of a data set, on a disk that many computers share.

A claim is a file that only one can create: ``<what>.<generation>``.  The highest generation holds
it.  Its owner writes a new number into it every half minute; whoever wants it watches that number
by a clock of its own, and when it has not changed for five minutes, creates the next generation,
which again only one can.  Nothing is ever deleted or taken out of another's hands, times of the
disk and of other computers do not matter, and neither locks nor the order in which a network
delivers are relied on.

An owner that was stopped for long (a sleeping computer, a network that was away) looks for a later
generation before every file that it puts into place, and ends if there is one.  A process that was
killed on this computer loses its claim at once.

Failure policy: a claim that cannot be renewed in time counts as lost.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from bacpipe.errors import ResultsLockedError, StorageError
from bacpipe.store.files import give_name, temporary_name, writing
from bacpipe.store.layout import CLAIMS, SHARDS
from bacpipe.store.lock import LEASE_SECONDS, exclusive, is_running, user_name

logger = logging.getLogger(__name__)

SIGN_OF_LIFE = 30.0
"""Seconds from one sign of life to the next."""

_FILE = re.compile(r"(?P<what>.+)\.(?P<generation>\d{6})")
_HELD, _FREE = "held", "free"
_POLL = 0.2  # seconds


def uptime() -> float:
    """Seconds by a clock that nobody sets, and that goes on while the computer sleeps."""
    if sys.platform == "win32":
        return time.monotonic()
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Holder(NamedTuple):
    """What a claim says.

    Attributes
    ----------
    state : str
        'held' or 'free'.
    machine : str
        Computer, its present run, and the container on it.
    process : int
        Of the owner.
    who : str
        The owner in words.
    beat : int
        Changes as long as the owner lives.
    """

    state: str
    machine: str
    process: int
    who: str
    beat: int

    @property
    def is_dead(self) -> bool:
        """Whether it is known that the owner lives no more, because it lived here."""
        return self.machine == _machine() and not is_running(self.process)


@dataclass
class _Watched:
    """A claim that somebody waits for: when it was looked at last, and for how long it is still.

    `changed` is when it was found to be another than before; None if it never was.
    """

    content: bytes
    looked: float
    still: float = 0.0
    changed: float | None = None


class Claims:
    """Claims in a folder.

    Parameters
    ----------
    folder : Path
        Where they are.
    lease : float
        Seconds without a sign of life after which another may take a claim.
    clock : callable
        Seconds since any moment.
    """

    def __init__(
        self, folder: Path, *, lease: float = LEASE_SECONDS, clock: Callable[[], float] = uptime
    ) -> None:
        self.folder, self.lease, self.clock = folder, lease, clock
        self._watched: dict[Path, _Watched] = {}

    def take(self, what: str, generations: Mapping[str, int] | None = None) -> Claim | None:
        """Take a claim; None if another holds it, for all that is known so far.

        Parameters
        ----------
        what : str
            What it is on.
        generations : mapping, optional
            What `generations` returned, of whoever tries many.

        Raises
        ------
        StorageError
            If nothing can be written to the folder.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        generation = (self.generations() if generations is None else generations).get(what, 0)
        if generation and not self._is_over(self._path(what, generation)):
            return None
        path = self._path(what, generation + 1)
        who = _in_words()
        with writing(path):
            return Claim(self, path, what, who) if _create(path, _content(_HELD, who, 0)) else None

    def wait(self, what: str, seconds: float) -> Claim:
        """Take a claim as soon as possible.

        Raises
        ------
        ResultsLockedError
            If another holds it for longer.
        """
        until = self.clock() + seconds
        while (claim := self.take(what)) is None:
            if self.clock() >= until:
                holder = self.holder(what)
                who = "another process" if holder is None else holder.who
                raise ResultsLockedError(
                    f"{self.folder}: {what} is held by {who}; wait until it is done, then run the "
                    f"same command again."
                )
            time.sleep(min(_POLL, self.lease / 10))
        return claim

    def generations(self) -> dict[str, int]:
        """Latest generation of every claim."""
        latest: dict[str, int] = {}
        with writing(self.folder), suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if match := _FILE.fullmatch(entry.name):
                    number = int(match["generation"])
                    latest[match["what"]] = max(latest.get(match["what"], 0), number)
        return latest

    def holder(self, what: str, generations: Mapping[str, int] | None = None) -> Holder | None:
        """Who holds a claim, dead or alive; None if nobody does.  Parameters as for `take`."""
        generation = (self.generations() if generations is None else generations).get(what, 0)
        holder = _read(self._path(what, generation))[1] if generation else None
        return None if holder is None or holder.state == _FREE else holder

    def held(self) -> dict[str, Holder]:
        """All claims that are held by somebody of whom it is not known that he is dead."""
        holders = {}
        for what, generation in self.generations().items():
            holder = _read(self._path(what, generation))[1]
            if holder is not None and holder.state == _HELD and not holder.is_dead:
                holders[what] = holder
        return holders

    def is_alive(self, what: str, since: float) -> bool | None:
        """Whether a claim has changed since a moment of the clock; None as long as it is open.

        False when it may be taken.
        """
        generation = self.generations().get(what, 0)
        if not generation or self._is_over(path := self._path(what, generation)):
            return False
        changed = self._watched[path].changed
        return True if changed is not None and changed >= since else None

    @contextmanager
    def holding(self, what: str, *, seconds: float = 0) -> Iterator[Claim]:
        """Hold a claim for the length of the block; see `wait`."""
        claim = self.wait(what, seconds)
        try:
            yield claim
        finally:
            claim.release()

    def require_none(self, *, but: Container[str] = ()) -> None:
        """Make sure that nobody works on a part of the data set.

        Parameters
        ----------
        but : container of str
            Claims that do not matter.

        Raises
        ------
        ResultsLockedError
            Naming somebody who does.
        """
        told, since = False, self.clock()
        while held := {what: holder for what, holder in self.held().items() if what not in but}:
            for what, holder in held.items():
                alive = holder.machine == _machine() or self.is_alive(what, since)
                if alive:
                    raise ResultsLockedError(
                        f"{self.folder}: {what} is being worked on by {holder.who}; wait until "
                        f"bacpipe shards status shows no more of them, or work on another shard."
                    )
                if alive is False:
                    claim = self.take(what)  # of a dead one, so that nobody waits for it again
                    if claim is not None:
                        claim.release()
            if not told:
                what, holder = next(iter(held.items()))
                logger.info(
                    "%s was claimed by %s; waiting for a sign of life, for up to %.0f minutes.",
                    what,
                    holder.who,
                    self.lease / 60,
                )
                told = True
            time.sleep(min(_POLL, self.lease / 10))

    def _path(self, what: str, generation: int) -> Path:
        return self.folder / f"{what}.{generation:06d}"

    def _is_over(self, path: Path) -> bool:
        """Whether a claim may be taken."""
        content, holder = _read(path)
        if holder is not None and (holder.state == _FREE or holder.is_dead):
            return True
        now, watched = self.clock(), self._watched.get(path)
        if watched is None or watched.content != content:
            self._watched[path] = _Watched(content, now, changed=None if watched is None else now)
            return False
        # One look counts for little, whatever a clock says that jumps or a computer that slept.
        watched.still += min(max(now - watched.looked, 0.0), self.lease / 10)
        watched.looked = now
        return watched.still >= self.lease


class Claim:
    """A claim that this process holds, until it is released or lost.

    Attributes
    ----------
    what : str
        What it is on.
    who : str
        This process, in words.
    """

    def __init__(self, claims: Claims, path: Path, what: str, who: str) -> None:
        self.what, self.who = what, who
        self._claims, self._path = claims, path
        generation = int(path.name.rpartition(".")[2])
        self._next = path.with_name(f"{what}.{generation + 1:06d}")
        self._beat = 0
        self._renewed = claims.clock()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="bacpipe-claim", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that nobody else has taken it over.

        Raises
        ------
        ResultsLockedError
            If somebody has, or may have.
        """
        if not self._next.exists():
            if abs(self._claims.clock() - self._renewed) < self._claims.lease / 2:
                return
            with suppress(OSError):
                if self.renew():
                    return
        raise ResultsLockedError(
            f"{self._path}: another process may have taken over {self.what}, because this one "
            f"could not give a sign of life for too long (was the computer asleep, or the disk "
            f"away?); what is done is kept. Run the same command again."
        )

    def renew(self) -> bool:
        """Give a sign of life; whether the claim is still ours."""
        with self._lock:
            now = self._claims.clock()
            if self._claims.generations().get(self.what, 0) != int(self._path.suffix[1:]):
                return False
            self._beat += 1
            self._write(_content(_HELD, self.who, self._beat))
            self._renewed = now
            return True

    def release(self) -> None:
        """Give it up."""
        self._ended.set()
        try:
            self._thread.join()
        finally:
            with suppress(OSError), self._lock:  # else it ends by itself
                self._write(_content(_FREE, self.who, self._beat))

    def _write(self, content: bytes) -> None:
        # No flush: a sign of life that a power cut takes with it has served its purpose.
        temporary = temporary_name(self._path)
        try:
            temporary.write_bytes(content)
            give_name(temporary, self._path)
        finally:
            temporary.unlink(missing_ok=True)

    def _keep(self) -> None:
        while not self._ended.wait(min(SIGN_OF_LIFE, self._claims.lease / 10)):
            with suppress(OSError):  # a disk that is away for a while
                if not self.renew():
                    return


@contextmanager
def alone(embeddings: Path, model: str, *, wait: float = 0) -> Iterator[None]:
    """Write to a model's results, while nobody else does, be it on a part of them.

    Parameters
    ----------
    embeddings : Path
        Folder of the sets of embeddings of a data set.
    model : str
        Name of the model.
    wait : float
        Seconds to wait for another run.

    Raises
    ------
    ResultsLockedError
        Naming who writes there.
    """
    claims, what = Claims(embeddings.parent / SHARDS / CLAIMS), whole(model)
    with exclusive(embeddings, model, wait=wait):
        if not claims.folder.is_dir():  # shards are planned only while nobody runs this
            yield
            return
        with claims.holding(what):
            claims.require_none(but={other for other in claims.held() if is_whole(other)})
            yield


def whole(model: str) -> str:
    """What a run over all recordings claims."""
    return f"run-{model}"


def is_whole(what: str) -> bool:
    """Whether a claim is that of a run over all recordings."""
    return what.startswith("run-")


def create_once(path: Path, text: str) -> bool:
    """Write a file that nobody has written before; whether it was us.

    Raises
    ------
    StorageError
        If the disk does not take it.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return _create(path, text.encode())


def _create(path: Path, content: bytes) -> bool:
    """Create a file with its content, which only one can do, also on disks of a network."""
    temporary = temporary_name(path)
    try:
        temporary.write_bytes(content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            # The answer of a server may get lost, and the question be asked twice.
            return temporary.stat().st_nlink == 2
        except OSError:
            return _create_plainly(path, content)  # a disk without links
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _create_plainly(path: Path, content: bytes) -> bool:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(file, content)
    finally:
        os.close(file)
    return True


def _content(state: str, who: str, beat: int) -> bytes:
    holder = Holder(state, _machine(), os.getpid(), who, beat)
    # The nonce tells the beats of two owners apart, should their numbers be the same.
    return json.dumps({**holder._asdict(), "nonce": secrets.token_hex(8)}).encode()


def _read(path: Path) -> tuple[bytes, Holder | None]:
    """What a claim says, as it is and understood; one that is unreadable is held by somebody."""
    unknown = Holder(_HELD, "", -1, "another process", -1)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b"", None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror or error}).") from None
    try:
        words = json.loads(content)
        return content, Holder(
            str(words["state"]), str(words["machine"]), int(words["process"]), str(words["who"]),
            int(words["beat"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError):
        return content, unknown


def _machine() -> str:
    """The computer, since it was switched on, and the container that we are in."""
    parts = [platform.node()]
    with suppress(OSError):  # Linux alone tells
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
        return "/".join(parts)
    return f"{parts[0]}/{os.getpid()}"  # elsewhere, nobody is known to be dead


def _in_words() -> str:
    job = os.environ.get("SLURM_JOB_ID")
    where = f"{platform.node()}{f' (Slurm job {job})' if job else ''}"
    now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
    return f"process {os.getpid()} of {user_name()} on {where} since {now}"
