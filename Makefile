# Two commands do everything: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
JOBS ?= 2

.PHONY: demo test test-launchers lint types core mutants nightly fuzz torture bench clean

# Digits on two DDP ranks: the plan, the run, and the comparison of the two. Interrupt it and run it again.
demo: $(INSTALLED)
	$(BIN)/flexcore plan examples/digits.py --probe --world-size 2
	$(BIN)/flexcore run examples/digits.py --nproc 2 --quiet
	$(BIN)/flexcore report work_dirs/digits

test: lint types
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# Real srun, mpirun and torchrun; installs Slurm and two MPIs, and needs root for it.
test-launchers: $(INSTALLED)
	tests/launchers/install.sh
	$(BIN)/python -m pytest tests/launchers -v

lint: $(INSTALLED)
	$(BIN)/ruff check flexcore shell tests benchmarks examples
	$(BIN)/ruff format --check flexcore shell tests benchmarks

types: $(INSTALLED)
	$(BIN)/mypy -p flexcore

# The core alone, with its branch coverage.
core: $(INSTALLED)
	$(BIN)/coverage run -m pytest tests/flexcore
	$(BIN)/coverage report --show-missing --skip-covered --fail-under=100

# 2,000 examples a law, 10,000 schedules, every combination of engines, and mmengine itself beside ours in an environment of its own.
nightly: $(INSTALLED) .venv-mmengine/.installed
	HYPOTHESIS_PROFILE=nightly FLEXCORE_CURVES=10000 $(BIN)/python -m pytest -n $(JOBS) --timeout=7200 tests/flexcore
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n $(JOBS) $(patsubst %,tests/shell/test_%.py,tensor_parallel materializing deepspeed fsdp)
	FLEXCORE_CURVES=10000 .venv-mmengine/bin/python -m pytest -s --timeout=7200 tests/flexcore/test_curves_against_mmengine.py
	.venv-mmengine/bin/python -m tests.shell.twins .venv-mmengine/twins
	FLEXCORE_TWINS=.venv-mmengine/twins $(BIN)/python -m pytest tests/shell/test_adopting.py

.venv-mmengine/.installed:
	$(PYTHON) -m venv .venv-mmengine
	.venv-mmengine/bin/python -m pip install --quiet mmengine==0.10.7 'setuptools<81' torch hypothesis pytest pytest-timeout -e .
	@touch $@

# 10^6 inputs, some 20 minutes; interrupt it and run it again.
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.fuzz --inputs 1000000 --state .fuzz.json

# What checkpoints must survive: kills, cut power, full disks, every move between strategies. PORTION=0.01 for a look;
# interrupted, it goes on, and what passed is done again only when the sources change.
PORTION ?= 1
torture: $(INSTALLED)
	$(BIN)/python -m pytest tests/torture -n $(JOBS) --dist worksteal --timeout=3600 --portion=$(PORTION) --state=.torture

# Every mutant of the core against its tests, hours on one core; interrupted, it goes on. docs/mutants.md has the sum.
mutants: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mutation]'
	$(BIN)/python -m tests.mutation --jobs $(JOBS)

bench: $(INSTALLED)
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/planning.py

# Debian and Ubuntu split venv out of python3; as root it is fetched, otherwise the way is named.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "flexcore needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv 2>/dev/null || { rm -rf .venv; \
	  { apt-get update -qq && apt-get install -y -qq python3-venv; } >/dev/null 2>&1; $(PYTHON) -m venv .venv; } || \
	  { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv .venv-mmengine work_dirs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .fuzz.json .torture mutants
