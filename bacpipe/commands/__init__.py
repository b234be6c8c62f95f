"""Commands of the command line, one module each.

Every module has ``run(arguments) -> exit code``; it is imported when its command is called.
"""

from __future__ import annotations

# Name of a command, which is also its module's, with the help line.
COMMANDS = {
    "bench": "predict how long the models take for your recordings on this machine",
    "calls": "find the single calls of bats, with times, frequencies and species",
    "dashboard": "look at and listen to stored results in the browser",
    "demo": "make the synthetic demo recordings and stop",
    "doctor": "say what this installation can do, for a bug report",
    "label": "write down what people heard, from a table or word by word, and export it",
    "models": "list the models, fetch their weights ahead, and check that each of them works",
    "recognisers": "list the recognisers that were trained here",
    "suggest": "say which windows to listen to next, so that a recogniser learns most",
    "train": "train a recogniser on labelled windows",
    "verify": "check results against their journals, and say what to compute again",
}
