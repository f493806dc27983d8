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
# benches/peers is a crate of its own, built apart. PEERS_ARGS is for `--stores` and the like.
PEERS := target/peers/release/peers
PEERS_CARGO := CARGO_TARGET_DIR=$(CURDIR)/target/peers $(CARGO)
PEERS_FEW := --no-default-features --features kvs,sled
PEERS_ARGS ?=
EXAMPLES := $(basename $(notdir $(wildcard examples/*.rs)))

# What `make test` runs: two lists side by side, in each the telling steps first. Tests build in the
# dev profile; libkvs, and what is built on it, in release. What ends the second list finds most of
# what it needs built by the first.
STEPS := fmt clippy tidy rust-test kill deny
STEPS_BESIDE := ffi valgrind python demo readme peers features doc doctest examples bench-build

.PHONY: help test bench bench-space bench-open bench-peers bench-peers-quick peers-test lib install \
	venv header header-matrix soak-kill $(STEPS) $(STEPS_BESIDE)

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

demo: lib venv ## C and Python hosts load real data, serve it, and kvs-client talks to them
	@$(FFI) $(CURDIR)/target/ffi-tests/host
	@mkdir -p target/demo
	@KVS_LIBRARY=$(CURDIR)/$(BUILT)/libkvs.so \
		$(VENV)/bin/python bindings/python/demo/demo.py --c-host target/ffi-tests/host \
		--client $(BUILT)/kvs-client --directory target/demo

test: toolchain ## Every check there is (under 15 minutes on 2 cores)
	@.ci/steps $(STEPS) -- $(STEPS_BESIDE)

bench: cc ## Benchmarks, measured (a quiet machine, please)
	$(CARGO) bench --bench engines

bench-space: cc ## Space beyond the data, write stalls, memory of the index (minutes; KVS_BENCH=--quick)
	$(CARGO) bench --bench space -- $(KVS_BENCH)

bench-open: cc ## How long opening takes: clean, killed, caches lost (KVS_BENCH="--keys 10000000")
	$(CARGO) bench --bench open -- $(KVS_BENCH)

bench-peers: peers-build ## kvs beside other stores, measured (about 40 minutes, a quiet machine)
	@mkdir -p target/peers/full
	@rm -f target/peers/full/results.jsonl
	$(PEERS) run --dir target/peers/full/data --out target/peers/full/results.jsonl $(PEERS_ARGS)
	$(PEERS) table target/peers/full/results.jsonl
	$(PEERS) report target/peers/full/results.jsonl --dir benches/report --date $$(date +%F) \
		--commit $$(git describe --always --dirty 2>/dev/null || echo unknown)

bench-peers-quick: peers-build ## The same with 2,000 keys, to see that it works (about a minute)
	@mkdir -p target/peers/quick
	@rm -f target/peers/quick/results.jsonl
	$(PEERS) run --keys 2000 --rounds 1 --cap-seconds 0.5 $(PEERS_ARGS) \
		--dir target/peers/quick/data --out target/peers/quick/results.jsonl
	$(PEERS) table target/peers/quick/results.jsonl
	$(PEERS) report target/peers/quick/results.jsonl --dir target/peers/quick --date $$(date +%F) \
		--commit quick

PREFIX ?= /usr/local
LIBDIR ?= lib

# The single steps.

fmt: ## Formatting
	$(CARGO) fmt --all -- --check
	cd benches/peers && $(CARGO) fmt -- --check

clippy: cc ## Lints, warnings are errors
	$(CARGO) clippy --all-targets -- -D warnings

tidy: cc ## The rules of the house: layers, absences, lengths, words
	$(CARGO) test --test tidy

features: cc ## The bare library, without the second engine and the programs
	$(CARGO) clippy --no-default-features --lib -- -D warnings

doc: cc ## Documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --lib

rust-test: cc ## Unit and integration tests
	$(CARGO) test --no-fail-fast --lib --test it --test allocations

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

# With two stores that need no library of the system. `make peers-test` is the whole. In a directory of
# its own: a library for C bears no mark of how it was built, so two builds of libkvs would take
# each other's place.
peers: cc ## benches/peers: lints, and its own tests over kvs and sled
	cd benches/peers && $(PEERS_CARGO) clippy --locked --all-targets $(PEERS_FEW) -- -D warnings
	cd benches/peers && $(PEERS_CARGO) test --locked $(PEERS_FEW)

peers-test: peers-libraries ## benches/peers: lints and tests over every store (minutes to build)
	cd benches/peers && $(PEERS_CARGO) clippy --locked --release --all-targets -- -D warnings
	cd benches/peers && $(PEERS_CARGO) test --locked --release

# On the dependencies that the tests have built: in their own profile they take minutes.
bench-build: cc ## Benchmarks, built only
	$(CARGO) bench --no-run --profile dev

# What the steps stand on.

lib: cc ## libkvs.so, libkvs.a and the programs, in target/release
	$(CARGO) build --release
	@# Programs ask for the library by its inner name, which a package would install;
	@# here a link stands in.
	@ln -sf libkvs.so $(BUILT)/$$(readelf -d $(BUILT)/libkvs.so | sed -n 's/.*soname: \[\(.*\)\]/\1/p')

venv:
	@bindings/python/dev/setup.sh

peers-build: peers-libraries
	cd benches/peers && $(PEERS_CARGO) build --locked --release

peers-libraries: cc g++
	@.ci/need pkg-config pkg-config --version
	@.ci/need librocksdb-dev bash -c 'cc -E - <<< "#include <rocksdb/c.h>"'
	@.ci/need libleveldb-dev bash -c 'cc -E - <<< "#include <leveldb/c.h>"'
	@.ci/need libtkrzw-dev bash -c 'cc -E - <<< "#include <tkrzw_langc.h>"'

.PHONY: toolchain cc g++ clang cmake peers-build peers-libraries

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
