"""Mark damaged results, so that the next run computes exactly these again.

Nothing is deleted: the journal takes back what it says of them, and what has no journal is laid
aside under another name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from bacpipe.store.ledger import Ledger
from bacpipe.store.lock import exclusive
from bacpipe.store.sets import EmbeddingSet
from bacpipe.store.verification import Finding


def repair_results(findings: Iterable[Finding]) -> int:
    """Mark what was found to be damaged.

    Parameters
    ----------
    findings : iterable of Finding
        What `verify_results` returned.

    Returns
    -------
    int
        Number of findings that are mended by the next run because of this.

    Raises
    ------
    ResultsLockedError
        If a run is writing to these results.
    """
    by_folder: dict[Path, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.folder is not None:
            by_folder[finding.folder].append(finding)
    return sum(_repair(folder, found) for folder, found in by_folder.items())


def _repair(folder: Path, findings: Sequence[Finding]) -> int:
    if any(finding.what == "map" for finding in findings):
        _lay_aside(folder / "metadata.yml")
        return len(findings)
    found = EmbeddingSet(folder)
    with exclusive(folder.parent, _model_of(found)):
        found.reload()
        if found.identity is None:
            return sum(_lay_aside(finding.path) for finding in findings)
        ledger = Ledger(folder, found.content.recordings)
        try:
            return sum(_mark(ledger, finding) for finding in findings)
        finally:
            ledger.close()


def _mark(ledger: Ledger, finding: Finding) -> bool:
    line = ledger.lines.get(finding.recording or "")
    if finding.what == "tables":
        ledger.append({"tables": {}})
    elif line is None or line["status"] != "done":
        return False  # a run has been there since
    elif finding.what == "embeddings":
        ledger.append({**line, "status": "damaged"})
    elif line.get("predictions"):
        ledger.append({**line, "predictions": None})
    return True


def _lay_aside(path: Path) -> bool:
    if not path.is_file():
        return False
    path.replace(path.with_name(f"{path.name}.damaged"))
    return True


def _model_of(found: EmbeddingSet) -> str:
    """Name of the model, after which the lock is called."""
    header = found.content.header
    if found.identity is not None:
        return str(found.identity["model"])
    return str(header["old_metadata"]["model_name"])
