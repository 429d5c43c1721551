# make quickstart   environment, then train, evaluate and predict on the bundled sample
# make test         environment, then the whole test suite
# make test-web     the page in a browser, where Chromium is there, and its interface by its own description
# make test-js      exported models in transformers.js, under Node, where that is there
# make test-slow    every fault that the tests try on purpose, the slow ones too, counted
# make constraints  constraints.txt and constraints-compat.txt: the version of every package, dependencies of dependencies too
# make audit        known vulnerabilities of everything that is installed, asked of pypi.org
# make coverage     line coverage by the test suite, the processes that it starts counted too
# make mutation     mutmut on windows, spans and scores: do the tests notice a change? An hour or more, it resumes
# make bench        both sides' environments, then every comparison and its table
# Windows: the plain commands stand in README.md.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# the index of torch's builds: on Linux the one of PyPI is for CUDA and has gigabytes, on Windows it has no CUDA
TORCH_INDEX ?= https://download.pytorch.org/whl/$(if $(shell command -v nvidia-smi),cu130,cpu)
TORCH := torch==2.13.0
# what single targets need on top of the requirements
BROWSER := playwright==1.65.2 schemathesis==4.32.5
AUDIT := pip-audit==2.10.1
UV := uv==0.13.9

.PHONY: quickstart test test-web test-js screenshots test-slow coverage mutation test-compat lint format constraints \
	audit bench clean

quickstart: $(VENV)/.user
	$(RUN) train.py --sample --overwrite_output_dir
	$(RUN) tools/export_onnx.py --sample
	$(RUN) evaluate.py --sample --show_examples 3 --report
	$(RUN) predict.py demo --sample
	@echo "Next: python download_data.py (about 165 MB), then python train.py; or a text of yours: $(RUN) predict.py --sample"

# one thread a process: as many processes as cores run beside each other
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto

# Debian: apt-get install chromium fonts-noto-cjk
test-web: $(VENV)/.web
	$(RUN) -m pytest tests/web

# docs/page_*.png, as a user sees the page
screenshots: $(VENV)/.web
	$(RUN) dev/screenshots.py

$(VENV)/.web: $(VENV)/.dev
	$(RUN) -m pip install -q -c constraints.txt $(BROWSER)
	touch $@

# of the Hub's clients that load what tools/export_onnx.py writes. The scripts of its packages would fetch CUDA
test-js: $(VENV)/.dev .node/.made
	$(RUN) -m pytest -m "slow or not slow" tests/export

.node/.made:
	npm install --prefix .node --ignore-scripts --no-audit --no-fund @huggingface/transformers@4.3.2
	touch $@

# every fault that is tried on purpose, the long tests too; the table goes into docs/RESULTS.md
test-slow: $(VENV)/.dev
	$(RUN) -m pytest -n auto -m "slow or fault" --faults_table=docs/RESULTS.md

# processes that are killed can't tell what they ran; files are named, so that one that no test imports counts too
coverage: $(VENV)/.dev
	$(RUN) -m coverage erase
	$(RUN) -m coverage run -m pytest
	$(RUN) -m coverage combine --quiet
	@$(RUN) -m coverage report $(wildcard *.py utils/*.py extractive_qa/*.py extractive_qa/*/*.py)

# by hand, after larger changes; lists what no test noticed. One of them: mutmut show NAME
mutation: $(VENV)/.dev
	$(RUN) -m mutmut run
	$(RUN) -m mutmut results

# the same suite under the last transformers before version 5
test-compat: .venv-compat/.dev
	.venv-compat/bin/python -m pytest

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache --no-logo

format: $(VENV)/.dev
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

# After a change of the requirements, which name these files: of a folder where they name nothing yet. The versions fit
# every system and every Python from 3.11 on (--universal). Not listed is what only builds of torch for CUDA need, which
# name the exact versions themselves, others each; nor pip, which comes with Python.
PINS := .venv-constraints/pins
COMPILE := ../bin/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate
LISTED := grep -v -E '^(cuda|nvidia|triton|pip=)'
NOTE := \# One version of every package, dependencies of dependencies too. Written by make constraints; the requirements name it.

constraints: .venv-constraints/.made
	rm -rf $(PINS) && mkdir $(PINS) && cp requirements*.txt $(PINS) && touch $(PINS)/constraints.txt \
	$(PINS)/constraints-compat.txt
	printf '%s\n' $(BROWSER) $(AUDIT) $(UV) > $(PINS)/requirements-single.txt
	cd $(PINS) && $(COMPILE) requirements-dev.txt requirements-ray.txt requirements-single.txt > all.txt
	cd $(PINS) && $(COMPILE) requirements-peers.txt > all-compat.txt
	(echo '$(NOTE)' && $(LISTED) $(PINS)/all.txt) > constraints.txt
	(echo '$(NOTE)' && $(LISTED) $(PINS)/all-compat.txt) > constraints-compat.txt

.venv-constraints/.made:
	$(PYTHON) -m venv .venv-constraints
	.venv-constraints/bin/python -m pip install -q $(UV)
	touch $@

# What the environment really holds, dependencies of dependencies too. --strict: a package that pypi.org could not be
# asked about is an error; without it pip-audit passes such packages over and reports that nothing was found.
audit: $(VENV)/.user .venv-audit/.made
	$(RUN) -m pip list --format=freeze --exclude-editable > .venv-audit/listed.txt
	sed 's/+.*//' .venv-audit/listed.txt > .venv-audit/installed.txt  # torch 2.13.0+cpu is torch 2.13.0 there
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r .venv-audit/installed.txt || \
	{ echo "make audit: not passed. Either vulnerabilities are listed above, or pypi.org could not be asked (ERROR or" \
	"Traceback above): then nothing is known. Try again where it can be reached." >&2; exit 1; }

.venv-audit/.made:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install -q -c constraints.txt $(AUDIT)
	touch $@

# a stamp: made again when the requirements change
$(VENV)/.user: requirements.txt constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): torch from $(TORCH_INDEX)"
	@echo "(200 MB for a CPU, gigabytes with CUDA; another one: make TORCH_INDEX=...), then 300 MB of other packages."
	$(RUN) -m pip install $(TORCH) --no-deps -c constraints.txt --index-url $(TORCH_INDEX) --retries 1 --timeout 15 || \
	echo "torch's index can't be reached: taking what the package index has."
	$(RUN) -m pip install -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt requirements-documents.txt requirements-web.txt $(VENV)/.user
	$(RUN) -m pip install -q -r requirements-dev.txt
	touch $@

.venv-compat/.dev: requirements-compat.txt constraints-compat.txt
	$(PYTHON) -m venv .venv-compat
	.venv-compat/bin/python -m pip install -q -r requirements-compat.txt
	touch $@

# ours and common implementations in turn; those run in an environment of their own. The table says who is ahead.
BENCHMARKS := preparing spans training answering documents
RANDOM_READER := models/mobilebert-random-reader

bench: $(VENV)/.dev .venv-peers/.made $(RANDOM_READER)/onnx.json
	for name in $(BENCHMARKS); do $(RUN) benchmarks/speed/$$name.py || exit 1; done
	$(RUN) benchmarks/table.py

# nothing is lost by the check of answers that are random anyway
$(RANDOM_READER)/onnx.json: $(VENV)/.dev
	test -d models/mobilebert-random || $(RUN) dev/make_random_model.py
	$(RUN) benchmarks/harness.py
	$(RUN) tools/export_onnx.py --model_dir $(RANDOM_READER) --eval_file data/sample/dev.json --force

.venv-peers/.made: requirements-peers.txt requirements-compat.txt constraints-compat.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q -r requirements-peers.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-compat .venv-peers .venv-audit .venv-constraints .node mutants .pytest_cache .ruff_cache \
	.hypothesis
