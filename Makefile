# make quickstart   environment, then train, evaluate and predict on the bundled sample
# make test         environment, then the whole test suite
# Windows: the plain commands stand in README.md.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: quickstart test test-compat lint format clean

quickstart: $(VENV)/.user
	$(RUN) train.py --sample --overwrite_output_dir
	$(RUN) evaluate.py --sample --show_examples 3
	$(RUN) predict.py demo --sample

test: $(VENV)/.dev
	$(RUN) -m pytest

# the same suite under the last transformers before version 5
test-compat: .venv-compat/.dev
	.venv-compat/bin/python -m pytest

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(VENV)/.dev
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# a stamp: made again when the requirements change
$(VENV)/.user: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.user
	$(RUN) -m pip install -q -r requirements-dev.txt
	touch $@

.venv-compat/.dev: requirements-compat.txt
	$(PYTHON) -m venv .venv-compat
	.venv-compat/bin/python -m pip install -q -r requirements-compat.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-compat .pytest_cache .ruff_cache .hypothesis
