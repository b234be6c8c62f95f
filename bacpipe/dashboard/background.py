"""Work that takes longer than a blink is done beside the server's loop, with a spinner."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import panel as pn
from bokeh.document import Document, without_document_lock

from bacpipe.errors import BacpipeError

logger = logging.getLogger(__name__)

SERVING = "dashboard"
"""Name of the threads that serve pages of `bacpipe.dashboard.server.Server`."""

_T = TypeVar("_T")
_PATIENCE = 300  # milliseconds before a spinner turns
_UNDELIVERED = 10_000  # milliseconds after which a result that is there should have been shown
# Milliseconds after a result was shown; on a busy machine Panel (1.9, 1.10) can keep back what is
# changed while it writes to the browser, until it has something else to write.
_FLUSHED = (500, 3_000)
# Threads are shared by all visitors, so that many of them cannot start more than there are cores.
# What has to wait for its turn, or takes long, waits among its like: whoever looks at a window, and
# above all a mark on its way to the disk, must not stand behind it.
POOL = ThreadPoolExecutor(max_workers=4, thread_name_prefix="dashboard")
"""For whatever takes a moment."""
LONG = ThreadPoolExecutor(max_workers=2, thread_name_prefix="dashboard-long")
"""For what may take a minute."""
SEARCHES = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dashboard-search")
"""For searches, of which one is made at a time."""
LESSONS = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dashboard-lesson")
"""For recognisers that are trained or applied, one at a time."""
STORING = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dashboard-storing")
"""For marks, which reach the disk in the order in which they were given."""


def page_document() -> Document | None:
    """Bokeh's document of the page that is at hand; None in a notebook or a test.

    Before 3.10, Bokeh tells a notebook of the page that a server beside it is at work on.
    """
    serving = [thread for thread in threading.enumerate() if thread.name == SERVING]
    if serving and threading.current_thread() not in serving:
        return None
    document = pn.state.curdoc
    return None if document is None or document.session_context is None else document


def sentence_of(error: Exception) -> str:
    """What to tell a visitor about an error; unexpected ones are logged with their traceback."""
    if isinstance(error, BacpipeError):
        return str(error)
    logger.error("the dashboard could not show something", exc_info=error)
    return f"This could not be shown ({type(error).__name__}: {error}); the log says more."


async def beside_the_loop(make: Callable[[], _T]) -> _T:
    """What a call returns that may take a minute, made in a thread: others need not wait."""
    return await asyncio.get_running_loop().run_in_executor(LONG, make)


class _OvertakenError(Exception):
    """Nobody waits for this result any more."""


@dataclass(eq=False)
class _Job:
    """What is computed for a page; parameters as for `Background.run`."""

    key: str
    compute: Callable[[], Any]
    show: Callable[[Any], None]
    fail: Callable[[str], None]
    busy: Any


class Background:
    """Computes for one page.

    Results that were overtaken by a later call with the same key are dropped, and not computed if
    their turn has not come yet.

    Parameters
    ----------
    on_page : panel object, optional
        Any part of the page, whose tags change after every result to make Panel write all that
        waits.
    """

    def __init__(self, on_page: Any = None) -> None:
        self._document = page_document()
        self._on_page = on_page
        self._flushes = 0
        self._jobs: dict[str, _Job] = {}  # under way: the newest of each key
        self._timers: dict[str, object] = {}

    def run(
        self,
        key: str,
        compute: Callable[[], _T],
        show: Callable[[_T], None],
        *,
        fail: Callable[[str], None],
        busy: Any = None,
        on: Executor = POOL,
    ) -> None:
        """Compute in another thread, then show the result on the page's own.

        Parameters
        ----------
        key : str
            What is computed; only the newest call of a key is computed and shown.
        compute : callable
            Does the work; touches no widgets.
        show, fail : callable
            Gets the result, or a sentence if the work raises.
        busy : panel object or Spinner, optional
            Shows a spinner once it has taken 0.3 s.
        on : Executor
            Whose threads do it: one of those above.
        """
        job, before = _Job(key, compute, show, fail, busy), self._jobs.get(key)
        self._jobs[key] = job
        if before is not None:
            self._stop_spinner(before)
        self._begin(job, on)

    def cancel(self, key: str) -> None:
        """Drop what is under way under a key: what was asked for then is answered otherwise."""
        job = self._jobs.pop(key, None)
        if job is not None:
            self._stop_spinner(job)

    def _begin(self, job: _Job, on: Executor) -> None:
        document = self._document
        if document is None:
            self._present(job, job.compute)  # a notebook or a test: nobody else waits
            return

        def session() -> Any:
            """The visitor's; None if they have gone meanwhile."""
            of_page = document.session_context
            return None if of_page is None or of_page.destroyed else of_page

        def compute() -> Any:
            # Marks and lessons are for others, too.
            if not self._is_wanted(job) or (on is SEARCHES and session() is None):
                raise _OvertakenError
            return job.compute()

        future = on.submit(compute)

        def present() -> None:
            if not self._is_wanted(job):
                return
            self._present(job, future.result)
            for delay in _FLUSHED if self._on_page is not None else ():
                document.add_timeout_callback(self._flush, delay)

        # Bokeh runs this on the loop of the page's own session, wherever the page was built.
        @without_document_lock
        async def deliver() -> None:
            with suppress(Exception):  # `present` asks again, and shows it
                await asyncio.wrap_future(future)
            if (here := session()) is not None:
                await here.with_locked_document(hand_over)

        # Without the lock, a callback that is added while another handler's changes are
        # collected can be lost.
        async def hand_over(locked: Document) -> None:
            locked.add_next_tick_callback(present)

        was_ready = False

        def look_after() -> None:
            """Say so, instead of turning for ever, when a result does not reach the page."""
            nonlocal was_ready
            if not self._is_wanted(job):
                return
            if was_ready:
                logger.error("the dashboard could not deliver %r to its page", job.key)
                if job.busy is not None:
                    job.busy.loading = False
                    job.busy = None  # from now on it turns for others only
                job.fail("This was computed, but could not be shown; reload the page.")
                return
            was_ready = future.done()
            document.add_timeout_callback(look_after, _UNDELIVERED)

        def spin() -> None:
            if self._is_wanted(job) and job.busy is not None:
                job.busy.loading = True

        document.add_next_tick_callback(deliver)
        document.add_timeout_callback(look_after, _UNDELIVERED)
        if job.busy is not None:
            document.add_timeout_callback(spin, _PATIENCE)

    def _is_wanted(self, job: _Job) -> bool:
        return self._jobs.get(job.key) is job

    def _present(self, job: _Job, result: Callable[[], Any]) -> None:
        """Show a result, on the page's own thread."""
        del self._jobs[job.key]
        self._stop_spinner(job)
        try:
            job.show(result())
        except Exception as error:  # a visitor's page must survive whatever one view meets
            job.fail(sentence_of(error))

    def _stop_spinner(self, job: _Job) -> None:
        """Stop the spinner of a job that has ended, unless it turns for another one, too."""
        others = (other.busy for other in self._jobs.values())
        if job.busy is not None and all(busy is not job.busy for busy in others):
            job.busy.loading = False

    def later(self, key: str, call: Callable[[], None], milliseconds: int) -> None:
        """Call something after a while, and once if it is asked for again meanwhile."""
        document, ticket = self._document, object()
        if document is None:
            call()
            return
        self._timers[key] = ticket

        def act() -> None:
            if self._timers.get(key) is ticket:
                call()

        document.add_timeout_callback(act, milliseconds)

    def _flush(self) -> None:
        self._flushes += 1
        self._on_page.tags = [f"flush {self._flushes}"]
