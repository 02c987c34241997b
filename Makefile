# Two commands do everything: `make demo` and `make test`. `make setup` does the set-up alone.
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
STAMP := $(VENV)/.ready

.PHONY: demo test setup lock lint docs clean

demo: $(STAMP)
	$(BIN)/snakemake --cores $(CORES)
	@$(BIN)/python -m defectflow.reporting.summary --leaderboard results/demo/leaderboard.csv

# Two processes, each with whole test files, the long ones first: most of the time goes into dry runs, which take one core
# each.
test: lint
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

setup: $(STAMP)

# Byte-compiled: where PYTHONDONTWRITEBYTECODE is set, importing anomalib takes 27 s without it and 8 s with it.
$(STAMP): requirements.lock pyproject.toml
	python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	SAM2_BUILD_CUDA=0 $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/snakemake --lint

# The site: site/index.html, to open from disk or to put on any server. Needs no network.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The environment for --sdm conda follows from the lock.
lock:
	$(BIN)/uv pip compile pyproject.toml --extra workflow --extra inspect --extra onnx --extra serve --extra opcua \
		--extra desk --extra dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet --output-file requirements.lock
	$(BIN)/python envs/from_lock.py

clean:
	rm -rf results .snakemake site
