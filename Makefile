# Every target does its own set-up in .venv: nothing else is needed but Python 3.11 to 3.13.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,\
	$(shell $(p) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) and print("$(p)")' 2>/dev/null)))
BIN := .venv/bin

.PHONY: install lander board test check bench compare nemesis clean

install: .venv/installed  ## the suite and all it needs

lander: install  ## watch evolution strategies land the lunar lander on all cores
	$(BIN)/python es/experiment.py with lander

board: install  ## all runs in a browser, at localhost:9000
	$(BIN)/python store/board.py

test: .venv/tested  ## all tests; two files at a time, then those that need the machine for themselves
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone"
	$(BIN)/python -m pytest -m alone

check: .venv/tested  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: install  ## the short form of every benchmark; see benchmarks/RESULTS.md
	$(BIN)/python benchmarks/rollouts.py --quick
	$(BIN)/python benchmarks/gradient.py --quick
	$(BIN)/python benchmarks/store_speed.py --quick
	$(BIN)/python benchmarks/recording.py --quick
	$(BIN)/python benchmarks/workers.py --quick
	$(BIN)/python benchmarks/head.py --quick
	$(BIN)/python benchmarks/lander.py --quick

compare: install  ## ES, Nevergrad and GA on the tasks of distributed_es: a night on two cores
	$(BIN)/python benchmarks/compare_algorithms.py

nemesis: .venv/tested  ## many schedules of kills, cuts and forged messages; the table of benchmarks/RESULTS.md
	EVO_FUZZ=100000 EVO_KILLS=30 $(BIN)/python -m pytest tests/test_fuzz.py tests/test_resume.py
	$(BIN)/python tests/faults/matrix.py --log runs/nemesis.jsonl

.venv/installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11, 3.12 or 3.13 found: install one, or say make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

.venv/tested: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

clean:  ## remove the environment; runs/ stays
	rm -rf .venv
