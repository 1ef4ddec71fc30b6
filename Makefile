# Every target works on a machine that has only Python >= 3.11 and make: .venv and, where missing, uv are brought first.
# PYTHON=python3.12 chooses the interpreter; ARGS="..." is handed on to forebay up, pytest and the benchmarks.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo up kafka postgres test fuzz check bench bench-peers chaos chaos-short chaos-planted docs lock

PYTHON ?=
ARGS ?=
KAFKA_PORT ?=
POSTGRES_PORT ?=
export PYTHON KAFKA_PORT POSTGRES_PORT
# Set on many machines and in many images: each process, and tests start hundreds, would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
FUZZED := tests/scenario/test_the_openapi_document_is_true.py tests/scenario/test_malformed_bytes_do_no_harm.py \
	tests/scenario/test_no_webhook_reaches_a_forbidden_address.py
INSTALLED := .venv/.installed$(if $(PYTHON),-$(notdir $(PYTHON)))

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml requirements/dev.txt requirements/uv.txt dev/setup.sh
	@dev/setup.sh

setup: $(INSTALLED)  ## create .venv with everything the other targets need

demo: $(INSTALLED)  ## start the service, classify the sample photos and sentences, print a table, stop
	@$(BIN)/python examples/demo.py

up: $(INSTALLED)  ## start the service and leave it running until Ctrl-C
	@exec $(BIN)/forebay up $(ARGS)

kafka: $(INSTALLED)  ## start a real Kafka on 127.0.0.1:9092 until Ctrl-C (KAFKA_PORT=... for another port)
	@exec $(BIN)/python -m dev.kafka

postgres: $(INSTALLED)  ## start a real PostgreSQL on 127.0.0.1:5432 until Ctrl-C (POSTGRES_PORT=... for another port)
	@exec $(BIN)/python -m dev.postgres

test: $(INSTALLED)  ## run every test
	$(BIN)/python -m pytest tests -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

fuzz: $(INSTALLED)  ## ask the API what nobody thought of, for long (FUZZ_EXAMPLES=300 FUZZ_REQUESTS=100000 FUZZ_SEED=2)
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-100} FUZZ_REQUESTS=$${FUZZ_REQUESTS:-20000} $(BIN)/python -m pytest $(FUZZED) -n 0 -rP $(ARGS)

check: $(INSTALLED)  ## check format, lint, types and the import rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)  ## run the benchmarks and print ratios (ARGS=kafka or ARGS=embedded for one half)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(INSTALLED)  ## bring what the benchmarks measure us beside into .peers (they do it themselves, too)
	@$(BIN)/python -m benchmarks.peers.environment

chaos: $(INSTALLED)  ## every storm: kills, bounces, rebalances under load; every accepted job is judged (ARGS="kills --seed 7")
	@$(BIN)/python -m chaos $(ARGS)

chaos-short: $(INSTALLED)  ## the same, as short as still proves something
	@$(BIN)/python -m chaos --short $(ARGS)

chaos-planted: $(INSTALLED)  ## prove the checker: each planted bug in the storm that must find it
	@$(BIN)/python -m chaos --short --planted all $(ARGS)

docs: $(INSTALLED)  ## write the pages that come from the code: docs/settings.md, docs/metrics.md
	@$(BIN)/python dev/docs.py

lock:  ## compile requirements/*.txt anew (ARGS="--upgrade" takes newer versions)
	@dev/lock.sh $(ARGS)
