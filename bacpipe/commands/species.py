"""``bacpipe species``: which species can be at a place."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from bacpipe.commands.arguments import HelpFormatter, own_settings, parse_words
from bacpipe.errors import SettingsError, counted

KEYS = ("latitude", "longitude", "week", "threshold", "model_base_path")
"""What the command takes."""


def run(arguments: Sequence[str]) -> int:
    """Print the list, the most probable species first."""
    parser = argparse.ArgumentParser(
        prog="bacpipe species",
        description="List the species that BirdNET's range model expects at a place, in one of the "
        "48 weeks of its year (four in each month) or, without week, at any time.",
        epilog="example:  bacpipe species latitude=52.52 longitude=13.40 week=20",
        formatter_class=HelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="key=value",
        help=f"{', '.join(KEYS)} (default of threshold: 0.03); latitude, longitude and "
        f"model_base_path are else those of settings.yaml in the current folder",
    )
    words = parser.parse_intermixed_args(arguments).words
    unknown = [key for key in parse_words(words) if key not in KEYS]
    if unknown:
        raise SettingsError(
            f"species has no key {unknown[0]!r}; the keys are {', '.join(KEYS)}. For the species "
            f"that can be at each site of your recordings, see places/species_range.parquet in "
            f"their results."
        )
    given = {key: value for key, value in own_settings(words).items() if key in KEYS}
    missing = [key for key in ("latitude", "longitude") if given.get(key) is None]
    if missing:
        raise SettingsError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; expected "
            f"degrees, as in bacpipe species latitude=52.52 longitude=13.40 week=20."
        )
    from bacpipe.places.species_range import not_covered, species_at

    table = species_at(**given)
    for scientific, common, probability in table.to_numpy().tolist():
        number = "     " if math.isnan(probability) else f"{probability:.3f}"
        print(f"{number}  {common} ({scientific})")  # noqa: T201
    season = "at any time" if given.get("week") is None else f"in week {given['week']}"
    print(  # noqa: T201
        f"\n{counted(int(table['probability'].notna().sum()), 'species', 'species')} {season}; "
        f"nothing is known of {len(not_covered())} others of BirdNET (animals that are no birds, "
        f"sounds, and some birds of islands and highlands), which may be there, too."
    )
    return 0
