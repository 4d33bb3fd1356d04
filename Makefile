# make book | test | serve | bench | clean: everything sets itself up in .venv.

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
# TensorFlow and PyTorch for the benchmarks, apart from the book: what is installed in .venv decides
# whether chapters are executed anew, and the tests take every warning for an error.
BENCH := .venv-bench
BIN := $(VENV)/bin
PORT ?= 8000
WORKERS ?= 2

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --extra book --extra test --group build --group weights

.PHONY: help book test check serve bench parity lock format clean

help:
	@echo "make book     set up, execute every chapter, write _build/html and _build/notebooks"
	@echo "make test     build the book, then style, types and every test, in a real browser too"
	@echo "make serve    serve the built book on http://127.0.0.1:$(PORT)"
	@echo "make bench    run the benchmarks against TensorFlow and PyTorch (installs them, apart)"
	@echo "make train-X  train what recipes/X.py says, anew (minutes; make train-structures)"
	@echo "make format   rewrite the code in the project's style"
	@echo "make lock     resolve requirements.lock anew"
	@echo "make clean    remove what was built (the environment stays)"

# The environment, made once and remade when what it consists of changes.
$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Trivium needs Python 3.11 or later; this is %s. Try: make PYTHON=python3.12" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what requirements.lock names into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# Large pages for malloc (glibc; ignored elsewhere): XLA asks anew for a program's whole scratch
# memory at every call, and small pages cost a training step of MiniLM a fifth of its time.
book: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
book: $(VENV)/.ready
	@$(BIN)/jupyter-book build --all -W -n --keep-going . || \
		{ echo "The book was not built: the messages above name the page and the cell." >&2; exit 1; }
	@echo "The book is at _build/html/index.html (make serve shows it); the notebooks are in _build/notebooks."

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The book comes first: the tests open the site that it writes.
test: check book
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

serve: $(VENV)/.ready
	@test -f _build/html/index.html || { echo "There is no book yet: run make book first." >&2; exit 1; }
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

# PyTorch and transformers beside the package, for the tests that compare with them.
parity: $(VENV)/.ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0

# The book's exact versions first, so that what is measured is what the book runs on.
$(BENCH)/.ready: requirements.lock pyproject.toml
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@echo "Installing the book's versions, TensorFlow and PyTorch into $(BENCH) ..."
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BENCH)/bin/uv pip install --quiet --python $(BENCH)/bin/python --no-deps --require-hashes -r requirements.lock
	@$(BENCH)/bin/uv pip install --quiet --python $(BENCH)/bin/python --no-build-isolation --editable ".[peers]"
	@touch $@

bench: $(BENCH)/.ready
	@for script in benchmarks/[!_]*.py; do echo "== $$script"; $(BENCH)/bin/python $$script || exit 1; done

# The trainings whose weights and records lie under recipes/. One that was stopped goes on.
train-%: $(VENV)/.ready
	$(BIN)/python recipes/$*.py

lock: $(VENV)/.ready
	$(LOCK) --upgrade pyproject.toml --output-file requirements.lock

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf _build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
