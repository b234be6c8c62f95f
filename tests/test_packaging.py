"""What the package index and an installation show of this repository."""

from __future__ import annotations

import importlib.metadata
import re

import pytest


def test_the_readme_of_the_package_index_has_no_links_into_nothing() -> None:
    description = str(importlib.metadata.metadata("bacpipe").get_payload() or "")
    if not description:
        description = importlib.metadata.metadata("bacpipe")["Description"] or ""
    if not description:
        pytest.skip("this installation carries no README")
    links = re.findall(r"\]\(([^)]+)\)", description)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", description)
    assert images and all(address.startswith("https://raw.") for address in images)
