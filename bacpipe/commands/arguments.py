"""Words of the command line that set keys of the configuration."""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from bacpipe.commands import COMMANDS
from bacpipe.errors import SettingsError
from bacpipe.options import KEYS, make_options, read_overrides, user_settings
from bacpipe.user_input import (
    PATH_KEYS,
    RepeatedKeyError,
    is_there,
    quoted,
    typed_path,
    typed_setting,
    typed_yaml,
)

_KEYS = {*KEYS["config"], *KEYS["settings"]}
_SEVERAL_PATHS = ("audio_dir", "recordings")
# In quotes where a name has a comma.
_ITEM = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([^,]*[^,\s][^,]*))\s*(?:,|$)""")
_LISTS = ("models", "evaluation_task", "audio_suffixes", "default_label_keys", "species_list")
_CLOSED_BY = {"[": "]", "{": "}", "'": "'", '"': '"'}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Breaks the lines of a description as argparse does, and leaves examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return super()._fill_text(text, width, indent)
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Let a command take YAML files and ``key=value`` words."""
    parser.add_argument("--config", type=place, metavar="FILE", help="YAML file: what to run")
    parser.add_argument("--settings", type=place, metavar="FILE", help="YAML file: how to run it")
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="a key of config.yaml or settings.yaml"
    )


def place(text: str) -> Path:
    """File or folder that an option names, which is no setting that was meant as one.

    Raises
    ------
    argparse.ArgumentTypeError
        If it begins with a key of the configuration, and there is nothing of that name.
    """
    if _sets_a_key(text) and not is_there(text):
        raise argparse.ArgumentTypeError(
            f"{text} is a setting; expected the name of a file or folder, such as "
            f"{text.partition('=')[2] or 'mine'}"
        )
    return typed_path(text)


def _sets_a_key(word: str) -> bool:
    key, separator, _ = word.partition("=")
    return bool(separator) and key in _KEYS


def refuse_dashes(words: Sequence[str]) -> None:
    """Say how settings are written to whoever writes ``--audio_dir recordings``.

    Raises
    ------
    SettingsError
        If a word is a key of the configuration behind dashes.
    """
    for i, word in enumerate(words):
        name, separator, value = word.partition("=")
        key = name.lstrip("-").replace("-", "_")
        if name.startswith("--") and key in _KEYS:
            following = words[i + 1] if i + 1 < len(words) else ""
            if not separator and not following.startswith("-") and "=" not in following:
                value = following
            setting = quoted(f"{key}={value or 'value'}")
            raise SettingsError(
                f"{name} is no option; settings are written without dashes: {setting}"
            )


def read_settings(parsed: argparse.Namespace) -> dict[str, Any]:
    """Keys of the user's files, then those of the command line, which win.

    Raises
    ------
    SettingsError
        If a file or a word cannot be understood.
    """
    overrides: dict[str, Any] = {}
    for name in ("config", "settings"):
        path = getattr(parsed, name)
        beside = Path(f"{name}.yaml")
        if path is None and beside.is_file():
            path = beside
        if path is not None:
            overrides |= read_overrides(path, name)
    return overrides | parse_words(parsed.words)


def own_settings(words: Sequence[str]) -> dict[str, Any]:
    """Do what `read_settings` does, for a command that lets nobody name other files."""
    return read_settings(argparse.Namespace(config=None, settings=None, words=words))


def results_folder(words: Sequence[str], *, command: str) -> Path:
    """Folder of results that words name, as a path or as settings.

    Raises
    ------
    SettingsError
        If they name more than one.
    """
    plain = [word for word in words if "=" not in word or is_there(word)]
    if len(plain) > 1 or (plain and len(words) > 1):
        raise SettingsError(
            f"{command} takes one folder of results, but got {' and '.join(words)}; use {command} "
            f"FOLDER, or audio_dir=FOLDER main_results_dir=FOLDER."
        )
    if plain:
        return typed_path(plain[0])
    given = parse_words(words)
    own = own_settings([])
    main = own.get("main_results_dir", user_settings().main_results_dir)
    options = make_options(**{"main_results_dir": main, **given})
    if "audio_dir" not in given:
        return typed_path(options.main_results_dir)
    from bacpipe.store.data_set_folder import paths_of

    return paths_of(given["audio_dir"], "none", options).dataset_path


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words that set keys, and those before and between them, such as a name or a file.

    Returns the others first.
    """
    joined = list(_joined(words))
    others = [word for word in joined if "=" not in word or is_there(word)]
    return others, [word for word in joined if word not in others]


def parse_words(words: Sequence[str]) -> dict[str, Any]:
    """Values by key of words such as ``hop=0.5``.

    Raises
    ------
    SettingsError
        If one cannot be understood, or two set the same key.
    """
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for word in _joined(words):
        key, separator, text = word.partition("=")
        if not separator:
            raise SettingsError(_not_a_setting(word))
        if key in {"config", "settings"}:
            raise SettingsError(f"{word} is not understood; files are named with --{key} {text}.")
        if key in values:
            raise SettingsError(
                f"{key} is given twice, as {given[key]} and as {word}; expected it once, so leave "
                f"one of them out."
            )
        values[key], given[key] = _parse_value(key, text), word
    return values


def _joined(words: Sequence[str]) -> Iterator[str]:
    """Words, with those joined again that the shell has parted: models=[birdnet, beats].

    Windows' command prompt parts them at spaces inside of single quotes, too.  What sets a key goes
    on with the next word that does not; and names of folders may begin with a bracket.
    """
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, _, value = word.partition("=")
        end = _CLOSED_BY.get(value[:1])
        whole = len(value) > 1 and end is not None and value.endswith(end)
        if end and not whole and not (key in PATH_KEYS and is_there(typed_path(value))):
            following = itertools.takewhile(lambda part: not _sets_a_key(part), rest)
            closing = next((i for i, part in enumerate(following) if part.endswith(end)), None)
            if closing is not None:
                word = " ".join([word, *rest[: closing + 1]])
                del rest[: closing + 1]
        yield word


def _not_a_setting(word: str) -> str:
    """Sentence on a word without ``=``, with what was probably meant."""
    from bacpipe.models.zoo import CARDS

    key = word.replace("-", "_").lower()
    if word.lower() in {"help", "version"}:
        meant = f"did you mean bacpipe --{word.lower()}?"
    elif key in _KEYS:
        meant = f"expected {key}=value, without spaces around the =."
    elif word.lower().endswith((".yaml", ".yml")):
        meant = f"files of settings are named with --config {word} or --settings {word}."
    elif is_there(word):
        meant = f"did you mean {typed_setting('audio_dir', word)}?"
    elif word in CARDS:
        meant = f"did you mean models={word}?"
    elif close := difflib.get_close_matches(word.lower(), COMMANDS, n=1, cutoff=0.7):
        meant = f"did you mean bacpipe {close[0]}?"
    else:
        meant = (
            "expected key=value, such as audio_dir=recordings (bacpipe --help shows examples), "
            "with quotes around it if there are spaces in the value."
        )
    return f"{word!r} is not understood; {meant}"


def _parse_value(key: str, text: str) -> object:
    if not text.strip():
        raise SettingsError(
            f"{key}= has no value; expected {key}=value, without spaces around the =, or "
            f"{key}=null for none."
        )
    if key in PATH_KEYS:
        if key in _SEVERAL_PATHS and text[0] == "[" and text[-1] == "]" and not is_there(text):
            return [one or two or bare.strip() for one, two, bare in _ITEM.findall(text[1:-1])]
        return None if text == "null" else _without_quotes(text)
    try:
        value = typed_yaml(text)
        if key in _LISTS and isinstance(value, str):
            if value.startswith("["):  # in quotes that the shell has left there
                return typed_yaml(value)
            if "," in value:
                return [part.strip() for part in value.split(",")]
        return value
    except RepeatedKeyError as error:
        raise SettingsError(
            f"{key}={text!r} is not possible: {error}; expected it once, so leave one of them out."
        ) from None
    except (yaml.YAMLError, UnicodeEncodeError):
        raise SettingsError(
            f"{key}={text!r} is not understood; lists are written as {key}='[first, second]'."
        ) from None


def _without_quotes(text: str) -> str:
    quoted = len(text) > 2 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text
