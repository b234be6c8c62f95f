# The few commands of a developer; .ci/run does all of them in fresh environments.
PYTHON ?= python3
BIN := .venv/bin

setup:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt -e ".[test]"

test:
	$(BIN)/python -m pytest -n 2 --dist loadfile

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: setup test check format
