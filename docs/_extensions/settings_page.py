"""The settings reference, made from the fields of `bacpipe.options.Options`: a page per subject.

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
    """Markdown of the first page, which names all keys by subject."""
    parts = _parts()
    rows = [
        f"| [{heading}](settings/{_file(heading)}) | "
        f"{', '.join(f'{{setting}}`{key}`' for key in keys)} |"
        for heading, keys in parts.items()
    ]
    toctree = "\n".join(f"settings/{_file(heading)}" for heading in parts)
    return (
        _INTRODUCTION
        + "\n## Keys by subject\n\n| subject | keys |\n|---|---|\n"
        + "\n".join(rows)
        + f"\n\n```{{toctree}}\n:hidden:\n\n{toctree}\n```\n"
    )


def parts() -> dict[str, str]:
    """Markdown by file name: a page for each subject."""
    about = {option.name: option.metadata for option in fields(Options)}
    return {
        _file(heading): "\n".join(
            [
                f"# {heading}\n",
                f"Keys of `{'config' if keys[0] in KEYS['config'] else 'settings'}.yaml`; "
                f"[settings](../settings.md) says where they are set.\n",
                *(_entry(key, about[key]) for key in keys),
            ]
        )
        for heading, keys in _parts().items()
    }


def _parts() -> dict[str, list[str]]:
    """Keys by subject, in the order of the files."""
    about = {option.name: option.metadata for option in fields(Options)}
    found: dict[str, list[str]] = {"What to run": [*KEYS["config"]]}
    for key in KEYS["settings"]:
        if section := about[key]["section"]:
            heading = f"{section[:1].upper()}{section[1:]}"
            found[heading] = []
        found[heading].append(key)
    return found


def _file(heading: str) -> str:
    return f"{heading.lower().replace(' ', '_')}.md"


def _entry(key: str, about: Mapping[str, Any]) -> str:
    default = about["default"]
    text = _paragraphs(about["help"], parameters=default if isinstance(default, dict) else ())
    if "*Allowed:*" not in text:
        text += f"\n\n*Allowed:* {_allowed(about['rule'])}."
    unit = f"\n\n*Unit:* {about['unit']}." if about["unit"] else ""
    return f"````{{setting}} {key}\n\n{text}{unit}\n\n{_default(key)}\n````\n"


def _paragraphs(text: str, *, parameters: Iterable[str]) -> str:
    """Help as Markdown, with an item for each name that the key has parameters for."""
    text = _escaped(text)
    for name in parameters:
        text = re.sub(rf"\n{name}: ", f"\n\n- `{name}`: ", text)
    text = re.sub(r"\b(true|false|null|auto): ", r"`\1`: ", text)
    return re.sub(r"\s*\bAllowed: ", "\n\n*Allowed:* ", text, count=1)


def _allowed(check: Check[Any]) -> str:
    """What a check says about a value that nothing allows."""
    try:
        check(object())
    except ValueError as error:
        return _escaped(str(error).removeprefix("expected "))
    raise AssertionError("a check allows everything")


def _escaped(text: str) -> str:
    """Stars and names such as <dataset> stay what they are."""
    return re.sub(r"([*<])", r"\\\1", text)


def _default(key: str) -> str:
    lines = yaml_lines(key)
    if "\n" in lines:
        return f"*Default:*\n\n```yaml\n{lines}\n```"
    return f"*Default:* `{lines.partition(':')[2].strip()}`"
