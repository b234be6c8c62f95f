"""The settings reference, made from config.yaml and settings.yaml.

The comments of these files are the text; what a key may hold comes from the checks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from bacpipe.configuration import default_file
from bacpipe.rules import CONFIG_RULES, SETTINGS_RULES, Check

_INTRODUCTION = """\
# Settings

All keys, their defaults, and what they may hold. `config.yaml` says **what** to run,
`settings.yaml` says **how**. There are four ways to set a key; the first one that sets it wins:

1. a keyword argument of a function, or `key=value` on the command line:
   `bacpipe audio_dir=recordings hop=1`;
2. a file named with `--config` or `--settings`;
3. a `config.yaml` or `settings.yaml` in the folder you work in (on the command line);
4. `bacpipe.config.key = value` or `bacpipe.settings.key = value` in Python.

Files may hold only the keys that you change. An unknown key or an impossible value stops the run
before anything is computed, with the closest valid one in the message.

```python
import bacpipe

bacpipe.settings.hop = 1.0  # for all calls from here on
bacpipe.generate_embeddings(model_name="birdnet", audio_dir="recordings", hop=0.5)  # this one
```
"""


@dataclass
class _Key:
    name: str
    comment: list[str]
    lines: list[str] = field(default_factory=list)


def page() -> str:
    """Markdown of the page."""
    parts = [_INTRODUCTION]
    for name, rules in (("config", CONFIG_RULES), ("settings", SETTINGS_RULES)):
        parts.append(f"## {name}.yaml\n")
        text = default_file(f"{name}.yaml").read_text(encoding="utf-8")
        for heading, keys in _sections(text):
            if heading:
                parts.append(f"### {heading[:1].upper()}{heading[1:]}\n")
            parts += [_entry(key, rules) for key in keys]
    return "\n".join(parts)


def _sections(text: str) -> list[tuple[str, list[_Key]]]:
    """Headings of a file, each with its keys."""
    sections: list[tuple[str, list[_Key]]] = [("", [])]
    comment: list[str] = []
    for line in text.splitlines():
        if heading := re.fullmatch(r"# -{5,} (.+)", line):
            sections.append((heading[1], []))
            comment = []
        elif line.startswith("#"):
            comment.append(line.removeprefix("#").removeprefix(" "))
        elif match := re.match(r"(\w+):", line):
            sections[-1][1].append(_Key(match[1], comment, [line]))
            comment = []
        elif line.strip():
            sections[-1][1][-1].lines.append(line)
        else:
            comment = []
    # Keys without a comment of their own share the one above them.
    for _, keys in sections:
        for before, key in itertools.pairwise(keys):
            key.comment = key.comment or before.comment
    return [(heading, keys) for heading, keys in sections if keys]


def _entry(key: _Key, rules: Mapping[str, Check]) -> str:
    default = yaml.safe_load("\n".join(key.lines))[key.name]
    text = _paragraphs(key.comment, parameters=default if isinstance(default, dict) else ())
    if "*Allowed:*" not in text:
        text += f"\n\n*Allowed:* {_allowed(rules[key.name])}."
    return f"````{{setting}} {key.name}\n\n{text}\n\n{_default(key)}\n````\n"


def _paragraphs(comment: list[str], *, parameters: Iterable[str]) -> str:
    """Comment as Markdown, with an item for each name that the key has parameters for."""
    text = "\n".join(comment)
    for name in parameters:
        text = re.sub(rf"\n{name}: ", f"\n\n- `{name}`: ", text)
    text = re.sub(r"\b(true|false|null|auto): ", r"`\1`: ", text)
    return re.sub(r"\s*\bAllowed: ", "\n\n*Allowed:* ", text, count=1)


def _allowed(check: Check) -> str:
    """What a check says about a value that nothing allows."""
    try:
        check(object())
    except ValueError as error:
        return str(error).removeprefix("expected ")
    raise AssertionError("a check allows everything")


def _default(key: _Key) -> str:
    value = yaml.safe_load("\n".join(key.lines))[key.name]
    if isinstance(value, list | dict) and len(key.lines) > 1:
        return "*Default:*\n\n```yaml\n" + "\n".join(key.lines) + "\n```"
    return f"*Default:* `{key.lines[0].partition(':')[2].strip()}`"
