# make demo    set up, then evaluate the built-in model on the shipped samples
# make test    set up, then lint, check types and test (SLOW=1 for everything)
# make quant   an environment with the libraries of quantised weights, on top of the first
# make peers   an environment with lm-evaluation-harness, on top of the first
# make bench NAME=parity
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
QUANT := .venv-quant
PEERS := .venv-peers

ifndef FAIRWAY_ASSETS
ifneq ($(wildcard ../shared/assets),)
export FAIRWAY_ASSETS := $(abspath ../shared/assets)
endif
endif

# What the CI tests besides, and a newcomer may leave away: llama.cpp is compiled, for minutes.
GGUF := $(VENV)/.gguf

.PHONY: demo test bench lint gguf quant peers

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all]' --group test
	touch $(STAMP)

# Where it cannot be built, tests that need it are skipped, and say what was printed here.
$(GGUF): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[gguf]' \
		'llama-cpp-python[server]' >$(VENV)/gguf.log 2>&1 \
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

# GPTQModel wants an older numpy: what it and the others need lies before what $(VENV) has. Where they
# cannot be installed the tests that need them say what pip said.
$(QUANT)/.installed: $(STAMP) constraints-quant.txt
	rm -rf $(QUANT)
	$(BIN)/python -m venv $(QUANT)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		"$$($(QUANT)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth"
	grep -v '^numpy==' constraints.txt | cat - constraints-quant.txt > $(QUANT)/constraints.txt
	if $(QUANT)/bin/python -m pip install --quiet -c $(QUANT)/constraints.txt -e '.[hf,quant]' \
		> $(QUANT)/install.log 2>&1; then touch $@; else tail -n 3 $(QUANT)/install.log; fi

quant: $(QUANT)/.installed

# lm-evaluation-harness with what its models behind servers need. What is there is kept and added to.
$(PEERS)/.installed: $(STAMP) constraints-peers.txt
	test -x $(PEERS)/bin/python || $(BIN)/python -m venv $(PEERS)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		"$$($(PEERS)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/base.pth"
	cat constraints.txt constraints-peers.txt > $(PEERS)/constraints.txt
	if $(PEERS)/bin/python -m pip install --quiet -c $(PEERS)/constraints.txt 'lm-eval[api]' \
		> $(PEERS)/install.log 2>&1; then touch $@; else tail -n 3 $(PEERS)/install.log; fi

peers: $(PEERS)/.installed

test: lint $(if $(SLOW),$(GGUF) quant peers)
	$(BIN)/python -m pytest $(if $(SLOW),,-m "not slow")

bench: $(STAMP)
	$(BIN)/python bench/$(NAME).py
