"""What people type: YAML of any kind, paths, time zones, and words of the command line."""

from __future__ import annotations

import difflib
import operator
import os
import re
import stat
import sys
import zoneinfo
from datetime import UTC, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, SupportsIndex
from urllib.parse import urlsplit

import yaml

from bacpipe.errors import SettingsError

# libyaml's loader is ten times faster, but not in every build of PyYAML.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 64  # levels; our own files have four


def load_yaml(text: str) -> Any:  # noqa: ANN401 - a YAML document holds anything
    """Content of a YAML document: plain values, never objects of other types.

    Raises
    ------
    yaml.YAMLError
        If this is no YAML, is nested beyond all measure, or holds a value that is not of the
        kind that it seems to be, such as the date 2024-13-45.
    """
    depth = 0
    # libyaml's loader goes down into nested values until the process dies; its events do not.
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"more than {_DEEPEST} levels inside one another")
    try:
        return yaml.load(text, Loader=_Loader)
    # What PyYAML raises when a value is not of the kind that its form or its tag says.
    except (ValueError, TypeError, AttributeError, OverflowError, LookupError) as error:
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def typed_path(path: str | Path) -> Path:
    """Path that a person has typed: a leading ``~`` is the home folder.

    Shells leave the ``~`` of ``audio_dir=~/recordings`` as it is, and so do YAML and Python.

    Raises
    ------
    SettingsError
        If no file or folder can have such a name.

    Examples
    --------
    >>> typed_path("~/recordings") == Path.home() / "recordings"
    True
    >>> typed_path("~recordings").as_posix()  # a folder may be called so
    '~recordings'
    """
    if not isinstance(path, str | os.PathLike) or "\0" in str(path):
        raise SettingsError(f"{path!r} is not the name of a file or folder.")
    path = Path(path)
    return path.expanduser() if path.parts[:1] == ("~",) else path


def is_there(path: str | Path) -> bool:
    """Whether a path that a person has typed leads anywhere.

    Words that are too long for a path lead nowhere; `Path.exists` raises an `OSError` for them
    before Python 3.14, as `Path.is_file` and `Path.is_dir` do.

    Raises
    ------
    SettingsError
        If it lies where this user may not look.
    """
    return bool(_mode(path))


def is_file(path: str | Path) -> bool:
    """Whether a path that a person has typed leads to a file; the rest as for `is_there`."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: str | Path) -> bool:
    """Whether a path that a person has typed leads to a folder; the rest as for `is_there`."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: str | Path) -> int:
    try:
        return Path(path).stat().st_mode
    except PermissionError as error:
        raise SettingsError(
            f"{path}: nobody knows whether this is there ({error.strerror}); give yourself "
            f"permission to look into its folders, or name another."
        ) from error
    except (OSError, ValueError):
        return 0


def typed_setting(key: str, value: str | Path) -> str:
    """Word that sets a key on the command line, in quotes where the shell needs them.

    Double quotes hold in every shell, also in Windows'.

    Examples
    --------
    >>> typed_setting("audio_dir", "recordings")
    'audio_dir=recordings'
    >>> typed_setting("audio_dir", "my recordings")
    '"audio_dir=my recordings"'
    """
    word = f"{key}={value}"
    return f'"{word}"' if any(character in " '()&;*?<>|#~" for character in word) else word


def typed_hosts(text: str) -> list[tuple[str, int | None]]:
    """Hosts that a person, or a browser, has typed, with commas between them.

    Each is a name in lower case, which may begin with ``*.``, and its port; None for that of http
    or https.

    Raises
    ------
    ValueError
        Saying what was expected.

    Examples
    --------
    >>> typed_hosts("myserver:5006, https://bio.example.org/, [::1]:5006")
    [('myserver', 5006), ('bio.example.org', None), ('::1', 5006)]
    """
    hosts = []
    for part in text.split(","):
        word = part.strip()
        try:
            url = urlsplit(word if "://" in word else f"//{word}")
            name, port = (url.hostname or "").rstrip(".").encode("idna").decode(), url.port
        except ValueError:  # a port that is none, brackets that do not close, impossible letters
            name, port, url = "", None, urlsplit("")
        plain = name.removeprefix("*.")
        if "*" in plain:
            raise ValueError(
                f"{word!r} would let pages of anybody read your data; expected the names of hosts, "
                f"such as myserver:5006, or all of a domain, such as *.example.org"
            )
        rest = (url.username, url.password, url.query or None, url.fragment or None)
        if (
            not re.fullmatch(r"[a-z0-9_.:-]+", plain)
            or url.scheme not in {"", "http", "https"}
            or url.path not in {"", "/"}
            or any(value is not None for value in rest)
        ):
            raise ValueError(
                f"expected hosts such as myserver:5006 or https://bio.example.org, without a path, "
                f"not {word!r}"
            )
        hosts.append((name, None if port in {80, 443} else port))
    return hosts


def typed_text(path: Path) -> str:
    """Text of a file that a person, or a spreadsheet, has written, in whatever encoding.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        Saying what it is instead of a text.
    """
    data = path.read_bytes()
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise ValueError("this is a workbook or an archive; save it as CSV")
    encodings = ["utf-16"] if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise ValueError("this is no text")


_OFFSET = re.compile(r"(?:UTC|GMT)? ?([+\-\u2212])(\d{1,2})(?::?([0-5]\d))?", re.IGNORECASE)
_LARGEST_OFFSET = timedelta(hours=14)


def typed_zone(text: str) -> tzinfo:
    """Time zone that a person has typed: a name of the IANA database, or an offset from UTC.

    Raises
    ------
    ValueError
        Saying what was expected.

    Examples
    --------
    >>> typed_zone("Europe/Berlin").key, typed_zone("UTC+1").utcoffset(None)
    ('Europe/Berlin', datetime.timedelta(seconds=3600))
    """
    word = text.strip()
    if word.upper() in {"UTC", "GMT", "Z"}:
        return UTC
    if match := _OFFSET.fullmatch(word):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
        if offset <= _LARGEST_OFFSET:
            return timezone(offset if match[1] == "+" else -offset)
    try:
        return zoneinfo.ZoneInfo(word)
    # Names of folders, of impossible files, and unknown ones.
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):
        known = {name.lower(): name for name in sorted(zoneinfo.available_timezones())}
        plain = word.lower().replace(" ", "_")
        # Abbreviations such as CEST resemble others that are hours away.
        guess = len(plain) > 5 and not match
        near = difflib.get_close_matches(plain, known, n=1, cutoff=0.6) if guess else []
        near = [name for name in known if plain and name.endswith(f"/{plain}")][:1] or near
        hint = (
            f"did you mean {known[near[0]]!r}?" if near else "such as Europe/Berlin, UTC+1 or UTC"
        )
        raise ValueError(
            f"expected a time zone of the IANA database or an offset; {hint}"
        ) from None


def typed_seed(value: object) -> int | None:
    """Seed of random choices that a person has typed; None for another one each time.

    Raises
    ------
    SettingsError
        If it is none.
    """
    if value is None:
        return None
    try:
        number = -1
        if isinstance(value, SupportsIndex) and not isinstance(value, bool):
            number = operator.index(value)
    except TypeError:  # arrays claim to be numbers
        number = -1
    if number < 0:
        raise SettingsError(f"seed={value!r} is not possible: expected a whole number from 0.")
    return number


def in_notebook() -> bool:
    """Whether code runs in the cells of a notebook, whose kernel goes on between them."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
