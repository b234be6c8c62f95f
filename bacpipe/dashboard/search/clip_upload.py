"""A clip that a visitor hands over: bounded in bytes, and decoded like any recording."""

from __future__ import annotations

import base64
import binascii
import html
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import panel as pn
import param

from bacpipe.audio.files import read_recording
from bacpipe.errors import AudioError, BacpipeError, SettingsError

MOST_BYTES = 10 * 2**20
MOST_SECONDS = 60.0

_SCRIPT = """
export function render({model, el}) {
  const label = document.createElement("label")
  label.textContent = model.title
  const input = document.createElement("input")
  input.type = "file"
  input.accept = model.accepted
  const said = document.createElement("div")
  said.setAttribute("role", "status")
  label.append(input)
  input.addEventListener("change", () => {
    const file = input.files[0]
    if (!file) return
    if (file.size > model.most_bytes) {
      said.textContent = `${file.name} is too large: at most ${model.most_bytes >> 20} MB.`
      return
    }
    said.textContent = `${file.name} is being sent …`
    const reader = new FileReader()
    reader.addEventListener("error", () => said.textContent = `${file.name} cannot be read.`)
    reader.addEventListener("load", () => {
      said.textContent = file.name
      model.send_msg({name: file.name, content: reader.result.split(",")[1] ?? ""})
    })
    reader.readAsDataURL(file)
  })
  const all = document.createElement("div")
  all.append(label, said)
  return all
}
"""

_STYLE = """
label { display: flex; flex-direction: column; gap: 4px; font-size: 13px; }
input { max-width: 100%; font-size: 13px; }
input:focus-visible { outline: 3px solid #E69F00; outline-offset: 1px; }
div[role=status] { font-size: 12px; overflow-wrap: anywhere; margin-top: 2px; min-height: 16px; }
"""


class Clip(NamedTuple):
    """Content of a file that was handed over.

    Attributes
    ----------
    name : str
        As the visitor calls it; only ever shown, never used as a path.
    suffix : str
        Of a kind of recordings that is known, such as ``.wav``.
    content : bytes
    """

    name: str
    suffix: str
    content: bytes

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Path of a passing file with its content, under a name that is ours.

        Raises
        ------
        AudioError
            If it is no recording, or longer than `MOST_SECONDS`.
        """
        with tempfile.TemporaryDirectory(prefix="bacpipe_clip_") as folder:
            path = Path(folder, f"clip{self.suffix}")
            path.write_bytes(self.content)
            try:
                duration = read_recording(path).duration
                if duration > MOST_SECONDS:
                    raise AudioError(
                        f"{path}: is {duration:.0f} s long; expected at most {MOST_SECONDS:.0f} s, "
                        f"so cut the sound out of it."
                    )
                yield path
            except BacpipeError as error:
                # Of a file that nobody knows by this path.
                raise type(error)(str(error).replace(str(path), self.name)) from None


class ClipUpload(pn.custom.JSComponent):
    """A field to choose a file; `on_clip` gets it, `on_problem` a sentence on why it is none.

    Parameters
    ----------
    suffixes : sequence of str
        Of the recordings that are taken.
    """

    title = param.String(default="Clip (at most 10 MB, 60 s)")
    accepted = param.String(default="")
    most_bytes = param.Integer(default=MOST_BYTES)

    _esm = _SCRIPT
    _stylesheets: ClassVar[list[str]] = [_STYLE]

    def __init__(
        self,
        suffixes: Sequence[str],
        on_clip: Callable[[Clip], None],
        on_problem: Callable[[str], None],
        **values: Any,
    ) -> None:
        self._suffixes = tuple(suffix.lower() for suffix in suffixes)
        super().__init__(accepted=",".join(self._suffixes), **values)
        self._on_clip, self._on_problem = on_clip, on_problem

    def _handle_msg(self, data: Any) -> None:
        try:
            clip = self._clip(data)
        except SettingsError as error:
            self._on_problem(str(error))
            return
        self._on_clip(clip)

    def _clip(self, data: Any) -> Clip:
        """What a browser has sent, if it is possible."""
        if not isinstance(data, dict):
            raise SettingsError("This is no clip.")
        name, text = data.get("name"), data.get("content")
        if not isinstance(name, str) or not isinstance(text, str):
            raise SettingsError("This is no clip.")
        name = PurePosixPath(name.replace("\\", "/")).name[:200] or "clip"
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in self._suffixes:
            raise SettingsError(
                f"{name}: expected a recording with one of the suffixes "
                f"{', '.join(self._suffixes)}."
            )
        if len(text) > 4 * (MOST_BYTES // 3 + 1):
            raise SettingsError(f"{name}: is too large; expected at most {MOST_BYTES >> 20} MB.")
        try:
            content = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise SettingsError(f"{name}: arrived damaged; send it again.") from None
        return Clip(name, suffix, content)


def shown(clip: Clip | None) -> str:
    """What is said of a clip, as HTML."""
    return "" if clip is None else f"Searched with <b>{html.escape(clip.name)}</b>."
