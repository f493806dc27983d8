# One target per thing a person does. `make help` lists them; CI runs `make test` and nothing else.
#
# Every target sets itself up: the Python environment lives in target/venv, Debian packages are
# installed by name where this is root and named in a message where it is not (.ci/need).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

# One build directory for everything, wherever make is called from.
export CARGO_TARGET_DIR := $(CURDIR)/target
CARGO := cargo
VENV := target/venv
PIP := $(VENV)/bin/pip --quiet --disable-pip-version-check
BUILT := target/release
FFI := $(MAKE) --no-print-directory -C ffi-tests LIBDIR=$(CURDIR)/$(BUILT) \
	OUT=$(CURDIR)/target/ffi-tests
EXAMPLES := $(basename $(notdir $(wildcard examples/*.rs)))

# What `make test` runs, in this order: the fast and telling steps first. Tests build in the dev
# profile; libkvs, and what is built on it, in release.
STEPS := fmt clippy tidy features doc rust-test kill doctest examples ffi valgrind python demo readme \
	deny bench-build

.PHONY: help test bench lib install venv header header-matrix soak-kill $(STEPS)

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: lib venv ## C and Python hosts load real data, serve it, and kvs-client talks to them
	@$(FFI) $(CURDIR)/target/ffi-tests/host
	@mkdir -p target/demo
	@$(VENV)/bin/python bindings/python/demo/demo.py --c-host target/ffi-tests/host \
		--client $(BUILT)/kvs-client --directory target/demo

test: toolchain ## Every check there is (under 15 minutes on 2 cores)
	@.ci/steps $(STEPS)

bench: cc ## Benchmarks, measured (a quiet machine, please)
	$(CARGO) bench

PREFIX ?= /usr/local
LIBDIR ?= lib

# The single steps.

fmt: ## Formatting
	$(CARGO) fmt --all -- --check

clippy: cc ## Lints, warnings are errors
	$(CARGO) clippy --all-targets -- -D warnings

tidy: cc ## The rules of the house: layers, absences, lengths, words
	$(CARGO) test --test tidy

features: cc ## The bare library, without the second engine and the programs
	$(CARGO) clippy --no-default-features --lib -- -D warnings

doc: cc ## Documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --lib

rust-test: cc ## Unit and integration tests
	$(CARGO) test --no-fail-fast --lib --bins --test it

kill: cc ## kill -9 of a writing process, 200 times on one store
	$(CARGO) test --test kill

soak-kill: cc ## The same 10,000 times (about 7 minutes)
	KVS_KILL_CYCLES=10000 $(CARGO) test --release --test kill

doctest: cc ## Examples in the documentation and in README.md
	dir=$$(mktemp -d); TMPDIR="$$dir" $(CARGO) test --doc; rm -r "$$dir"

examples: cc ## The programs of examples/, run
	$(CARGO) build --examples
	for name in $(EXAMPLES); do \
		dir=$$(mktemp -d); \
		target/debug/examples/$$name "$$dir"; \
		rm -r "$$dir"; \
		echo "ok $$name"; \
	done

header: cc ## Writes include/kvs.h anew (rust-test compares it)
	KVS_HEADER_WRITE=1 $(CARGO) test --test it header

install: lib ## The C library: make install PREFIX=/usr/local LIBDIR=lib DESTDIR=
	BUILT=$(BUILT) PREFIX="$(PREFIX)" LIBDIR="$(LIBDIR)" DESTDIR="$(DESTDIR)" packaging/install.sh

ffi: lib g++ clang cmake ## The C tests: header under every standard, symbols, behaviour, examples
	$(FFI) test

header-matrix: g++ clang ## Of these, include/kvs.h under every C and C++ standard only
	$(FFI) header-matrix

valgrind: lib g++ ## The C tests under valgrind
	.ci/need valgrind valgrind --version
	$(FFI) valgrind

python: lib ## The Python package: formatting, lints, types, tests; again as a wheel
	bindings/python/dev/check.sh

readme: lib venv ## Every code block of README.md, run; Python as pip installs it
	$(PIP) install --no-build-isolation --upgrade --target target/site ./bindings/python
	$(VENV)/bin/python .ci/readme.py README.md

deny: ## Licences and sources of the dependencies (deny.toml)
	.ci/need python3 python3 --version
	python3 .ci/deny.py

bench-build: cc ## Benchmarks, built only
	$(CARGO) bench --no-run

# What the steps stand on.

lib: cc ## libkvs.so, libkvs.a and the programs, in target/release
	$(CARGO) build --release
	@# Programs ask for the library by its inner name, which a package would install;
	@# here a link stands in.
	@ln -sf libkvs.so $(BUILT)/$$(readelf -d $(BUILT)/libkvs.so | sed -n 's/.*soname: \[\(.*\)\]/\1/p')

venv:
	@bindings/python/dev/setup.sh

.PHONY: toolchain cc g++ clang cmake

toolchain:
	@$(CARGO) --version >/dev/null || { echo "error: install Rust 1.89 or newer" >&2; exit 1; }
	@$(CARGO) fmt --version >/dev/null || { echo "error: rustup component add rustfmt" >&2; exit 1; }
	@$(CARGO) clippy --version >/dev/null || { echo "error: rustup component add clippy" >&2; exit 1; }

cc:
	@.ci/need gcc cc --version

g++:
	@.ci/need g++ g++ --version

clang:
	@.ci/need clang clang --version

cmake:
	@.ci/need cmake cmake --version
	@.ci/need pkg-config pkg-config --version
