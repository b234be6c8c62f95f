"""The settings reference, made from the fields of `bacpipe.options.Options`.

Their help is the text; where it does not say what a key may hold, the rule does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from bacpipe.options import KEYS, Check, Options, yaml_lines

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


def page() -> str:
    """Markdown of the page."""
    about = {option.name: option.metadata for option in fields(Options)}
    parts = [_INTRODUCTION]
    for name, keys in KEYS.items():
        parts.append(f"## {name}.yaml\n")
        for key in keys:
            if heading := about[key]["section"]:
                parts.append(f"### {heading[:1].upper()}{heading[1:]}\n")
            parts.append(_entry(key, about[key]))
    return "\n".join(parts)


def _entry(key: str, about: Mapping[str, Any]) -> str:
    default = about["default"]
    text = _paragraphs(about["help"], parameters=default if isinstance(default, dict) else ())
    if "*Allowed:*" not in text:
        text += f"\n\n*Allowed:* {_allowed(about['rule'])}."
    unit = f"\n\n*Unit:* {about['unit']}." if about["unit"] else ""
    return f"````{{setting}} {key}\n\n{text}{unit}\n\n{_default(key)}\n````\n"


def _paragraphs(text: str, *, parameters: Iterable[str]) -> str:
    """Help as Markdown, with an item for each name that the key has parameters for."""
    for name in parameters:
        text = re.sub(rf"\n{name}: ", f"\n\n- `{name}`: ", text)
    text = re.sub(r"\b(true|false|null|auto): ", r"`\1`: ", text)
    return re.sub(r"\s*\bAllowed: ", "\n\n*Allowed:* ", text, count=1)


def _allowed(check: Check[Any]) -> str:
    """What a check says about a value that nothing allows."""
    try:
        check(object())
    except ValueError as error:
        return str(error).removeprefix("expected ")
    raise AssertionError("a check allows everything")


def _default(key: str) -> str:
    lines = yaml_lines(key)
    if "\n" in lines:
        return f"*Default:*\n\n```yaml\n{lines}\n```"
    return f"*Default:* `{lines.partition(':')[2].strip()}`"
