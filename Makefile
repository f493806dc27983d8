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
TOOLS := target/tools
FFI := $(MAKE) --no-print-directory -C ffi-tests LIBDIR=$(CURDIR)/$(BUILT) \
	OUT=$(CURDIR)/target/ffi-tests
# benches/peers is a crate of its own, built apart. PEERS_ARGS is for `--stores` and the like.
PEERS := target/peers/release/peers
PEERS_CARGO := CARGO_TARGET_DIR=$(CURDIR)/target/peers $(CARGO)
PEERS_FEW := --no-default-features --features kvs,sled
# The sources built anew over a model checker: a package of its own too.
MODELS_MANIFEST := --locked --manifest-path tests/models/Cargo.toml
PEERS_ARGS ?=
EXAMPLES := $(basename $(notdir $(wildcard examples/*.rs)))

# What `make test` runs: two lists side by side, in each the telling steps first. Tests build in the
# dev profile; libkvs, and what is built on it, in release. What ends the second list finds most of
# what it needs built by the first.
STEPS := fmt clippy tidy rust-test corruption histories kill deny
STEPS_BESIDE := ffi valgrind python demo readme faults models peers features doc doctest examples bench-build

# No target is a file: neither what `make help` lists nor the steps.
.PHONY: $(STEPS) $(STEPS_BESIDE) \
	$(shell sed -n 's/^\([a-z-]*\):.*\#\#.*/\1/p' $(firstword $(MAKEFILE_LIST)))

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

bench: cc critcmp ## Each layer, the engines, threads, with criterion; a table at the end (15 minutes)
	$(CARGO) bench --features layers --bench layers --bench engines -- $(KVS_BENCH)
	@echo
	@$(TOOLS)/bin/critcmp --target-dir target new

bench-space: cc ## Space beyond the data, write stalls, memory of the index (minutes; KVS_BENCH=--quick)
	$(CARGO) bench --bench space -- $(KVS_BENCH)

bench-open: cc ## How long opening takes: clean, killed, caches lost (KVS_BENCH="--keys 10000000")
	$(CARGO) bench --bench open -- $(KVS_BENCH)

bench-ffi: lib venv cc ## What the C boundary costs from C and from Python, and its bars (KVS_BENCH=--quick)
	@$(FFI) $(CURDIR)/target/ffi-tests/calls
	$(CARGO) bench --bench boundary -- --c $(CURDIR)/target/ffi-tests/calls \
		--python $(CURDIR)/$(VENV)/bin/python $(KVS_BENCH)

bench-peers: peers-build ## kvs beside other stores, measured (half an hour, a quiet machine)
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

# The long targets, the quick ones first; each ends with a line that says what it has tried.
SOAK := soak-kill soak-faults soak-corruption soak-filesystems soak-engines soak-histories \
	soak-models soak-sanitizers soak-power soak-churn soak-fuzz soak-mutants

soak: ## Every long test (hours); the table is target/soak/report.md (SOAK="soak-kill" chooses)
	@.ci/soak $(SOAK)

# How long an hour of churn is.
KVS_SOAK_MINUTES ?= 60

PREFIX ?= /usr/local
LIBDIR ?= lib

# The single steps.

fmt: ## Formatting
	$(CARGO) fmt --all -- --check
	cd tests/filesystems && $(CARGO) fmt -- --check
	cd benches/peers && $(CARGO) fmt -- --check

clippy: cc ## Lints, warnings are errors
	$(CARGO) clippy --all-targets --features layers -- -D warnings

tidy: cc ## The rules of the house: layers, absences, lengths, words
	$(CARGO) test --test tidy

features: cc ## The bare library, without the second engine and the programs
	$(CARGO) clippy --no-default-features --lib -- -D warnings

doc: cc ## Documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --lib

rust-test: cc ## Unit and integration tests
	$(CARGO) test --no-fail-fast --lib --test it --test allocations --test given_back \
		--test handles

# In C and in Python: programs that write until they are killed.
KILL_C := target/ffi-tests/kill_writer
KILL_PYTHON := $(VENV)/bin/python bindings/python/tests/kill_writer.py

kill: lib venv kill-writer ## kill -9 of writing processes: in Rust, serving, in C, in Python
	$(CARGO) test --test kill -- this=200 server=50 "$(KILL_C)=50" "$(KILL_PYTHON)=20"

soak-kill: lib venv kill-writer ## The same 10,000 times (about 10 minutes)
	$(CARGO) test --release --test kill -- this=4000 server=2500 "$(KILL_C)=2500" \
		"$(KILL_PYTHON)=1000"

faults: lib venv kill-writer ## Calls of the system that fail under programs in Rust, C and Python
	.ci/need strace strace -V
	$(CARGO) test --test faults -- this=40 "$(KILL_C)=30" "$(KILL_PYTHON)=10"

soak-faults: lib venv kill-writer ## Every call to the disk that can fail; under programs, 1,000 times
	.ci/need strace strace -V
	KVS_POWER_STATES=16 $(CARGO) test --release --lib every_failing_call -- --nocapture \
		| tee target/soak-faults.log
	$(CARGO) test --release --test faults -- this=400 "$(KILL_C)=400" "$(KILL_PYTHON)=200" \
		| tee -a target/soak-faults.log
	@awk '/^failing calls: / { calls += $$NF } /^soak-faults: / { sub(/^[^:]*: /, ""); line = $$0 } \
		END { print "soak-faults: " calls " failing calls to the disk; " line }' target/soak-faults.log

corruption: cc ## Files of a store damaged in one of 211 ways that there are
	$(CARGO) test --test corruption

soak-corruption: cc ## In all ways (about 20 minutes)
	KVS_CORRUPTION_STRIDE=1 $(CARGO) test --release --test corruption

soak-power: cc ## 5,000,000 losses of power in random histories (an hour)
	KVS_POWER_LOSSES=5000000 $(CARGO) test --release --lib power_loss_at_any -- --nocapture

soak-churn: cc ## An hour of writing: memory, descriptors, mappings and space stay flat
	MALLOC_ARENA_MAX=1 KVS_SOAK_MINUTES=$(KVS_SOAK_MINUTES) $(CARGO) test --release --test churn

soak-sanitizers: cc clang venv ## Rust, C and Python under address and thread sanitizers (nightly)
	@$(CARGO) +nightly --version >/dev/null || { echo "error: rustup toolchain install nightly" >&2; exit 1; }
	@test -d "$$(rustc +nightly --print sysroot)/lib/rustlib/src" || \
		rustup component add rust-src --toolchain nightly
	.ci/need libclang-rt-dev bash -c 'test -e "$$(clang -print-file-name=libclang_rt.asan-x86_64.so)"'
	.ci/sanitizers

soak-filesystems: cc ## Power loss under ext4 and xfs, on images of what they wrote (needs to mount)
	.ci/need e2fsprogs mkfs.ext4 -V
	.ci/need xfsprogs mkfs.xfs -V
	cd tests/filesystems && CARGO_TARGET_DIR=$(CURDIR)/target/filesystems $(CARGO) run --release

histories: cc ## 500 histories of concurrent operations, checked for linearizability
	$(CARGO) test --test histories

soak-histories: cc ## The same with 10,000 histories (about 15 minutes)
	KVS_HISTORIES=$${KVS_HISTORIES:-10000} $(CARGO) test --release --test histories

# Without it, rust-test does some of them.
PROPTEST_CASES ?= 10000

soak-engines: cc ## Random histories of each engine beside a map, hints bent: 10,000 each (10 minutes)
	PROPTEST_CASES=$(PROPTEST_CASES) $(CARGO) test --release --test it -- \
		kvs_does_what_a_map_does sled_does_what_a_map_does hints_and_crashes_change_nothing
	@echo "soak-engines: $(PROPTEST_CASES) random histories of kvs, of sled," \
		"and of kvs with crashes and bent hints; failures: 0"

models: cc ## Models of concurrency: 300 schedules each (shuttle), all of two preemptions (loom)
	.ci/need python3 python3 --version
	python3 tests/models/planted.py places
	KVS_MODEL_SCHEDULES=300 $(CARGO) run $(MODELS_MANIFEST) --features shuttle
	KVS_MODEL_PREEMPTIONS=2 $(CARGO) run $(MODELS_MANIFEST) --features loom

soak-fuzz: cc g++ ## Every fuzz target for KVS_FUZZ_SECONDS (600; needs a nightly toolchain)
	fuzz/soak.sh

soak-models: cc ## 100,000 schedules each (shuttle), all of four preemptions (loom), planted bugs
	KVS_MODEL_SCHEDULES=$${KVS_MODEL_SCHEDULES:-100000} $(CARGO) run $(MODELS_MANIFEST) --release --features shuttle \
		| tee target/soak-models.log
	KVS_MODEL_PREEMPTIONS=4 $(CARGO) run $(MODELS_MANIFEST) --release --features loom | tee -a target/soak-models.log
	.ci/need python3 python3 --version
	python3 tests/models/planted.py 20000 | tee -a target/soak-models.log
	@awk '/^(models|planted): / { line = line "; " $$0; failures += $$NF } \
		END { sub(/^; /, "", line); gsub(/; failures: [0-9]+/, "", line); \
		print "soak-models: " line "; failures: " failures }' target/soak-models.log

soak-mutants: cc ## Mutants of the rooms that hold data, those not yet tested (hours; KVS_MUTANTS_MAX)
	.ci/need python3 python3 --version
	python3 .ci/mutants.py $(KVS_MUTANTS)

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

abi: abigail ## Writes ffi-tests/libkvs.abi anew, the ABI that the C tests compare kvs.h with
	$(FFI) record

ffi: lib g++ clang cmake abigail ## The C tests: header, symbols, ABI, behaviour, ASan, examples
	$(FFI) test

test-cargo-c: cc g++ cmake cargo-c ## What `cargo cinstall` installs, used as `make install` is
	cd ffi-tests && PATH=$(CURDIR)/$(TOOLS)/bin:$$PATH CARGO_CINSTALL="cargo cinstall" \
		CARGO_TARGET_DIR=$(CURDIR)/target/cargo-c ./check_install.sh

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
	$(CARGO) bench --no-run --profile dev --features layers

# What the steps stand on.

lib: cc ## libkvs.so, libkvs.a and the programs, in target/release
	$(CARGO) build --release
	@# Programs ask for the library by its inner name, which a package would install;
	@# here a link stands in.
	@ln -sf libkvs.so $(BUILT)/$$(readelf -d $(BUILT)/libkvs.so | sed -n 's/.*soname: \[\(.*\)\]/\1/p')

kill-writer:
	@$(FFI) $(CURDIR)/$(KILL_C)

venv:
	@bindings/python/dev/setup.sh

peers-build: peers-libraries
	cd benches/peers && $(PEERS_CARGO) build --locked --release

peers-libraries: cc g++
	@.ci/need pkg-config pkg-config --version
	@.ci/need librocksdb-dev bash -c 'cc -E - <<< "#include <rocksdb/c.h>"'
	@.ci/need libleveldb-dev bash -c 'cc -E - <<< "#include <leveldb/c.h>"'
	@.ci/need libtkrzw-dev bash -c 'cc -E - <<< "#include <tkrzw_langc.h>"'

.PHONY: kill-writer toolchain cc g++ clang cmake cargo-c critcmp abigail peers-build peers-libraries

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

# The newest that the Rust of Cargo.toml can build, which takes some minutes, once.
CARGO_C := 0.10.18+cargo-0.92.0
cargo-c: cc
	@.ci/need libssl-dev pkg-config --exists openssl
	@CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
		.ci/tool cargo-cinstall cargo-c --version $(CARGO_C)

critcmp: cc
	@.ci/tool critcmp critcmp --version 0.1.8

abigail: cc
	@.ci/need abigail-tools abidiff --version

cmake:
	@.ci/need cmake cmake --version
	@.ci/need pkg-config pkg-config --version
