# Everything on a fresh machine with Python 3.11 (or newer) and make:
#   make demo       virtual environment, dependencies, the four models on a clip
#   make check      the same with the developers' tools, and the essential tests: two minutes
#   make test       all tests that are not slow, the essential ones among them: ten minutes
#   make test-slow  the slow ones, and more examples for those of hypothesis: four minutes
#   make proof      the four models trained on clips that differ in order alone: six minutes
#   make docs       the pages of docs/ as a site, in site/
#   make test-oldest  what make test runs, with the oldest versions that requirements.txt admits
#                     (Python 3.11, since newer ones have no wheels of some of them)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo check test test-slow test-oldest proof lint docs pillow-simd clean

demo: $(VENV)/.installed
	$(BIN)/python demo.py

check: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m essential

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "slow or hypothesis" --hypothesis-profile=thorough

test-oldest:
	mkdir -p $(VENV)-oldest
	sed -n 's/^\([a-z]*\)>=\([0-9.]*\).*/\1==\2/p' requirements.txt > $(VENV)-oldest/constraints.txt
	PIP_CONSTRAINT=$(abspath $(VENV)-oldest/constraints.txt) $(MAKE) VENV=$(VENV)-oldest test

# With the models, the table and the picture in proof/; stopped at any moment, it goes on.
proof: $(VENV)/.installed
	$(BIN)/python tools/proof.py --out proof

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The reference pages, into site/; a broken link is an error.
docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

# Pillow-SIMD is built from source (a C compiler and the headers of zlib and libjpeg are needed).
# It takes the place of Pillow, under the same module name, until a change of the requirements brings
# Pillow back.
pillow-simd: $(VENV)/.installed-dev
	$(BIN)/pip wheel --no-deps --no-binary pillow-simd --wheel-dir $(VENV)/wheels pillow-simd
	$(BIN)/pip uninstall --yes pillow
	$(BIN)/pip install --force-reinstall --no-deps --no-index --find-links $(VENV)/wheels pillow-simd
	$(BIN)/python -c "import PIL; assert '.post' in PIL.__version__, PIL.__version__; \
	print('Pillow-SIMD', PIL.__version__, 'is in use')"

$(VENV)/bin/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and \
	f'Python 3.11 or newer is needed, {sys.executable} is {sys.version.split()[0]}: \
	make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python requirements.txt
	$(BIN)/pip install --requirement requirements.txt
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(BIN)/pip install --requirement requirements-dev.txt
	touch $@

$(VENV)/.installed-docs: $(VENV)/bin/python requirements-docs.txt
	$(BIN)/pip install --requirement requirements-docs.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest build proof site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis demo.png
