"""Configuration: defaults, YAML files and keyword overrides become one validated view.

``bacpipe.config`` and ``bacpipe.settings`` are mutable namespaces.  They check every value
when it is set; functions read them when they are called (`current`), keyword arguments win
over them, and nothing in bacpipe writes to them.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from bacpipe.errors import SettingsError
from bacpipe.rules import CONFIG_RULES, SETTINGS_RULES, Check
from bacpipe.user_input import load_yaml

_PACKAGE = Path(__file__).parent
# Values in messages: aliases of YAML can make them longer than any memory.
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = 120
_shown.maxlist = _shown.maxdict = 10
_shown.maxlevel = 3


class Namespace:
    """Validated keys of one YAML file, as attributes.

    Raises
    ------
    SettingsError
        When an unknown key is read or set, or a value is impossible.

    Examples
    --------
    >>> import bacpipe
    >>> bacpipe.settings.padding
    'wrap'
    """

    # Slots keep these two out of vars(), which is what users unpack into keywords.
    __slots__ = ("__dict__", "_name", "_rules")
    _name: str
    _rules: Mapping[str, Check]

    def __init__(self, name: str, rules: Mapping[str, Check], values: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_rules", rules)
        for key, value in values.items():
            setattr(self, key, value)

    def __setattr__(self, key: str, value: Any) -> None:
        vars(self)[key] = check_value(key, value, self._rules, where=f"bacpipe.{self._name}")

    def __delattr__(self, key: str) -> None:
        raise SettingsError(f"{key!r} cannot be removed from bacpipe.{self._name}; set it instead.")

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):
            raise AttributeError(key)
        raise SettingsAttributeError(unknown_key(key, self._rules, where=f"bacpipe.{self._name}"))

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __dir__(self) -> Iterable[str]:
        return list(self._rules)

    def __repr__(self) -> str:
        lines = "\n".join(f"  {key}: {getattr(self, key)!r}" for key in self._rules)
        return f"bacpipe.{self._name}\n{lines}"


class SettingsAttributeError(SettingsError, AttributeError):
    """An unknown key was read; also an AttributeError, as Python expects of attributes."""


def unknown_key(key: str, known: Iterable[str], *, where: str) -> str:
    """Sentence about a key that does not exist, with the nearest one that does."""
    names = list(known)
    closest = difflib.get_close_matches(str(key).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {closest[0]!r}?" if closest else f"the keys are {', '.join(names)}."
    return f"{where} has no key {_show(key)}; {hint}"


def check_value(key: str, value: Any, rules: Mapping[str, Check], *, where: str) -> Any:
    """Value of a key in its normal form.

    Raises
    ------
    SettingsError
        If the key is unknown or the value is impossible.
    """
    if key not in rules:
        raise SettingsError(unknown_key(key, rules, where=where))
    try:
        return rules[key](value)
    except ValueError as error:
        hint = _meant(value, rules[key]) or _closest_word(value, str(error))
        raise SettingsError(
            f"{key}={_show(value)} in {where} is not possible: {error}.{hint}"
        ) from None


def _show(value: Any) -> str:
    try:
        return _shown.repr(value)
    except ValueError:  # an integer of thousands of digits
        return f"a {type(value).__name__} too long to show"


def _meant(value: Any, check: Check) -> str:
    """Hint at a number or truth value that was written as a text, or with a decimal comma."""
    if not isinstance(value, str) or len(value) > 20:
        return ""
    for text, how in ((value, "without quotes"), (value.replace(",", "."), "with a point")):
        try:
            meant = load_yaml(text)
            check(meant)
        except (yaml.YAMLError, ValueError):
            continue
        if isinstance(meant, bool | int | float):
            return f" Did you mean {text}, {how}?"
    return ""


def _closest_word(value: Any, expected: str) -> str:
    if not isinstance(value, str | list):
        return ""
    words = expected.removeprefix("expected one of ").replace(",", " ").split()
    closest = difflib.get_close_matches(_show(value).strip("'\"[]"), words, n=1, cutoff=0.7)
    return f" Did you mean {closest[0]!r}?" if closest else ""


def default_file(name: str) -> Path:
    """Path of the shipped ``config.yaml`` or ``settings.yaml``.

    A wheel carries them inside the package; in a source tree they are at its root.
    """
    inside = _PACKAGE / name
    return inside if inside.is_file() else _PACKAGE.parent / name


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML file.

    Raises
    ------
    SettingsError
        If the file is missing, not YAML, or not a list of ``key: value`` lines.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = load_yaml(text)
    except FileNotFoundError:
        raise SettingsError(f"{path}: this file does not exist; expected a YAML file.") from None
    except OSError as error:
        raise SettingsError(f"{path}: this file cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        written = "".join(text.split("\n")[place.line : place.line + 1]) if place else ""
        if "\t" in written:
            problem = "a tab; indent with spaces"
        elif '"' in written and "\\" in written:
            problem = "in double quotes, \\ begins a special character; leave the quotes out"
        raise SettingsError(
            f"{path}: this is not valid YAML{line} ({problem}); expected lines of 'key: value'."
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(
            f"{path}: expected lines of 'key: value', with a space after the colon, such as "
            f"'audio_dir: recordings'."
        )
    return content


@cache
def config() -> Namespace:
    """``bacpipe.config``: starts with the defaults, users change it."""
    return Namespace("config", CONFIG_RULES, read_yaml(default_file("config.yaml")))


@cache
def settings() -> Namespace:
    """``bacpipe.settings``: starts with the defaults, users change it."""
    from platformdirs import user_cache_dir

    values = read_yaml(default_file("settings.yaml"))
    values["model_base_path"] = values["model_base_path"] or str(
        Path(user_cache_dir("bacpipe")) / "models"
    )
    return Namespace("settings", SETTINGS_RULES, values)


def read_overrides(path: Path, name: str) -> dict[str, Any]:
    """Checked keys of a user's ``config.yaml`` or ``settings.yaml``.

    Parameters
    ----------
    path : Path
        The file.
    name : {'config', 'settings'}
        Which of the two it is.
    """
    rules = CONFIG_RULES if name == "config" else SETTINGS_RULES
    other, others = ("settings", SETTINGS_RULES) if name == "config" else ("config", CONFIG_RULES)
    values = read_yaml(path)
    for key in values:
        if key in others and key not in rules:
            raise SettingsError(f"{path}: {key} is a key of {other}.yaml; write it there.")
    return {
        key: check_value(key, value, rules, where=str(path))
        for key, value in values.items()
        if not (key == "model_base_path" and value is None)
    }


class Options(SimpleNamespace):
    """Every key of the configuration with its value for one call."""


def current(**overrides: Any) -> Options:
    """Merge ``bacpipe.config``, ``bacpipe.settings`` and the keyword arguments of a call.

    Returns
    -------
    Options
        A copy: later changes of the namespaces do not reach it.

    Raises
    ------
    SettingsError
        If a keyword is unknown, a value impossible, or values contradict each other.
    """
    rules = {**CONFIG_RULES, **SETTINGS_RULES}
    merged = {**vars(config()), **vars(settings())}
    for key, value in overrides.items():
        if key not in rules:
            raise SettingsError(unknown_key(key, rules, where="bacpipe"))
        merged[key] = check_value(key, value, rules, where="the arguments")
    if merged["train_ratio"] + merged["test_ratio"] >= 1:
        raise SettingsError(
            f"train_ratio={merged['train_ratio']} and test_ratio={merged['test_ratio']} leave "
            f"nothing to validate with; their sum must be below 1."
        )
    return Options(**merged)
