#!/usr/bin/env bash
# Runs every fuzz target, or those that are named, for KVS_FUZZ_SECONDS each (600), on a nightly
# toolchain (KVS_FUZZ_TOOLCHAIN) and with AddressSanitizer. What is learnt stays in
# target/fuzz/corpus; an input that fails is in target/fuzz/artifacts, and belongs into the corpus
# here when it is mended.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${KVS_FUZZ_SECONDS:-600}
toolchain=${KVS_FUZZ_TOOLCHAIN:-nightly}
work=$PWD/../target/fuzz
tools=$PWD/../target/tools
export CARGO_TARGET_DIR=$work

cargo "+$toolchain" --version >/dev/null || { echo "error: rustup toolchain install nightly" >&2; exit 1; }
../.ci/tool cargo-fuzz cargo-fuzz
PATH=$tools/bin:$PATH
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(basename -s .rs fuzz_targets/*.rs)

cargo "+$toolchain" fuzz build --fuzz-dir .
runs=0
failures=0
started=0
for target in "${targets[@]}"; do
    started=$((started + 1))
    echo "== $target, $started of ${#targets[@]}, $seconds s"
    mkdir -p "$work/corpus/$target" "$work/artifacts/$target"
    log=$work/$target.log
    # The first directory is added to, the second only read.
    if ! cargo "+$toolchain" fuzz run --fuzz-dir . "$target" "$work/corpus/$target" \
        "corpus/$target" -- -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
        -artifact_prefix="$work/artifacts/$target/" -print_final_stats=1 >"$log" 2>&1; then
        failures=$((failures + 1))
        echo "FAILED $target:"
        tail -40 "$log"
    fi
    did=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "-- $target: ${did:-0} runs"
    runs=$((runs + ${did:-0}))
done
echo "soak-fuzz: ${#targets[@]} targets, $runs runs, $seconds s each; failures: $failures"
[ "$failures" = 0 ]
