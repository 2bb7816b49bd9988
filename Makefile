# The two commands:  make run PHOTOS=~/Pictures   and   make test
# Works with GNU make 3.81 and newer, in any shell: paths travel through the environment, never through a shell line.

SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python

# As typed: no second look at $ signs; ~ is understood by the program.
override PHOTOS := $(value PHOTOS)
override TESTS := $(value TESTS)
export PHOTOS TESTS TORCH UNTIL
TORCH ?=

# The first Python that is new enough; PYTHON=... names one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && echo "$$p" && exit; \
  done; echo python3)

.PHONY: help setup setup-dev run test test-slow test-all bench bench-setup lint format types clean

help:
	@echo 'make run PHOTOS=~/Pictures   set up what is missing, start, and read the photos of that folder'
	@echo 'make test                    set up what is missing and run the tests'
	@echo 'make setup                   only set up: .venv, packages, database, static files (TORCH=cpu: without CUDA)'
	@echo 'make test-slow               the kill, fault, size and longer browser tests'
	@echo 'make test-all                both, with everything on both databases'
	@echo 'make bench                   measure speed, on generated photos or on PHOTOS=..., or at SIZE=1000000'
	@echo 'make bench-setup             other programs, into .venv-bench, so that make bench compares with them'
	@echo 'make lint | format | types   ruff and djade, their fixes, mypy'
	@echo 'make clean                   remove the virtual environments and caches; data/ stays'

setup:
	@"$(PYTHON)" scripts/setup.py --torch "$$TORCH"

setup-dev:
	@"$(PYTHON)" scripts/setup.py --torch "$$TORCH" --dev

run: setup
	@exec $(PY) manage.py start $${PHOTOS:+--photos "$$PHOTOS"}

test: setup-dev
	@exec $(PY) scripts/test.py

test-slow: setup-dev
	@exec $(PY) scripts/test.py --slow $${UNTIL:+--until "$$UNTIL"}

test-all: setup-dev
	@$(PY) scripts/test.py --all && exec $(PY) scripts/test.py --all --slow

bench: setup-dev
	@exec $(PY) -m benchmarks $${PHOTOS:+--photos "$$PHOTOS"} $${SIZE:+--size "$$SIZE"} $${DATA:+--data "$$DATA"} $${DATABASE:+--database "$$DATABASE"}

bench-setup: setup-dev
	@exec $(PY) -m benchmarks.bench_venv

lint: setup-dev
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && find templates -name '*.html' -exec $(VENV)/bin/djade --check --target-version 5.2 {} +

format: setup-dev
	@$(PY) -m ruff check --fix . ; $(PY) -m ruff format . ; find templates -name '*.html' -exec $(VENV)/bin/djade --target-version 5.2 {} +

types: setup-dev
	@$(PY) -m mypy imagesearch search faces ingestion benchmarks scripts manage.py

clean:
	@rm -rf $(VENV) .venv-bench .mypy_cache .ruff_cache .hypothesis test-results
	@find . -name __pycache__ -type d -not -path './data/*' -prune -exec rm -rf {} +
	@echo 'Removed the virtual environments and caches. Your pictures were never here; data/ (database, embeddings) stays.'
