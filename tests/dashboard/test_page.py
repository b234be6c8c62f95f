from __future__ import annotations

from typing import Any


def test_the_first_view_opens_without_complaints(visit: Any) -> None:
    page = visit()
    page.wait_for_selector("canvas")
    assert page.title().startswith("bacpipe")
