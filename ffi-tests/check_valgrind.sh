#!/bin/sh
# Runs a command of valgrind and fails for what valgrind itself only prints: descriptors that the
# program has left open.
#
# usage: ./check_valgrind.sh valgrind OPTIONS... PROGRAM ARGUMENTS...
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT
valgrind=$1
shift

"$valgrind" --log-file="$log" "$@"
status=$?
# Each is followed by where it was opened, or by the line that says that it came from outside.
left=$(grep -A1 'Open file descriptor' "$log" | grep -v -- '^--$' | paste - - |
    grep -v '<inherited from parent>')
test "$status" = 0 && test -z "$left" && exit
cat "$log" >&2
echo "check_valgrind: exit status $status; left open: ${left:-nothing}" >&2
exit 1
