# `make run` and `make test` do everything on a fresh machine, set-up included.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
LABEL_STUDIO := $(CURDIR)/.venv-label-studio/bin/label-studio
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo -n)

.PHONY: run demo test quick-test browser-test chromium checks lint types contract scripts docs benchmarks clean

run: $(VENV)/.runtime
	@exec $(BIN)/refcut run

# With a real Label Studio (about 1 GB, in an environment of its own) and two projects to click in.
demo: $(VENV)/.runtime .venv-label-studio/.installed
	@exec $(BIN)/refcut demo

# Tests run in several processes, the files with the longest first (tests/conftest.py): one more than two cores need, as
# many tests wait for a process or for time to pass. `make test JOBS=0` takes one process.
JOBS ?= 3
# Else every one of the many processes that tests start compiles the project anew.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# Runs $(2), and beside it `make $(1)`, whose output appears as soon as it fails.
BESIDE = @mkdir -p build; \
  ($(MAKE) --no-print-directory $(1) >build/checks.log 2>&1 || { cat build/checks.log >&2; exit 1; }) & \
  checks=$$!; $(2); tests=$$?; wait $$checks || { echo "make $(1) failed, see above" >&2; exit 1; }; exit $$tests

# Everything, a real Label Studio and a real browser among it.
test: $(VENV)/.development .venv-docs/.installed .venv-label-studio/.installed chromium
	$(call BESIDE,checks docs,REFCUT_LABEL_STUDIO=$(LABEL_STUDIO) $(PYTEST) -rs)

# Without Label Studio, the browser, whole backends and what is marked as slow.
quick-test: $(VENV)/.development
	$(call BESIDE,checks,$(PYTEST) --ignore=tests/end_to_end --ignore=tests/integration -m "not slow")

browser-test: $(VENV)/.development .venv-label-studio/.installed chromium
	REFCUT_LABEL_STUDIO=$(LABEL_STUDIO) $(BIN)/python -m pytest -rs tests/end_to_end

# Debian's package. Where it cannot be had, the browser tests are skipped and pytest says so.
chromium:
	@command -v chromium >/dev/null || { $(AS_ROOT) apt-get update -qq && \
	  $(AS_ROOT) apt-get install -y -qq --no-install-recommends chromium; } || \
	  echo "chromium is not installed: the browser tests will be skipped" >&2

.venv-label-studio/.installed: | $(VENV)/.runtime
	$(PYTHON) -m venv .venv-label-studio
	.venv-label-studio/bin/python -m pip install --quiet label-studio==1.23.2
	$(BIN)/refcut demo --prepare
	@touch $@

checks: $(VENV)/.development
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint types contract scripts

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.development
	$(BIN)/mypy

# Who may import whom: the contracts in pyproject.toml.
contract: $(VENV)/.development
	$(BIN)/lint-imports --no-cache

# Types of the scripts of the pages, by TypeScript from npm's registry, for this check alone.
TYPESCRIPT := tests/typescript
scripts:
	@if ! command -v npm >/dev/null; then \
	  echo "npm is not installed: the types of the pages' scripts are not checked" >&2; \
	elif ! $(MAKE) --silent $(TYPESCRIPT)/node_modules/.installed; then \
	  echo "TypeScript cannot be installed: the types of the pages' scripts are not checked" >&2; \
	else $(TYPESCRIPT)/node_modules/.bin/tsc --project $(TYPESCRIPT); fi

$(TYPESCRIPT)/node_modules/.installed: $(TYPESCRIPT)/package-lock.json
	npm ci --prefix $(TYPESCRIPT) --silent --no-audit --no-fund
	@touch $@

# All benchmarks that need no external data, against a baseline, into build/benchmarks.md: hours, on a quiet machine.
# `make benchmarks BASELINE=<commit> ONLY="click_latency brush_rle"` (benchmarks/README.md).
benchmarks: $(VENV)/.development
	$(BIN)/python -m benchmarks.run_all $(if $(BASELINE),--baseline $(BASELINE)) $(if $(ONLY),--only $(ONLY))

# The documentation site, in site/. A link that leads nowhere is an error.
docs: $(VENV)/.runtime .venv-docs/.installed
	$(BIN)/python docs/site.py build/docs
	.venv-docs/bin/zensical build --clean --strict

.venv-docs/.installed: requirements-docs.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --requirement requirements-docs.txt
	@touch $@

# torch with CUDA takes 5 GB. A machine without an NVIDIA driver gets the build for processors, where it can be had.
# `make run CPU_WHEELS=` takes what the package index has; another index of such builds may be named instead.
CPU_WHEELS ?= https://download.pytorch.org/whl/cpu
TORCH_FOR_CPU := $(shell sed -nE 's/^(torch|torchvision)==([0-9.]+)$$/\1==\2+cpu/p' requirements.txt)

# Exact versions of what the requirements bring along. It is no lock file with hashes: torch comes from one of several
# indexes, whose files differ, and pip asks for the hash of every file or of none. After a change of a requirement:
# `make clean .venv/.development CONSTRAINTS=/dev/null`, then `.venv/bin/python -m tests.support.constraints >constraints.txt`.
CONSTRAINTS ?= constraints.txt

$(VENV)/.runtime: requirements.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@if [ -e /proc/driver/nvidia/version ]; then echo "NVIDIA driver found: installing torch with CUDA"; \
	elif [ -n "$(CPU_WHEELS)" ] && $(BIN)/python -m pip install --quiet --no-deps --retries 0 --timeout 20 \
	  --index-url $(CPU_WHEELS) $(TORCH_FOR_CPU) 2>/dev/null; \
	then echo "No NVIDIA driver: installed torch for processors from $(CPU_WHEELS)"; \
	else echo "Installing torch from the package index"; fi
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --constraint $(CONSTRAINTS)
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.development: $(VENV)/.runtime requirements-dev.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt --constraint $(CONSTRAINTS)
	@touch $@

clean:
	rm -rf $(VENV) .venv-docs .venv-label-studio $(TYPESCRIPT)/node_modules .cache build site refcut-state refcut-demo *.egg-info
