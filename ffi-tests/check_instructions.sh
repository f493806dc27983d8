#!/bin/sh
# Fails if a read takes more instructions than it may: while a processor waits for the memory of
# one read it goes ahead to the next, if not too many instructions lie between (ARCHITECTURE.md).
# Nothing else would tell: each answer is right, and half as fast.
#
# usage: ./check_instructions.sh PROGRAM MAX
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
reads=$(valgrind --quiet --tool=callgrind --toggle-collect=kvs_get_into \
    --callgrind-out-file="$dir/counted" --log-file="$dir/log" "$1" "$dir/store")
all=$(sed -n 's/^totals: //p' "$dir/counted")
each=$((all / reads))
echo "a read takes $each instructions, at most $2"
test "$each" -gt 100 && test "$each" -le "$2"
