# make demo | make test | make toy-model: each sets up its own virtual environment first.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test slow long gpu check format toy-model clean

demo: $(INSTALLED)
	$(BIN)/regen_train demo $(if $(VIDEO),--video "$(VIDEO)") $(if $(SIGNALS),--signals "$(SIGNALS)") $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow and not long and not gpu and not weights" $(ARGS)

slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and not long and not gpu and not weights" $(ARGS)

long: $(INSTALLED)
	$(BIN)/python -m pytest -m "long and not gpu and not weights" --timeout 3600 $(ARGS)

gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m "gpu and not weights" --timeout 3600 $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

toy-model: $(INSTALLED)
	$(BIN)/python -m regen_train.toy.making --output toy_model $(ARGS)

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
