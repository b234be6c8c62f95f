"""Claims on parts of a data set: one owner at a time, whatever clocks, networks and kills do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bacpipe.errors import ResultsLockedError
from bacpipe.store import claims as claims_module
from bacpipe.store.claims import Claim, Claims, alone

LEASE = 300.0


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners live on computers of their own, so nobody is known to be dead."""
    numbers = iter(range(10**6))
    monkeypatch.setattr(claims_module, "_machine", lambda: f"node{next(numbers)}")
    # Signs of life are given by hand.
    monkeypatch.setattr(claims_module, "SIGN_OF_LIFE", 1e9)


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[list[Claim]]:
    """Claims to be released in the end."""
    found: list[Claim] = []
    yield found
    for claim in found:
        claim.release()


def watch(claims: Claims, seconds: float, *, step: float = 15.0) -> Claim | None:
    """Try to take a claim again and again while a clock runs."""
    clock = claims.clock
    assert isinstance(clock, Clock)
    end = clock.now + seconds
    while clock.now < end:
        if (claim := claims.take("shard")) is not None:
            return claim
        clock.now += step
    return claims.take("shard")


@pytest.mark.usefixtures("elsewhere")
def test_a_claim_ends_only_after_a_lease_without_a_sign_of_life(
    tmp_path: Path, taken: list[Claim]
) -> None:
    own, other = Clock(), Clock()
    owner = Claims(tmp_path, clock=own).take("shard")
    assert owner is not None
    taken.append(owner)
    watcher = Claims(tmp_path, clock=other)
    for _ in range(20):  # a living owner keeps it for ever
        assert watch(watcher, LEASE * 0.8) is None
        own.now += LEASE * 0.8
        assert owner.renew()
    owner.check()
    assert watch(watcher, LEASE * 0.9) is None
    heir = watch(watcher, LEASE * 0.3)
    assert heir is not None
    taken.append(heir)
    heir.check()
    with pytest.raises(ResultsLockedError, match="taken over shard"):
        owner.check()
    assert not owner.renew()
    owner.release()  # of one that has lost it changes nothing for its heir
    heir.check()
    assert Claims(tmp_path).take("shard") is None


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("jump", [3600.0, -3600.0, 1e9, -1e9])
def test_a_clock_that_jumps_takes_nothing_from_a_living_owner(
    tmp_path: Path, taken: list[Claim], jump: float
) -> None:
    own, other = Clock(), Clock()
    owner = Claims(tmp_path, clock=own).take("shard")
    assert owner is not None
    taken.append(owner)
    watcher = Claims(tmp_path, clock=other)
    for _ in range(5):
        assert watcher.take("shard") is None
        other.now += jump  # a computer that slept, or a clock that was set
        assert watcher.take("shard") is None
        own.now += jump
        owner.check()  # looks, since it cannot know for how long it was away
        assert watch(watcher, LEASE / 2) is None
        assert owner.renew()
    # Nor does the wall clock matter, or what a disk says of times.
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert watcher.take("shard") is None


@pytest.mark.usefixtures("elsewhere")
def test_an_owner_that_was_stopped_notices_before_it_writes(
    tmp_path: Path, taken: list[Claim]
) -> None:
    own, other = Clock(), Clock()
    owner = Claims(tmp_path, clock=own).take("shard")
    assert owner is not None
    heir = watch(Claims(tmp_path, clock=other), 2 * LEASE)
    assert heir is not None
    taken += [owner, heir]
    # Its own clock has stood still all the while.
    with pytest.raises(ResultsLockedError, match="what is done is kept"):
        owner.check()


@pytest.mark.usefixtures("elsewhere")
def test_a_disk_that_is_away_for_too_long_loses_the_claim(
    tmp_path: Path, taken: list[Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    owner = Claims(tmp_path, clock=clock).take("shard")
    assert owner is not None
    taken.append(owner)

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(claims_module, "give_name", fails)
        clock.now += LEASE / 4
        owner.check()
        clock.now += LEASE / 2
        with pytest.raises(ResultsLockedError):
            owner.check()
    owner.check()  # it is back, and nobody has come


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    for linked in (True, False):  # some disks know no links
        folder = tmp_path / str(linked)
        start, got = threading.Barrier(16), []

        def race(folder: Path = folder, start: threading.Barrier = start, got: list = got) -> None:
            claims = Claims(folder)
            start.wait()
            if (claim := claims.take("shard")) is not None:
                got.append(claim)

        with pytest.MonkeyPatch.context() as patched:
            if not linked:
                patched.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1)))
            threads = [threading.Thread(target=race) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(got) == 1
        got[0].release()
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others cannot be asked")
def test_a_process_that_was_killed_here_loses_it_at_once(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from bacpipe.store.claims import Claims\n"
        "assert Claims(Path(sys.argv[1])).take('shard'); print('taken', flush=True)\n"
        "time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    claims = Claims(tmp_path)
    assert claims.take("shard") is None
    assert claims.held().keys() == {"shard"}
    with pytest.raises(ResultsLockedError, match=f"process {process.pid} of"):
        claims.wait("shard", 0)
    with pytest.raises(ResultsLockedError, match="being worked on by process"):
        claims.require_none()
    process.kill()
    process.wait()
    process.stdout.close()
    assert not claims.held()
    claim = claims.take("shard")
    assert claim is not None
    claim.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"state": "held"}', b"\xff" * 50])
def test_a_claim_that_cannot_be_read_counts_until_its_lease_is_over(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "shard.000001").write_bytes(content)
    claim = watch(Claims(tmp_path, clock=(clock := Clock())), LEASE * 0.9)
    assert claim is None
    watcher = Claims(tmp_path, clock=clock)
    claim = watch(watcher, 2 * LEASE)
    assert claim is not None
    claim.release()
    assert json.loads((tmp_path / "shard.000002").read_bytes())["state"] == "free"


def test_a_run_over_all_recordings_and_work_on_shards_exclude_each_other(tmp_path: Path) -> None:
    embeddings = tmp_path / "embeddings"
    claims = Claims(tmp_path / "shards" / "claims")
    claim = claims.take("shard-00001")
    assert claim is not None
    with (
        pytest.raises(ResultsLockedError, match="shard-00001 is being worked on"),
        alone(embeddings, "birdnet"),
    ):
        pytest.fail("it must not begin")
    claim.release()
    with alone(embeddings, "birdnet"), alone(embeddings, "beats"):
        assert claims.held().keys() == {"run-birdnet", "run-beats"}
    assert not claims.held()


def test_a_claim_is_kept_by_signs_of_life(tmp_path: Path) -> None:
    claims = Claims(tmp_path, lease=0.5)
    claim = claims.take("shard")
    assert claim is not None
    first = (tmp_path / "shard.000001").read_bytes()
    until = time.monotonic() + 10
    while (tmp_path / "shard.000001").read_bytes() == first:
        assert time.monotonic() < until
        time.sleep(0.01)
    claim.release()
    assert claims.take("shard").release() is None  # type: ignore[union-attr]
