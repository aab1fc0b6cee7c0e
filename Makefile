# make train      the default recipe, from nothing to its verified integer file
# make test       the tests
# make lint       style
# make benchmark  timings
# make clean      removes the environment and what runs left
#
# Each makes the environment .venv first where it is missing. TORCH is the build of torch in it, the CPU one by default:
#   make train TORCH=torch==2.13.0+cu130
# The part behind + names the index it comes from; TORCH_INDEX=URL gives another one. An environment keeps its build
# until TORCH asks for another.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= $(or $(shell cat .venv/installed-* 2>/dev/null),torch==2.13.0)
TORCH_BUILD := $(or $(word 2,$(subst +, ,$(TORCH))),cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/$(TORCH_BUILD)

BIN := .venv/bin
# One stamp per build of torch, so that another TORCH installs anew.
STAMP := .venv/installed-$(subst =,-,$(notdir $(TORCH)))

.PHONY: train test lint benchmark clean

train: $(STAMP)
	$(BIN)/qat-train $(ARGS)

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

benchmark: $(STAMP)
	for script in tests/benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# torch comes first and alone, since the package index serves a CUDA build of several GB on Linux. Where the index of
# builds cannot be reached, a wheel that pip finds elsewhere (find-links, a mirror) is as good.
$(STAMP): pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --retries 1 --index-url $(TORCH_INDEX) "$(TORCH)" \
		|| $(BIN)/python -m pip install --no-deps "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	rm -f .venv/installed-*
	echo "$(TORCH)" > $@

clean:
	rm -rf .venv outputs multirun build dist *.egg-info .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
