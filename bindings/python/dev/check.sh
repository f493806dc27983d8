#!/usr/bin/env bash
# Every check of the Python package: form, types, tests, and the tests again on the installed wheel.
#
# Needs `cargo build --release` first. In the second round the package has its own copy of the
# library and nothing of the source tree; kvs-client is lent to it.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/../../target/venv/bin
strict=(-X dev -W error -bb)

# Of the builds in target/, the one that is shipped.
export KVS_LIBRARY=$PWD/../../target/release/libkvs.so
dev/setup.sh
"$bin/ruff" format --check .
"$bin/ruff" check .
"$bin/mypy"
"$bin/python" "${strict[@]}" -m pytest

dev/setup.sh --wheel
unset KVS_LIBRARY
KVS_CLIENT=$PWD/../../target/release/kvs-client "$bin/python" "${strict[@]}" -m pytest -q
dev/setup.sh
