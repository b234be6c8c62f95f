"""The desk: spectrogram, sound, keys and marks of the clip that is heard, in the browser."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from panel.custom import JSComponent

from bacpipe.dashboard.background import Background
from bacpipe.dashboard.review.clip_card import clip_card
from bacpipe.dashboard.review.journal import Journal, Written
from bacpipe.dashboard.review.queue import Queue
from bacpipe.dashboard.shared.spectrogram_figure import SpectrogramSettings
from bacpipe.dashboard.style import QUIET, scale_colours
from bacpipe.store.judgements import NO, UNDO, UNSURE, YES

logger = logging.getLogger(__name__)

AHEAD = 6  # clips that the browser has before their turn
_LONGEST = 200  # letters of a label

_STYLE = """
:host { display: block; }
.desk { color: var(--panel-on-background-color); padding: 4px 10px; outline: none;
  border: 2px solid transparent;
  border-radius: 6px; }
.desk:focus { border-color: #0072B2; }
.head { display: flex; align-items: baseline; gap: 12px; }
.title { font-size: 18px; margin: 0; overflow-wrap: anywhere; flex: 1; }
.progress, .where, .given { font-size: 13px; color: QUIET; }
.where { overflow-wrap: anywhere; min-height: 18px; }
.given { display: block; min-height: 18px; font-weight: 600;
  color: var(--panel-on-background-color); }
.screen { position: relative; overflow: hidden; }
.screen { --high: max(320px, calc(100vh - 480px)); }
.picture { width: 100%; height: var(--high); display: block; }
.cursor { position: absolute; left: 0; top: 4px; width: 2px; height: calc(var(--high) - 38px);
  background: #ffffff;
  will-change: transform; visibility: hidden; }
.done .picture { opacity: 0.3; }
.bar, .labels { display: flex; flex-wrap: wrap; gap: 6px; margin: 6px 0; }
button { font: inherit; font-size: 14px; padding: 5px 10px; border: 1px solid #7b8794;
  border-radius: 5px; background: var(--panel-background-color);
  color: var(--panel-on-background-color); cursor: pointer; display: flex;
  gap: 8px; align-items: center; max-width: 300px; }
button span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
button:focus-visible { outline: 3px solid #0072B2; outline-offset: 1px; }
button:disabled { color: QUIET; border-style: dashed; cursor: default; }
button[aria-pressed="true"] { background: #0b4f6c; color: #ffffff; border-color: #0b4f6c; }
kbd { font: 11px monospace; border: 1px solid currentColor; border-radius: 3px; padding: 0 4px; }
.status { font-size: 13px; color: QUIET; margin: 4px 0; min-height: 18px; }
.alert { font-size: 13px;
  color: color-mix(in srgb, #d62800 60%, var(--panel-on-background-color));
  font-weight: 600; margin: 4px 0;
  overflow-wrap: anywhere; }
.alert:empty { display: none; }
""".replace("QUIET", QUIET)


class ReviewSheet(JSComponent):
    """What the browser runs; messages go to and fro."""

    _esm: ClassVar[str] = Path(__file__).with_name("desk.js").read_text(encoding="utf-8")
    _stylesheets: ClassVar[list[str]] = [_STYLE]

    def __init__(self, on_message: Callable[[dict[str, Any]], None], **values: Any) -> None:
        super().__init__(**values)
        self._on_message = on_message

    def _handle_msg(self, data: Any) -> None:
        if isinstance(data, dict):
            self._on_message(data)

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message to the browser."""
        self._send_msg(message)


class Desk:
    """Shows the clips of a queue one after the other, and stores the marks.

    Parameters
    ----------
    background : Background
        The page's worker.
    colour_scale : str
        Of the spectrogram, a name of matplotlib's.
    settings : SpectrogramSettings
        How the visitor wants spectrograms to look.
    why_not : callable
        Tells why this visitor may not mark; empty if they may.
    annotator : callable
        Tells under which name marks are kept.
    on_stored : callable
        Called when marks have reached the disk.
    on_ready : callable
        Called when the browser has laid out the desk.

    Attributes
    ----------
    panel : panel object
    """

    def __init__(
        self,
        background: Background,
        *,
        colour_scale: str,
        settings: SpectrogramSettings,
        why_not: Callable[[], str],
        annotator: Callable[[], str],
        on_stored: Callable[[], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._background, self._why_not, self._annotator = background, why_not, annotator
        self._on_stored, self._on_ready = on_stored, on_ready
        self._usual_scale, self._settings = colour_scale, settings
        self._journal = Journal(background, self._tell_written)
        self._queue: Queue | None = None
        self._empty = ""
        self._ticket = self._look = 0  # numbers of the queue, and of the seconds around its clips
        self._annotators: dict[int, str] = {}  # of the marks of this queue, by their number
        self._labels: tuple[str, ...] = ()
        self._around = 0.0
        self.panel = ReviewSheet(self._receive, sizing_mode="stretch_width", min_height=480)

    def show(self, queue: Queue | None, *, empty: str = "") -> None:
        """Begin a queue; `empty` is what an empty one says."""
        self._queue, self._empty = queue, empty
        self._begin()

    def set_labels(self, labels: Sequence[str]) -> None:
        """Put labels on the number keys."""
        self._labels = tuple(labels)
        self.update()

    def set_around(self, seconds: float) -> None:
        """Show and play some seconds around each clip."""
        self._around = seconds
        self._look += 1  # of cards that are on their way, the browser wants none any more
        self.panel.tell({"type": "around", "ticket": self._ticket})

    def update(self) -> None:
        """Tell the browser about labels and whether this visitor may mark."""
        self.panel.tell(self._about())

    def _begin(self) -> None:
        self._ticket += 1
        self._annotators = {}
        self.update()

    def _about(self) -> dict[str, Any]:
        queue, why = self._queue, self._why_not()
        return {
            "type": "queue",
            "ticket": self._ticket,
            "count": 0 if queue is None else len(queue.rows),
            "label": "" if queue is None else queue.label,
            "title": "" if queue is None else queue.title,
            "empty": self._empty,
            "labels": list(self._labels),
            "annotator": self._annotator(),
            "editable": not why,
            "why": why,
            "ahead": AHEAD,
            "palette": scale_colours(self._settings.colours or self._usual_scale),
        }

    # ------------------------------------------------------------------ what the browser says

    def _receive(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "ready":
            self.update()
            self._on_ready()
        elif message.get("ticket") != self._ticket or self._queue is None:
            return  # about a queue that was left
        elif kind == "want":
            wanted = message.get("indices")
            for index in wanted[: 2 * AHEAD] if isinstance(wanted, list) else ():
                if self._has(index):
                    self._send_clip(self._queue, index)
        elif kind in ("mark", "undo"):
            self._mark(self._queue, message, UNDO if kind == "undo" else message.get("value"))

    def _has(self, index: object) -> bool:
        return (
            isinstance(index, int)
            and self._queue is not None
            and (0 <= index < len(self._queue.rows))
        )

    def _send_clip(self, queue: Queue, index: int) -> None:
        ticket, look, around = self._ticket, self._look, self._around

        def send(card: dict[str, Any]) -> None:
            if look != self._look:
                return
            self.panel.tell({"type": "clip", "ticket": ticket, "card": card})

        name = queue.results.recording_of(int(queue.rows[index]))
        self._background.run(
            f"clip-{id(self)}-{ticket}-{index}",
            lambda: clip_card(queue, index, around, self._settings),
            send,
            fail=lambda sentence: send({"index": index, "name": name, "problem": sentence}),
        )

    def _mark(self, queue: Queue, message: dict[str, Any], value: object) -> None:
        number, index, label = (message.get(key) for key in ("number", "index", "label"))
        if not (
            isinstance(number, int)
            and isinstance(index, int)
            and self._has(index)
            and isinstance(label, str)
            and label.strip()
            and value in (YES, NO, UNSURE, UNDO)
        ):
            logger.info("ignored what a page sent as a mark: %.200r", message)
            return
        if why := self._why_not():
            self._tell_written([Written(number, why)])
            return
        annotator = self._annotator()
        if value == UNDO:
            # Who has given their name meanwhile takes back what was marked under the other one.
            undone = message.get("undone")
            annotator = self._annotators.get(undone, "") if isinstance(undone, int) else ""
            if not annotator:
                logger.info("ignored what a page sent as an undo: %.200r", message)
                return
        else:
            self._annotators[number] = annotator
        row = queue.judgement(index, label[:_LONGEST], str(value), annotator)
        self._journal.store(number, queue.results, [row])

    def _tell_written(self, outcomes: list[Written]) -> None:
        if outcomes:
            told = [outcome._asdict() for outcome in outcomes]
            self.panel.tell({"type": "written", "outcomes": told})
        if any(not outcome.problem for outcome in outcomes):
            self._on_stored()
