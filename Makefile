# `make run` and `make test` do everything on a fresh machine, set-up included.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run demo test browser-test lint types clean

run: $(VENV)/.runtime
	@exec $(BIN)/refcut run

# With a real Label Studio (about 1 GB, in an environment of its own) and two projects to click in.
demo: $(VENV)/.runtime .venv-label-studio/.installed
	@exec $(BIN)/refcut demo

test: $(VENV)/.development lint types
	$(BIN)/python -m pytest --ignore=tests/end_to_end

# A real Label Studio (about 1 GB, in an environment of its own) and Debian's package chromium.
browser-test: $(VENV)/.development .venv-label-studio/.installed
	@command -v chromium >/dev/null || { echo "install Debian's package chromium first" >&2; exit 1; }
	REFCUT_LABEL_STUDIO=$(CURDIR)/.venv-label-studio/bin/label-studio $(BIN)/python -m pytest tests/end_to_end

.venv-label-studio/.installed:
	$(PYTHON) -m venv .venv-label-studio
	.venv-label-studio/bin/python -m pip install --quiet label-studio==1.23.2
	@touch $@

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.development
	$(BIN)/mypy

$(VENV)/.runtime: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.development: $(VENV)/.runtime requirements-dev.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) .venv-label-studio refcut-state refcut-demo *.egg-info
