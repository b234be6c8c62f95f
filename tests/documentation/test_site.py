"""The documentation: complete, true to the package, and built without a warning."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import bacpipe
from bacpipe.commands import COMMANDS
from bacpipe.commands.arguments import parse_words
from bacpipe.commands.species import KEYS as SPECIES_KEYS
from bacpipe.exports.export import own_options
from bacpipe.models.zoo import CARDS
from bacpipe.options import KEYS, check_value
from tests.documentation.reader import blocks_of, commands_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
OPTIONS = {*KEYS["config"], *KEYS["settings"]}
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("guides/*.md")])

# What people type into the search of the site, and where it should lead.
JOBS = {
    "location": "guides/sites_and_clocks",
    "extract clips": "guides/tables_for_r",
    "stereo": "guides/stereo",
    "false positives": "guides/trusting_scores",
    "occupancy": "guides/tables_for_r",
    "scientific names": "guides/is_my_species_in_it",
    "cite": "citing",
    "docker": "installation",
    "bats": "guides/ultrasound",
    "own model": "guides/own_model",
    "similar sounds": "guides/search",
    "teach recogniser": "guides/from_one_call_to_a_recogniser",
    "annotations": "guides/annotations",
    "cluster": "guides/large_data_sets",
}

needs_sphinx = pytest.mark.skipif(
    importlib.util.find_spec("myst_nb") is None, reason="the extra docs is not installed"
)


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Imports modules of docs/_extensions."""
    monkeypatch.syspath_prepend(str(DOCS / "_extensions"))
    yield importlib
    for name in ("model_pages", "settings_page"):
        sys.modules.pop(name, None)


def commands(page: Path) -> list[list[str]]:
    """Words of every bacpipe command of a page, without the program's name."""
    words = [
        shlex.split(command)
        for block in blocks_of(page)
        if block.language == "bash"
        for command in commands_of(block)
    ]
    return [line[1:] for line in words if line[0].endswith("bacpipe")]


@pytest.mark.parametrize("name", CARDS)
def test_every_model_has_a_page_with_its_facts(name, generator):
    page = generator.import_module("model_pages").pages()[f"{name}.md"]
    card = CARDS[name]
    assert card.scope.limits or not card.is_classifier
    for fact in (name, card.scope.sounds, card.trained_on, card.licence, card.homepage):
        assert fact in page
    assert f"{card.dim} numbers" in page
    assert all(limit in page for limit in card.scope.limits)
    assert ("no commercial use" in page) == card.non_commercial
    assert (f".[{card.extra}]" in page) if card.extra else ("nothing more" in page)


def test_frequencies_fit_the_sample_rates():
    for card in CARDS.values():
        low, high = card.frequencies
        assert 0 <= low < high <= card.sample_rate / 2, card.name


def test_every_setting_is_explained(generator):
    page = generator.import_module("settings_page").page()
    entries = dict(re.findall(r"^````\{setting\} (\w+)\n(.*?)^````", page, re.S | re.M))
    assert set(entries) == OPTIONS
    for key, text in entries.items():
        assert "*Default:*" in text and "*Allowed:*" in text, key
        assert len(text.partition("*")[0].split()) > 2, key


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_possible(page):
    for words in commands(page):
        if words[:1] == ["species"]:  # it has keys of its own
            assert parse_words(words[1:]).keys() <= set(SPECIES_KEYS)
            continue
        if words and "=" not in words[0]:
            assert words[0] in COMMANDS or words[0].startswith("-")
            name = "" if words[0].startswith("-") else f".{words[0]}"
            own = importlib.import_module(f"bacpipe.commands{name}")
            known = getattr(own, "KEYS", ())
            if words[0] == "export":
                known = own_options(words[1])
            words = [w for w in words[1:] if w.partition("=")[0] not in known]
        keys = [word for word in words if "=" in word and not word.startswith(("-", "{"))]
        values = parse_words([word for word in keys if "$" not in word])
        for key, value in values.items():
            check_value(key, value, OPTIONS, where=page.name)
        models = values.get("models", [])
        assert set([models] if isinstance(models, str) else models) <= set(CARDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_use_names_that_exist(page):
    for block in blocks_of(page):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "bacpipe"
            ):
                assert node.attr in bacpipe.__all__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files_of_the_repository(page):
    """On a code host, nobody builds the pages."""
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text("utf-8"))
    made = (DOCS / "reference", DOCS / "examples")
    for link in links:
        target = (page.parent / link).resolve()
        assert target.exists() and not any(target.is_relative_to(folder) for folder in made), link


def test_the_model_pages_of_the_repository_are_those_of_the_cards(generator):
    """Any build of the documentation writes them; commit them."""
    pages = generator.import_module("model_pages").pages()
    assert pages == {path.name: path.read_text("utf-8") for path in DOCS.glob("models/*.md")}


def test_the_first_page_is_readable_without_a_build():
    assert not re.search(r"^:::|^```{", (DOCS / "index.md").read_text("utf-8"), re.M)


def pages_with(words: list[str], index: dict[str, Any]) -> set[str]:
    """Pages that the search of the site finds for words."""
    from sphinx.search.en import SearchEnglish

    language = SearchEnglish({})
    stem = language.stem
    found = []
    for word in words:
        if word in language.stopwords:  # which the search skips
            continue
        numbers = [index[part].get(stem(word), []) for part in ("terms", "titleterms")]
        flat = [n if isinstance(n, list) else [n] for n in numbers]
        found.append({index["docnames"][number] for part in flat for number in part})
    return set.intersection(*found)


@needs_sphinx
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what extensions ask of Sphinx
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_pages_are_built_without_a_warning(tmp_path, capsys):
    from sphinx.cmd.build import main

    html = tmp_path / "html"
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "doctrees")]
    options += ["-D", "nb_execution_mode=off"]  # they are run by tests of their own
    assert main([*options, str(DOCS), str(html)]) == 0, capsys.readouterr().err
    assert {page.stem for page in (html / "models").glob("*.html")} == {"index", *CARDS}
    index = (html / "searchindex.js").read_text("utf-8")
    found = json.loads(index[index.index("{") : index.rindex("}") + 1])
    for words, page in JOBS.items():
        assert page in pages_with(words.split(), found), words
    reference = "".join(
        page.read_text("utf-8") for page in (html / "reference" / "api").glob("*.html")
    )
    missing = [name for name in bacpipe.__all__ if f'id="bacpipe.{name}"' not in reference]
    assert missing == []
    assert 'id="bacpipe.errors.SettingsError"' in reference
    inner = (r"errors\.[a-z]\w+", "Options", "Source", "StreamEnd", "workload", "lines")
    assert not re.search(rf'id="bacpipe\.([\w.]+\.)?({"|".join(inner)})\b', reference)
