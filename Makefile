# make pretrain     text -> a pre-trained ELECTRA: a small run on documentation text that is already on this machine
# make test         the tests
# make check        lint, format, import direction, file length
# make style        formats the code
# make bench        speed of this project and of Hugging Face's Trainer, on two cores about 10 minutes: docs/performance.md
# make gpu-suite    what only a machine with an NVIDIA GPU can show; about 10 minutes. ARGS="--device cpu" tries the suite itself
# make parity       one run on every engine, precision and arrangement: a table of the differences; about 10 minutes;
#                   ARGS="--cut ci" is a part of it for two minutes
# make faults       kills runs at every operation on files and at random moments: docs/reliability.md; ARGS="--each 10 --kills 5"
# make fuzz         damages all that a user gives at random, 10,000 times; ARGS="--examples 300 --only corpus"
# make audit        asks for known security faults of what constraints.txt names; needs a network
# make ablations    one choice changed at a time, pre-trained and fine-tuned: DATA=folder PAIR=folder, see recipes/studies/ablations.yaml
# make golden       rewrites the golden losses of tests/golden/, when training was changed on purpose
# make slurm-test   scripts/slurm/pretrain.sbatch on a two-node Slurm that is started here; needs root and apt-get
#
# Each makes .venv first. VENV=path uses an existing environment with the torch that it has. ARGS="--train.steps 200" is
# passed on to pretrain.py, ARGS="-k packing" to pytest.

SHELL := /bin/bash
VENV ?= .venv
# the first Python that is new enough (a pyenv shim may exist and still not run)
PYTHON ?= $(shell for python in python3.11 python3.12 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
export PATH := $(abspath $(VENV))/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := python -m pip
QUIET := $(if $(CI),-qq,-q)

# Stamps say that the environment is this clone's and up to date. They stand in the environment, named after the clone:
# another clone that uses the same environment removes them when it installs itself.
CLONE := $(shell pwd | cksum | cut -d' ' -f1)
INSTALLED := $(VENV)/.electra-accel-$(CLONE)
INSTALLED_TEST := $(INSTALLED)-test
INSTALLED_ENGINES := $(INSTALLED)-engines
PINS := $(VENV)/electra-accel-constraints.txt

.PHONY: help pretrain test check style bench gpu-suite parity faults fuzz audit ablations needs-data-and-pair golden slurm-test

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# accelerate launch runs a CPU process on one thread unless this variable says otherwise
pretrain: export OMP_NUM_THREADS ?= $(shell nproc)
pretrain: $(INSTALLED)
	accelerate launch --config_file accelerate_configs/single.yaml --main_process_port 0 scripts/pretrain.py --config recipes/tiny-python-docs.yaml $(ARGS)

# two at once, each file by one of them; a process of a test takes a thread or two and up to 1.5 GB
test: $(INSTALLED_ENGINES)
	python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=20 --durations-min=1 $(ARGS)

check: $(INSTALLED_TEST)
	ruff check .
	ruff format --check .
	python -m pytest -q tests/test_imports.py

style: $(INSTALLED_TEST)
	ruff check --fix .
	ruff format .

bench: $(INSTALLED_TEST)
	python scripts/benchmarks/throughput.py --device cpu --markdown docs/performance.md $(ARGS)

gpu-suite: $(INSTALLED_TEST)
	python scripts/benchmarks/gpu_suite.py $(ARGS)

parity: $(INSTALLED_ENGINES)
	python -m tests.parity.table $(ARGS)

faults: $(INSTALLED_ENGINES)
	python -m tests.faults.drive $(ARGS)

fuzz: $(INSTALLED_TEST)
	python -m tests.fuzz.drive $(ARGS)

# --strict: what cannot be looked up is no good news
audit: $(INSTALLED)
	@test -x $(VENV)/audit/bin/pip-audit || { python -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install $(QUIET) 'pip-audit>=2.10,<3'; }
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt $(ARGS)

ablations: $(if $(and $(DATA),$(PAIR)),$(INSTALLED),needs-data-and-pair)
	python scripts/study.py recipes/studies/ablations.yaml --set data=$(DATA) pair=$(PAIR) $(ARGS)

needs-data-and-pair:
	$(error make ablations DATA=folder PAIR=folder: see recipes/studies/ablations.yaml)

golden: $(INSTALLED_TEST)
	python -m tests.test_golden

slurm-test: $(INSTALLED_TEST)
	python -m tests.slurm.drive

# torch is pinned and installed by itself: the newest one may need several GB of CUDA libraries that the driver cannot use.
# One that is already in the environment stays, and the pin follows it.
$(INSTALLED): setup.cfg constraints.txt
	@test -n "$(PYTHON)" -o -x $(VENV)/bin/python || { echo "error: Python 3.11 or newer is needed (PYTHON=path)" >&2; exit 2; }
	@test -x $(VENV)/bin/python || { echo "creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@python -c 'import torch' 2>/dev/null || { echo "installing torch (the largest download)"; \
		$(PIP) install $(if $(CI),-qq) -c constraints.txt torch==2.13.0; }
	@{ grep -v '^torch==' constraints.txt; \
		python -c 'from importlib.metadata import version; print("torch==" + version("torch"))'; } > $(PINS)
	@echo "installing electra-accel and its dependencies into $(VENV)"
	@$(PIP) install $(QUIET) -c $(PINS) -e .
	@rm -f $(VENV)/.electra-accel-* && touch $@

$(INSTALLED_TEST): $(INSTALLED)
	@echo "installing pytest and ruff"
	@$(PIP) install $(QUIET) -c $(PINS) -e '.[test]'
	@touch $@

$(INSTALLED_ENGINES): $(INSTALLED_TEST)
	@echo "installing DeepSpeed"
	@$(PIP) install $(QUIET) -c $(PINS) -e '.[test,deepspeed]'
	@touch $@
