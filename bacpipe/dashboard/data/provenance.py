"""What the results of each model were made with, for methods sections."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bacpipe.dashboard.data.results import ModelResults
from bacpipe.models.zoo import CARDS
from bacpipe.store.inventory import Totals

if TYPE_CHECKING:
    import pandas as pd


def provenance_of(results: ModelResults, totals: Totals) -> dict[str, str]:
    """Settings, versions, licence and citation of a model's results, each by its title."""
    header = results.windows.header
    identity: dict[str, Any] = header.get("identity", {})
    made: dict[str, Any] = header.get("provenance", {})
    found = {
        "Recordings": f"{totals.recordings:,}",
        "Windows": f"{totals.windows:,}",
        **_windows(identity, results),
        **_predictions(results),
        "Checkpoint": _checkpoint(identity.get("checkpoint")),
        "Computed with": ", ".join(
            f"{'bacpipe' if key == 'version' else key} {value}" for key, value in made.items()
        ),
        "Results": results.loader.get_embedding_dir().name,
        "Maps": ", ".join(
            name + (" (older than the embeddings)" if results.map_is_stale(name) else "")
            for name in results.maps
        ),
    }
    card = CARDS.get(results.name)
    if card is not None:
        found |= {
            "Made for": card.scope.sounds,
            "Trained on": card.trained_on,
            "Licence": card.licence + (" – no commercial use" if card.non_commercial else ""),
            "Cite": card.citation,
            "More": card.homepage,
        }
    return {title: text for title, text in found.items() if text}


def provenance_table(models: Sequence[ModelResults], totals: dict[str, Totals]) -> pd.DataFrame:
    """All of it as a table: a row per model."""
    import pandas as pd

    rows = [{"Model": part.name, **provenance_of(part, totals[part.name])} for part in models]
    return pd.DataFrame(rows).fillna("")


def provenance_html(name: str, found: dict[str, str], *, opened: bool) -> str:
    """A model's settings as HTML that unfolds; everything in it is text."""
    rows = "".join(
        f"<tr><th>{html.escape(title)}</th><td>{html.escape(text)}</td></tr>"
        for title, text in found.items()
    )
    short = [found[key] for key in ("Window", "Licence") if key in found]
    return (
        f'<details class="bp-model"{" open" if opened else ""}><summary><b>{html.escape(name)}</b> '
        f"<span>{html.escape(' · '.join(short))}</span></summary><table>{rows}</table></details>"
    )


def _windows(identity: dict[str, Any], results: ModelResults) -> dict[str, str]:
    rate, window = results.window_rate, identity.get("window")
    if not rate or not window:
        return {"Window": "not recorded: made with an older bacpipe"}
    speed = identity.get("speed") or 1
    length = window / rate * speed
    hop = identity.get("hop")
    found = {
        "Window": f"{length:.3g} s at {rate / 1000:g} kHz",
        "Hop": f"{hop:g} s" if hop else f"{length:.3g} s (windows follow one another)",
        "Last window": f"filled up: {identity.get('padding')}",
    }
    if speed != 1:
        found["Time expansion"] = f"played at {speed:g} times the speed"
    if identity.get("only_annotated"):
        found["Windows of"] = "annotated parts only"
    return found


def _checkpoint(found: Any) -> str:
    if not isinstance(found, dict):
        return str(found or "")  # a model of the user's own has no files that bacpipe knows
    return "; ".join(f"{name} (SHA-256 {str(digest)[:12]}…)" for name, digest in found.items())


def _predictions(results: ModelResults) -> dict[str, str]:
    lines = results.windows.lines.values()
    stored: dict[str, Any] = next((p for p in (x.get("predictions") for x in lines) if p), {})
    if "threshold" not in stored:
        return {}
    most = stored.get("top")
    return {"Predictions": f"scores from {stored['threshold']:g}, at most {most} per window"}
