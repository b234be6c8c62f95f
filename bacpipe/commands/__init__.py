"""Commands of the command line, one module each.

Every module has ``run(arguments) -> exit code``; it is imported when its command is called.
"""

from __future__ import annotations

# Name of a command, which is also its module's, with the help line.
COMMANDS = {
    "bench": "predict how long the models take for your recordings on this machine",
    "calls": "find the single calls of bats, with times, frequencies and species",
    "cite": "write the methods paragraph and BibTeX for a paper from results",
    "classes": "list the classes of a model, or the models that know a species",
    "dashboard": "look at and listen to stored results in the browser",
    "demo": "make the synthetic demo recordings and stop",
    "doctor": "say what this installation can do, for a bug report",
    "export": "write detections for other programs: species by site and day, Raven, Camtrap DP ...",
    "label": "write down what people heard, from a table or word by word, and export it",
    "models": "list the models, fetch their weights ahead, and check that each of them works",
    "recognisers": "list the recognisers that were trained here",
    "search": "find the windows that are most similar to a sound",
    "shards": "part a data set, work on it with many machines, and put the results together",
    "sites": "write a table of where the recorders stood, or check it",
    "species": "list the species that can be at a place and in a season",
    "suggest": "say which windows to listen to next, so that a recogniser learns most",
    "train": "train a recogniser on labelled windows",
    "verify": "check results against their journals, and say what to compute again",
}
