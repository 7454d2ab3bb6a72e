# make help lists the targets. Each makes .venv on first use, and again when setup.py or constraints.txt change.
#
# PYTHON     the interpreter that makes .venv:      make test PYTHON=python3.12
# PIP_ARGS   more options for pip. On Linux, PyPI's torch is the CUDA build, several GB; for the CPU build:
#            make test PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# WORKERS    processes that run the tests; each keeps torch to one thread

PYTHON ?= python3
PIP_ARGS ?=
WORKERS ?= 2

BIN := .venv/bin
INSTALLED := .venv/.installed
LINT := build/lint
# label_efficiency takes hours; pretrain and sampling need a corpus, da_boundary a model. Their --help says how to run them.
BENCHMARKS := $(addprefix benchmarks/,layers.py adaptivity.py plain_unet.py preprocess.py rope_intervals.py metrics.py)
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench clean

help:
	@echo "make demo      the whole pipeline on the embedded data"
	@echo "make test      the quick tests"
	@echo "make test-all  the slow ones too"
	@echo "make lint      formatting, lint and types"
	@echo "make bench     side by side with others"
	@echo "make clean     remove builds and caches (.venv stays)"

# Torch goes first and alone, so that no other package decides which build of it comes. The tests compare with the
# evaluator of medmnist, which imports scikit-learn and pandas, both here; its data sets need torchvision, which is not.
$(INSTALLED): setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt --no-deps medmnist
	touch $@

demo: $(INSTALLED)
	$(BIN)/spadunet_demo

test: $(INSTALLED)
	$(PYTEST) -m "not slow and not gpu"

test-all: $(INSTALLED)
	$(PYTEST)

# mypy sees the package as installed: only then do the stage folders have their names. What that leaves in build/ goes
# in any case, since setuptools would put old files from there into the next wheel.
lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@set -e; rm -rf build; trap 'rm -rf "$(CURDIR)/build"' EXIT; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target $(LINT) .; \
	cd $(LINT); echo "mypy -p spadunet"; \
	"$(CURDIR)/$(BIN)/mypy" --config-file "$(CURDIR)/pyproject.toml" --cache-dir "$(CURDIR)/.mypy_cache" -p spadunet

bench: $(INSTALLED)
	@set -e; for file in $(BENCHMARKS); do echo "== $$file"; $(BIN)/python $$file; done

clean:
	rm -rf build dist *.egg-info .cache .mypy_cache .pytest_cache .ruff_cache .coverage htmlcov
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
