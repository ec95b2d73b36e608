# make demo    set up, then evaluate the built-in model on the shipped samples
# make test    set up, then lint, check types and test (SLOW=1 for everything)
# make bench NAME=parity
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

ifndef FAIRWAY_ASSETS
ifneq ($(wildcard ../shared/assets),)
export FAIRWAY_ASSETS := $(abspath ../shared/assets)
endif
endif

# What the CI tests besides, and a newcomer may leave away: llama.cpp is compiled, for minutes.
GGUF := $(VENV)/.gguf

.PHONY: demo test bench lint gguf

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all]' --group test
	touch $(STAMP)

# Where it cannot be built, tests that need it are skipped, and say what was printed here.
$(GGUF): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[gguf]' >$(VENV)/gguf.log 2>&1 \
		|| tail -n 5 $(VENV)/gguf.log
	touch $(GGUF)

gguf: $(GGUF)

demo: $(STAMP)
	$(BIN)/fairway eval --data sample:all --group-by domain
	$(BIN)/fairway score --tokens "The committee adopted the budget, and then it adopted a small green dragon."

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint $(if $(SLOW),$(GGUF))
	$(BIN)/python -m pytest $(if $(SLOW),,-m "not slow")

bench: $(STAMP)
	$(BIN)/python bench/$(NAME).py
