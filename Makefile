# Everything here sets itself up: Python >= 3.11 and a package registry are all it needs.
PYTHON ?= python3
VENV ?= .venv
DATA ?=
OUT ?= demo
BIN = $(VENV)/bin
# A file of tests stays in one process, for its tests share what takes long to make. Three do well on
# two cores: much of the time they wait, for servers and for processes that they kill.
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile
READY = $(VENV)/.ready

.PHONY: demo serve test check bench docs clean

demo: $(READY)  ## generated scenes (or DATA=folder): train, index, search, a page of results
	$(BIN)/rsir demo --out $(OUT) $(if $(DATA),--data $(DATA))

serve: $(READY)  ## the same, and then the page with the map on its archive, until Ctrl-C
	$(BIN)/rsir demo --out $(OUT) $(if $(DATA),--data $(DATA)) --serve

test: $(READY)  ## the tests
	$(PYTEST)

check: $(READY)  ## what must pass before a commit: style, types, tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(PYTEST)

bench: $(READY)  ## search speed beside FAISS, USearch and LanceDB alone, and how it grows
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/growth.py

docs: $(READY)  ## docs/cli.md from the shell's own help, the tables, and docs/pictures
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/screenshots.py

# uv resolves the GPU build of torch from the registry; plain pip may pick a CPU wheel that
# torchvision cannot be imported with, so pip is only used to get uv.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rsir needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group dev --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) $(OUT) .mypy_cache .ruff_cache .pytest_cache .hypothesis
