"""Commands of the command line, one module each.

Every module has ``run(arguments) -> exit code``; it is imported when its command is called.
"""

from __future__ import annotations

# Name of a command, which is also its module's, with the help line.
COMMANDS = {
    "bench": "predict how long models take for your recordings here",
    "calls": "find the single calls of bats: times, frequencies, species",
    "cite": "write the methods paragraph and BibTeX of a paper",
    "classes": "list the classes of a model, or the models of a species",
    "dashboard": "look at and listen to stored results in the browser",
    "demo": "make the synthetic demo recordings and stop",
    "doctor": "say what this installation can do, for a bug report",
    "export": "write species by site and day, or tables of other programs",
    "label": "write down what people heard, and export it",
    "models": "list the models, fetch their weights, check that they work",
    "recognisers": "list the recognisers that were trained here",
    "search": "find the windows that are most similar to a sound",
    "shards": "part a data set, and work on it with many machines",
    "sites": "write a table of where the recorders stood, or check it",
    "species": "list the species that can be at a place and in a season",
    "suggest": "say which windows teach a recogniser most",
    "train": "train a recogniser on labelled windows",
    "verify": "check results, and say what to compute again",
}
