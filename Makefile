# Everything runs in .venv, which `make setup` builds. No recipe uses a pipe, so no failure is hidden by one.
#   make book PYTHON=python3.12      another interpreter for the virtual environment
#   make tables GRIDS="photos*"          other experiments than those of the digits
#   make setup CONSTRAINTS=          the newest dependencies, not those that are known to work
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# what `make tables` makes: names of grids, patterns, or "paper" for all of them
GRIDS  ?= digits evidence*
SOURCES := $(sort $(wildcard notebooks/[0-9]*.py))
# what `make check` runs: tests of a few seconds that touch most of the package
FAST   := $(addprefix tests/,book data/test_subsets.py distillers io/test_checkpoints.py io/test_stop.py \
  parity prior/test_class_matching.py prior/test_losses.py test_augment.py test_config.py \
  test_networks.py test_sampler.py test_synthetic.py trust/test_labels.py trust/test_values.py) \
  --ignore=tests/parity/test_networks.py --ignore=tests/book/test_links.py

# what is read and not run
define STATIC
	"$(BIN)/ruff" format --check .
	"$(BIN)/ruff" check .
	"$(BIN)/lint-imports" --no-cache
	"$(BIN)/mypy" -p ld3m_min
	"$(BIN)/codespell"
endef

# the environment's own kernel, whatever kernelspecs the user has
export JUPYTER_PREFER_ENV_PATH := 1

.DEFAULT_GOAL := help
.PHONY: help setup check book build-book test-code pdf test test-matrix mutations bench explorers soak notebooks table table-run tables clean

help:  ## list the targets
	@echo "usage: make TARGET [PYTHON=python3.12]"
	@echo
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv and install everything (first time: a few minutes)

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "error: '$(PYTHON)' was not found. Install Python 3.11 or newer, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed; '$(PYTHON)' is older. Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@if "$(BIN)/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	  echo "==> using the virtual environment in $(VENV)"; \
	else \
	  echo "==> creating a virtual environment in $(VENV)"; \
	  "$(PYTHON)" -m venv --clear "$(VENV)" || { \
	    echo "error: the venv module failed; on Debian and Ubuntu install the package python3-venv, then repeat" >&2; exit 1; }; \
	fi
	@echo "==> installing (PyTorch is the largest part; a few minutes the first time)"
	"$(BIN)/python" -m pip install --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS)) -e '.[notebooks,book,test]'
	@touch "$(STAMP)"

check: $(STAMP)  ## before each commit, under a minute: format, lint, imports, types, fast tests
	$(STATIC)
	OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest $(FAST)

book: export LD3M_REPOSITORY = $(REPOSITORY)
book: $(STAMP)  ## distil once (the quickstart), build the book, print the accuracies
	@mkdir -p runs
	@echo "==> 1/3 running the quickstart: a real distillation, a few minutes on two cores"
	"$(BIN)/papermill" notebooks/00_quickstart.ipynb runs/quickstart.ipynb --cwd notebooks -k python3
	@echo "==> 2/3 building the book"
	OMP_NUM_THREADS=1 "$(BIN)/jupyter-book" build . -W -n --keep-going
	@echo "==> 3/3 the result"
	@"$(BIN)/python" tools/print_summary.py

pdf: $(STAMP)  ## print the whole book to _build/ld3m-book.pdf (needs Chromium)
	OMP_NUM_THREADS=1 "$(BIN)/jupyter-book" build . --builder singlehtml
	"$(BIN)/python" tools/print_book.py

test: $(STAMP)  ## everything that must hold: lint, types, unit tests, notebooks, the book and its links
	@echo "==> 1/3 ruff, imports, types"
	$(STATIC)
	@echo "==> 2/3 together: unit tests, then notebooks, outputs compared with the committed ones; building the book"
	$(MAKE) -j2 test-code build-book
	@echo "==> 3/3 the built book: links, pages, offline reading"
	LD3M_BOOK=1 "$(BIN)/python" -m pytest tests/book/test_links.py tests/book/test_browser.py -n auto --dist worksteal
	@echo "==> all passed"

# the book is built by one process: the tests keep the other cores busy
test-code: $(STAMP)
	OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest tests --ignore=tests/book/test_links.py -n auto --dist worksteal
	OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest --nbval notebooks/ -n auto --dist loadfile

build-book: $(STAMP)
	OMP_NUM_THREADS=1 "$(BIN)/jupyter-book" build . --all -W -n --keep-going

test-matrix: $(STAMP)  ## the numeric tests under the other instruction sets that this machine has, and with two threads
	"$(BIN)/python" tools/test_matrix.py

mutations: $(STAMP)  ## break twenty important lines, one at a time: a test must notice each
	"$(BIN)/python" tools/mutations.py

bench: $(STAMP)  ## measure speed and memory into book/_data/records (DEVICE=cuda on a GPU)
	"$(BIN)/python" -m benchmarks --again --device $(or $(DEVICE),cpu)
	@test "$(or $(DEVICE),cpu)" != cpu || "$(BIN)/python" -m benchmarks.networks --repeats 2 --runs 3

explorers: $(STAMP)  ## make what the explorers of the book show (a quarter of an hour of one core)
	OMP_NUM_THREADS=1 "$(BIN)/python" tools/make_explorers.py

soak: $(STAMP)  ## the long form of the tests of faults: kills, damage, hostile files (up to 20 minutes)
	"$(BIN)/python" tools/soak.py

notebooks: $(STAMP)  ## write each .ipynb anew from its .py twin and execute it
	@test -n "$(SOURCES)" || { echo "error: no notebooks/NN_*.py found" >&2; exit 1; }
	"$(BIN)/jupytext" --to ipynb --update $(SOURCES)
	"$(BIN)/python" tools/execute.py $(SOURCES:.py=.ipynb)

table: $(STAMP)  ## print the table of results from the committed records
	"$(BIN)/python" -m ld3m_min table

tables: $(STAMP)  ## make what is missing on all cores, and print the tables (GRIDS="digits evidence*")
	"$(BIN)/snakemake" --config 'grids=$(GRIDS)'
	"$(BIN)/python" -m ld3m_min table --grid '$(GRIDS)'

table-run: $(STAMP)  ## make the records that are missing (resumable, up to an hour on two cores)
	"$(BIN)/python" -m ld3m_min table --run

clean:  ## remove built pages, the quickstart's outputs and caches (keeps .venv and your other runs)
	rm -rf _build runs/quickstart runs/quickstart.ipynb .pytest_cache .ruff_cache .mypy_cache build
	find ld3m_min notebooks tests tools book -name __pycache__ -type d -prune -exec rm -rf {} +
	find notebooks book -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
