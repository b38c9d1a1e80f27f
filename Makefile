# One road for people and for CI. `make` alone says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup lab build release demo test torture fuzz bench

CARGO ?= cargo
TEST_LOG := target/test.log
SKIPPED := $(CURDIR)/target/skipped
# Most tests wait for processes that they started.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

help: ## say what there is
	@echo 'make TARGET'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 12

setup: ## install what the demo and the tests need and this machine lacks (apt-get)
	@.ci/setup

lab: ## install what the two Incus clouds of the tests need, make their base image, say what is still missing (root)
	@tests/lab/install
	@tests/lab/clouds missing
	@tests/lab/clouds packages
	@echo "HAFOG_LAB=1 cargo test --no-default-features --locked --test incus"

build: ## build for work on hafog: target/debug/hafog
	$(CARGO) build --no-default-features --locked

release: ## build for use: target/release/hafog
	$(CARGO) build --release --no-default-features --locked

demo: setup release ## play the whole story on this machine: lose a site, move, come back
	target/release/hafog demo

test: setup ## format, lints and every test; ends with the list of what was skipped
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --no-default-features --locked -- -D warnings
	@mkdir -p target && rm -f $(SKIPPED)
	@status=0; HAFOG_SKIPPED=$(SKIPPED) $(CARGO) test --no-default-features --locked --no-fail-fast -- --show-output 2>&1 \
	    | tee $(TEST_LOG) | .ci/quiet || status=$$?; \
	.ci/ending $(TEST_LOG) $(SKIPPED); exit $$status

fuzz: ## damaged input for every reader: HAFOG_FUZZ seconds each (60), or a count (10000x); HAFOG_FUZZ_SEED repeats
	HAFOG_FUZZ=$${HAFOG_FUZZ:-60} $(CARGO) test --no-default-features --locked --lib fuzz:: -- --nocapture --test-threads=2

torture: setup ## kill, freeze and starve every verb at every step, for hours; HAFOG_SEED=N goes on where N was, HAFOG_JOBS=N at a time
	HAFOG_TORTURE=all $(CARGO) test --no-default-features --locked --test torture
	@if [ -n "$${HAFOG_LAB:-}" ]; then \
	    HAFOG_TORTURE=all $(CARGO) test --no-default-features --locked --test incus -- cut_in --nocapture; \
	else echo 'the 300 partitions were not played: make lab, then HAFOG_LAB=1 make torture'; fi

bench: ## measure (benches/run)
	@if [ -x benches/run ]; then benches/run; else echo 'there are no benchmarks: benches/run is missing'; exit 1; fi
