# Needs Python >= 3.11 and make. Each target sets up .venv the first time it is asked for.
PYTHON ?= python3
BIN := .venv/bin
SETUP := pyproject.toml constraints.txt
# All tests: on all cores, one process each. A choice of them, PYTEST="tests/test_house.py -k circle": in one process.
PYTEST ?= -n auto --dist worksteal

.PHONY: demo test check format docs clean

demo: .venv/.core
	$(BIN)/secateur run studies/digits.toml

test: .venv/.test
	$(BIN)/python -m pytest $(PYTEST)

check: .venv/.dev .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(PYTEST)

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python >= 3.11 is needed, but '$(PYTHON)' is older; try: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.core: $(SETUP) | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

.venv/.test: $(SETUP) | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

.venv/.dev: $(SETUP) | .venv/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

docs: .venv/.dev
	$(BIN)/python .ci/docs.py build/docs

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
