"""Small spectrograms in the browser: each plays in place, can be chosen and looked at from near."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import panel as pn
import param
from matplotlib import colormaps
from PIL import Image

from bacpipe.dashboard.shared.clips import Clip, spectrogram

_WIDTH, _HEIGHT = 220, 110  # pixels of a picture
_RANGE = 24.0  # dB above the noise of a band that are told apart
_HIGHEST_HEARD = 24_000.0  # Hz

_SCRIPT = """
const PLAY = "▶", STOP = "■"

export function render({model, el}) {
  const list = document.createElement("ul")
  list.className = "bp-tiles"
  const audio = new Audio()
  const sounds = new Map()
  let tiles = [], playing = -1, wanted = -1, last = 0

  const stop = () => {
    audio.pause()
    if (tiles[playing]) tiles[playing].play.textContent = PLAY
    tiles[playing]?.item.classList.remove("playing")
    playing = wanted = -1
  }
  const sound = (i, url) => {
    stop()
    playing = i
    tiles[i].play.textContent = STOP
    tiles[i].item.classList.add("playing")
    audio.src = url
    audio.play().catch(() => stop())
  }
  const play = (i) => {
    if (playing === i) { stop(); return }
    if (sounds.has(i)) { sound(i, sounds.get(i)); return }
    stop()
    wanted = i
    model.send_msg({play: i, round: model.round})
  }
  audio.addEventListener("ended", stop)
  audio.addEventListener("timeupdate", () => {
    const cursor = tiles[playing]?.cursor
    if (cursor && audio.duration) cursor.style.left = `${100 * audio.currentTime / audio.duration}%`
  })
  const select = (i, on, range) => {
    const chosen = new Set(model.selected)
    const [from, to] = range ? [Math.min(i, last), Math.max(i, last)] : [i, i]
    for (let j = from; j <= to; j++) if (on) chosen.add(j); else chosen.delete(j)
    last = i
    model.selected = [...chosen].sort((a, b) => a - b)
  }
  const button = (text, label, action) => {
    const made = document.createElement("button")
    made.type = "button"
    made.textContent = text
    made.setAttribute("aria-label", label)
    made.title = label
    made.addEventListener("click", action)
    return made
  }
  // What is shown about recordings and labels is text, never markup.
  const text = (kind, content) => {
    const made = document.createElement("span")
    made.className = kind
    made.textContent = content
    return made
  }
  const draw = () => {
    stop()
    sounds.clear()
    last = 0
    tiles = model.items.map((about, i) => {
      const item = document.createElement("li")
      const picture = document.createElement("button")
      picture.type = "button"
      picture.className = "picture"
      picture.setAttribute("aria-label", `play ${about.title}`)
      picture.title = about.title
      picture.addEventListener("click", () => play(i))
      const image = document.createElement("img")
      image.alt = ""
      const cursor = text("cursor", "")
      picture.append(image, cursor)
      const label = document.createElement("label")
      const box = document.createElement("input")
      box.type = "checkbox"
      box.addEventListener("click", (event) => select(i, box.checked, event.shiftKey))
      label.append(box, text("caption", about.caption))
      const playing = button(PLAY, `play ${about.title}`, () => play(i))
      const near = button("⤢", `show ${about.title} from near`, () => {
        model.send_msg({near: i, round: model.round})
      })
      playing.tabIndex = -1  // the picture does the same
      const tools = document.createElement("div")
      tools.className = "tools"
      tools.append(playing, near)
      const below = document.createElement("span")
      below.className = "below"
      // Of a long name the end tells recordings apart.
      const name = text("name", "")
      name.append(Object.assign(document.createElement("bdi"), {textContent: about.name}))
      below.append(text("at", about.at), name)
      const mark = text("mark", "")
      item.append(picture, tools, label, below, mark)
      return {item, box, image, mark, cursor, play: playing}
    })
    list.replaceChildren(...tiles.map((tile) => tile.item))
    show_pictures()
    show_marks()
    show_selected()
  }
  const show_pictures = () => {
    tiles.forEach((tile, i) => {
      const url = model.pictures[i]
      if (!url) tile.image.removeAttribute("src")
      else if (tile.image.src !== url) tile.image.src = url
      tile.item.classList.toggle("broken", url === "")
    })
  }
  const show_marks = () => tiles.forEach((tile, i) => {
    tile.mark.textContent = model.marks[i] ?? ""
  })
  const show_selected = () => {
    const chosen = new Set(model.selected)
    tiles.forEach((tile, i) => {
      tile.box.checked = chosen.has(i)
      tile.item.classList.toggle("chosen", chosen.has(i))
    })
  }
  // Changes arrive one after the other, in any order.
  model.on("items", draw)
  model.on("round", draw)
  model.on("pictures", show_pictures)
  model.on("marks", show_marks)
  model.on("selected", show_selected)
  model.on("msg:custom", (message) => {
    if (message.round !== model.round) return
    if (message.failed) { wanted = -1; return }
    sounds.set(message.play, message.url)
    if (wanted === message.play) sound(message.play, message.url)
  })
  model.on("remove", stop)
  draw()
  return list
}
"""

_STYLE = """
:host { width: 100%; }
.bp-tiles {
  width: 100%; box-sizing: border-box; list-style: none; margin: 0; padding: 2px;
  display: grid; gap: 10px;
  grid-template-columns: repeat(auto-fill, minmax(168px, 1fr));
}
.bp-tiles li {
  border: 1px solid #c4ccd4; border-radius: 6px; padding: 4px; min-width: 0;
  font-size: 12px; color: inherit; position: relative;
}
.bp-tiles li.chosen { border-color: #0072B2; box-shadow: 0 0 0 2px #0072B2; }
.bp-tiles li.playing { border-color: #D55E00; }
.picture {
  display: block; width: 100%; padding: 0; border: 0; background: #222; cursor: pointer;
  position: relative; overflow: hidden; aspect-ratio: 2 / 1;
}
.picture img { width: 100%; height: 100%; display: block; }
.picture img:not([src]) { visibility: hidden; }
.cursor {
  position: absolute; top: 0; bottom: 0; left: 0; width: 2px; background: #fff; display: none;
}
.playing .cursor { display: block; }
.tools { position: absolute; top: 7px; right: 7px; display: flex; gap: 4px; }
.tools button {
  border: 1px solid #7b8794; background: rgba(255, 255, 255, 0.88); color: #212529;
  border-radius: 4px; min-width: 26px; height: 24px; padding: 0; cursor: pointer;
}
label { display: flex; gap: 5px; align-items: center; cursor: pointer; margin: 4px 0 2px; }
label input { width: 18px; height: 18px; margin: 0; flex: none; }
.caption, .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.caption { font-weight: 600; }
.below { display: flex; gap: 6px; }
.at { flex: none; }
.name { direction: rtl; text-align: left; }
.mark { font-weight: 600; display: block; min-height: 15px; overflow-wrap: anywhere; }
.broken .picture { background: repeating-linear-gradient(45deg, #555 0 8px, #777 8px 16px); }
button:focus-visible, input:focus-visible { outline: 3px solid #E69F00; outline-offset: 1px; }
"""


class Tiles(pn.custom.JSComponent):
    """A grid of windows.

    Attributes
    ----------
    items : list of dict
        For each: caption, name and at (what is written under it) and title (recording and seconds).
    pictures : list of str
        Their pictures as data URLs; None for one that is being made, '' for one that cannot be.
    marks : list of str
        What is said of each.
    selected : list of int
        Which ones the visitor has chosen.
    round : int
        Changes when other windows are shown.
    """

    items = param.List(default=[])
    pictures = param.List(default=[])
    marks = param.List(default=[])
    selected = param.List(default=[])
    round = param.Integer(default=0)

    _esm = _SCRIPT
    _stylesheets: ClassVar[list[str]] = [_STYLE]

    def __init__(
        self,
        on_play: Callable[[int], None],
        on_near: Callable[[int], None],
        **values: Any,
    ) -> None:
        super().__init__(**values)
        self._on_play, self._on_near = on_play, on_near

    def show(self, items: Sequence[Mapping[str, str]]) -> None:
        """Show other windows, without pictures yet."""
        self.param.update(
            items=[dict(item) for item in items],
            pictures=[None] * len(items),
            marks=[""] * len(items),
            selected=[],
            round=self.round + 1,
        )

    @property
    def chosen(self) -> list[int]:
        """Which are chosen; whatever a browser sends that is none of them is left out."""
        return sorted({i for i in self.selected if type(i) is int and 0 <= i < len(self.items)})

    def sound(self, place: int, wav: bytes, of_round: int) -> None:
        """Hand the sound of a window over that the browser has asked for in a round."""
        url = f"data:audio/wav;base64,{base64.b64encode(wav).decode()}"
        self._send_msg({"play": place, "url": url, "round": of_round})

    def no_sound(self, of_round: int) -> None:
        """Say that a window of a round cannot be played."""
        self._send_msg({"failed": True, "round": of_round})

    def _handle_msg(self, data: Any) -> None:
        if not isinstance(data, dict) or data.get("round") != self.round:
            return  # of windows that are not shown any more
        for key, act in (("play", self._on_play), ("near", self._on_near)):
            place = data.get(key)
            if type(place) is int and 0 <= place < len(self.items):
                act(place)


def tile_picture(clip: Clip, colour_scale: str) -> str:
    """Small spectrogram of a clip, as the URL of a picture.

    So that calls stand out at this size, every band is shown above its own noise, which is its
    median; frequencies are on the mel scale, or linear where ultrasound was recorded.
    """
    levels, top = spectrogram(clip)
    bands = _pooled(levels, _band_edges(len(levels), top), axis=0)
    times = np.linspace(0, bands.shape[1], _WIDTH, endpoint=False).astype(np.int64)
    small = _pooled(bands, np.unique(times), axis=1)
    above = small - np.median(small, axis=1, keepdims=True)
    shades = np.clip(above[::-1] / _RANGE, 0, 1)  # high frequencies on top
    pixels = colormaps[colour_scale](shades, bytes=True)[..., :3]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _band_edges(rows: int, top: float) -> np.ndarray:
    """First row of a spectrogram in each band of a picture, ascending."""
    if top > _HIGHEST_HEARD:
        frequencies = np.linspace(0, top, _HEIGHT, endpoint=False)
    else:  # O'Shaughnessy's formula
        mel = np.linspace(0, 2595 * np.log10(1 + top / 700), _HEIGHT, endpoint=False)
        frequencies = 700 * (10 ** (mel / 2595) - 1)
    return np.unique((frequencies / top * rows).astype(np.int64).clip(0, rows - 1))


def _pooled(levels: np.ndarray, firsts: np.ndarray, axis: int) -> np.ndarray:
    """Mean of neighbouring rows or columns, which begin at `firsts`."""
    counts = np.diff(np.append(firsts, levels.shape[axis]))
    sums = np.add.reduceat(levels, firsts, axis=axis)
    pooled: np.ndarray = sums / (counts[:, None] if axis == 0 else counts)
    return pooled
