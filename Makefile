# Every target sets the machine up first; that costs a second when there is nothing to do.
SHELL := bash
PATH := $(PATH):$(HOME)/.cargo/bin
BIN := .venv/bin
# crates/python holds bindings only and would need libpython to link a test.
RUST_TESTS := --workspace --exclude flowferry-python
# A change is judged by the same random cases each time; the soak looks for new ones.
SEED := 33308
CARGO_TEST := $(shell command -v cargo-nextest >/dev/null 2>&1 \
	&& echo "cargo nextest run --no-fail-fast --status-level fail" || echo "cargo test --quiet")

.DEFAULT_GOAL := help
PREFIX ?= /usr/local
PROFILE ?= release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

.PHONY: setup install-c demo test soak bench format lint clean help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 10

setup: ## make this machine ready: packages, .venv, native module
	@setup/setup.sh

demo: setup ## live flows move between two running functions: verdict, report, picture
	@$(BIN)/flowferry demo

test: setup ## format check, lints, types, unit, property and system tests
	@setup/stages.sh \
	  format "$(BIN)/ruff format --check . && cargo fmt --all --check" \
	  lint "$(BIN)/ruff check . && cargo clippy --quiet --workspace --all-targets -- -D warnings" \
	  types "$(BIN)/mypy" \
	  rust "PROPTEST_RNG_SEED=$(SEED) $(CARGO_TEST) $(RUST_TESTS) && cargo test --quiet --doc $(RUST_TESTS)" \
	  unit "$(BIN)/pytest -m 'not soak' --doctest-modules src tests --ignore=tests/system" \
	  system "$(BIN)/pytest -m 'not soak' tests/system"

soak: setup ## long repeats and fuzzing, as many as tests/soak.py says: hours
	@setup/stages.sh \
	  soak "$(BIN)/pytest -m soak -rA --durations=0 tests" \
	  properties "PROPTEST_CASES=20000 cargo test --release --quiet $(RUST_TESTS)" \
	  estate "FLOWFERRY_SEEDS=100000 cargo test --release -p flowferry-estate --test protocol takes && FLOWFERRY_SEEDS=1000 cargo test --release -p flowferry-estate --test protocol -- --skip takes"

bench: setup ## an experiment: make bench NAME=...
	@$(BIN)/flowferry bench $(NAME)

install-c: ## libestate, estate.h and estate.pc: make install-c PREFIX=/usr/local [DESTDIR=...]
	@cargo rustc --quiet --profile $(PROFILE) -p flowferry-estate --lib --crate-type cdylib -- \
	  -C link-arg=-Wl,-soname,libestate.so.0
	@install -D -m 755 "$${CARGO_TARGET_DIR:-target}/$(PROFILE:dev=debug)/libflowferry_estate.so" \
	  "$(DESTDIR)$(PREFIX)/lib/libestate.so.0"
	@ln -sf libestate.so.0 "$(DESTDIR)$(PREFIX)/lib/libestate.so"
	@install -D -m 644 crates/estate/include/estate.h "$(DESTDIR)$(PREFIX)/include/estate.h"
	@mkdir -p "$(DESTDIR)$(PREFIX)/lib/pkgconfig"
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' crates/estate/estate.pc.in \
	  > "$(DESTDIR)$(PREFIX)/lib/pkgconfig/estate.pc"
	@echo "libestate $(VERSION) is in $(DESTDIR)$(PREFIX)"

format: setup ## put every file into the house format
	@$(BIN)/ruff check --quiet --fix --exit-zero . && $(BIN)/ruff format . && cargo fmt --all

lint: setup ## lints and types, without tests
	@setup/stages.sh \
	  lint "$(BIN)/ruff check . && cargo clippy --quiet --workspace --all-targets -- -D warnings" \
	  types "$(BIN)/mypy"

clean: ## remove build products, and what a crashed testbed left
	@if [ -x $(BIN)/flowferry ]; then $(BIN)/flowferry testbed down --crashed; fi
	@rm -rf target fuzz/target build .mypy_cache .ruff_cache .pytest_cache .hypothesis .venv/.native-stamp
	@rm -f src/flowferry/_native*.so
	@find src tests -name __pycache__ -prune -exec rm -rf {} +
	@echo "clean: build products removed"
