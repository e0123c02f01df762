# Every target sets itself up; Python >= 3.11 and a package registry are enough.
PYTHON ?= python3
VENV ?= .venv
DATA ?=
OUT ?= demo
BIN = $(VENV)/bin
# The tests of a file run in one process, because they share fixtures that take long to make. Three
# processes suit two cores: much of the time they wait for servers and for processes that they kill.
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile
READY = $(VENV)/.ready

.PHONY: demo serve quick test check bench docs clean

demo: $(READY)  ## draw scenes (or take DATA=folder), train, index, search, write a page of results
	$(BIN)/rsir demo --out $(OUT) $(if $(DATA),--data $(DATA))

serve: $(READY)  ## the same, and then serve the page with the map until Ctrl-C
	$(BIN)/rsir demo --out $(OUT) $(if $(DATA),--data $(DATA)) --serve

quick: $(READY)  ## the tests that need no browser, server, cluster, training or kill, and are not slow
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not (browser or server or cluster or training or kill or slow)"

test: $(READY)  ## all tests
	$(PYTEST)

check: $(READY)  ## what must pass before a commit: format, lint, types, all tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(PYTEST)

bench: $(READY)  ## search speed beside FAISS, USearch and LanceDB alone, and its growth
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/growth.py

docs: $(READY)  ## docs/cli.md from the shell's own help, the tables, and docs/pictures
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/screenshots.py

# uv takes the GPU build of torch from the registry. Plain pip may take a CPU wheel with which torchvision
# cannot be imported, so pip only installs uv. Without bytecode every process compiles torch anew.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rsir needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	@echo "installing rsir and its libraries: some 7 GB, a minute or two"
	$(BIN)/python -m uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --group dev --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) $(OUT) .mypy_cache .ruff_cache .pytest_cache .hypothesis
