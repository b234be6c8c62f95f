"""What people type: YAML of any kind, paths, time zones, and words of the command line."""

from __future__ import annotations

import difflib
import operator
import os
import re
import shlex
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

PATH_KEYS = (
    "audio_dir", "recordings", "moved_from", "main_results_dir", "model_base_path", "sites",
)  # fmt: skip
"""Keys whose values on the command line are taken letter by letter: to YAML, the folder 2024 would
be a number, and what follows a # no part of a name."""


def load_yaml(text: str) -> Any:  # noqa: ANN401 - a YAML document holds anything
    """Content of a YAML document that a program wrote: plain values, never objects of other types.

    Raises
    ------
    yaml.YAMLError
        If this is no YAML, is nested beyond all measure, or holds a value that is not of the
        kind that it seems to be, such as the date 2024-13-45.
    """
    return _load(text, _Loader)


def typed_yaml(text: str) -> Any:  # noqa: ANN401 - a YAML document holds anything
    """Content of a YAML document that a person has typed; the rest as for `load_yaml`.

    Numbers are those of YAML 1.2.

    Raises
    ------
    RepeatedKeyError
        If a key stands twice in one place.

    Examples
    --------
    >>> typed_yaml("[1e-3, 010, 1:30]")
    [0.001, '010', '1:30']
    """
    return _load(text, _TypedLoader)


class RepeatedKeyError(yaml.YAMLError):
    """A key stands twice in one place; of which the last would win silently."""


class _TypedLoader(_Loader):  # type: ignore[misc, valid-type]
    """PyYAML follows YAML 1.1, to which 1e-3 is a text, 010 is 8, and 1:30 is 90."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    where = f", in lines {lines[name]} and {line}" if line != lines[name] else ""
                    raise RepeatedKeyError(f"{key.value} is given twice{where}")
                lines[name] = line
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)\Z"),
    "tag:yaml.org,2002:float": re.compile(
        r"""([-+]? (\.[0-9]+ | [0-9][0-9_]*\.[0-9_]*) ([eE][-+]?[0-9]+)?
        | [-+]? [0-9][0-9_]* [eE][-+]?[0-9]+
        | [-+]? \.(inf|Inf|INF) | \.(nan|NaN|NAN))\Z""",
        re.VERBOSE,
    ),
}
_TypedLoader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if tag not in _NUMBERS]
    for first, known in _Loader.yaml_implicit_resolvers.items()
}


class TypedDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes what `load_yaml` and `typed_yaml` both read; ten times faster with libyaml."""


for _kind in (_TypedLoader, TypedDumper):
    for _tag, _form in _NUMBERS.items():
        _kind.add_implicit_resolver(_tag, _form, list("-+.0123456789"))


def _load(text: str, loader: Any) -> Any:  # noqa: ANN401 - a class of PyYAML, which has no types
    depth = 0
    # libyaml's loader goes down into nested values until the process dies; its events do not.
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"more than {_DEEPEST} levels inside one another")
    try:
        return yaml.load(text, Loader=loader)
    # What PyYAML raises when a value is not of the kind that its form or its tag says.
    except (ValueError, TypeError, AttributeError, OverflowError, LookupError) as error:
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error


def typed_path(path: str | Path) -> Path:
    """Path that a person has typed: a leading ``~`` is the home folder, ``$NAME`` a variable.

    Shells leave the ``~`` of ``audio_dir=~/recordings`` as it is, and so do YAML and Python, which
    leave variables of the environment, too.  A part of a path is one if it is so called as a whole
    (``$NAME``, ``${NAME}`` or ``%NAME%``), is set, and no file or folder has that name.

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
    if path.parts[:1] == ("~",):
        path = path.expanduser()
    text = str(path)
    if ("$" in text or "%" in text) and not _REMOTE.match(path.as_posix()):
        path = _with_variables(path)
    return path


_VARIABLE = re.compile(r"\$(\w+)|\$\{(\w+)\}|%(\w+)%")
_REMOTE = re.compile(r"/?[A-Za-z][A-Za-z0-9+.-]+:/")  # of a URL, pathlib makes one slash of two


def _with_variables(path: Path) -> Path:
    done = Path()
    for part in path.parts:
        match = _VARIABLE.fullmatch(part)
        value = os.environ.get(match[match.lastindex or 0]) if match else None
        if value and not os.path.lexists(done / part):
            # As in a shell, also where the value begins with a slash.
            done = Path(f"{done}/{value}" if done.parts else value)
        else:
            done /= part
    return done


def unset_variable(path: str | Path) -> str | None:
    """Name of the variable that a typed path begins with, if there is none, nor such a folder."""
    first = typed_path(path).parts[:1]
    match = _VARIABLE.fullmatch(first[0]) if first else None
    return match[match.lastindex or 0] if match and not os.path.lexists(first[0]) else None


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


def quoted(word: str) -> str:
    """A word as the shell takes it: in quotes where it needs them."""
    if sys.platform != "win32":
        return shlex.quote(word)
    # Double quotes hold in both of its shells.
    plain = re.fullmatch(r"[\w@+=:./\\-]+", word)
    return word if plain else '"{}"'.format(word.replace('"', '\\"'))


def typed_setting(key: str, value: object) -> str:
    """Word that sets a key on the command line, in quotes where the shell needs them.

    Parameters
    ----------
    key : str
        Of the configuration or of a command.
    value : object
        A text, path, number, truth value or None, or a list of these.

    Examples
    --------
    >>> typed_setting("audio_dir", "recordings"), typed_setting("audio_dir", None)
    ('audio_dir=recordings', 'audio_dir=null')
    """
    return quoted(f"{key}={_path_word(value) if key in PATH_KEYS else _yaml_word(value)}")


def _path_word(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_path_item(str(item)) for item in value)}]"
    text = str(value)
    # These have a meaning of their own.
    return f'"{text}"' if text == "null" or text[:1] in ("'", '"', "[", "{") else text


def _path_item(text: str) -> str:
    if "," not in text and text == text.strip("'\" "):
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'


def _yaml_word(value: object) -> str:
    plain = str(value) if isinstance(value, Path) else value
    text: str = yaml.dump(
        [plain], Dumper=TypedDumper, default_flow_style=True, allow_unicode=True, width=1_000_000
    )
    return text.strip()[1:-1]


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
