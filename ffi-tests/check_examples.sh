#!/bin/sh
# Runs the examples and the demo host as a person would, and looks at what they print.
#
# usage: OUT=directory-of-programs ./check_examples.sh
set -eu

dir=$(mktemp -d)
host=
trap 'test -z "$host" || kill "$host" 2>/dev/null || :; rm -rf "$dir"' EXIT

fail() {
    echo "check_examples: $1" >&2
    exit 1
}

# expect FILE TEXT: a line of FILE contains TEXT.
expect() {
    grep -qF -- "$2" "$1" || {
        cat "$1" >&2
        fail "no line says: $2"
    }
}

for example in examples/*.c; do
    test "$(wc -l <"$example")" -le 25 || fail "$example has more than 25 lines"
done

"$OUT/embed" "$dir/cities" >"$dir/out"
expect "$dir/out" "no: Oslo"
# Again: on the store that is there now.
"$OUT/embed" "$dir/cities" >"$dir/out"
expect "$dir/out" "no: Oslo"
: >"$dir/file"
if "$OUT/embed" "$dir/file" 2>"$dir/out"; then fail "embed opens a file"; fi
expect "$dir/out" "is not a directory"

"$OUT/batch" "$dir/accounts" >"$dir/out"
expect "$dir/out" "3 writes at once; from was not there"
"$OUT/batch" "$dir/accounts" >"$dir/out"
expect "$dir/out" "from was there before"
"$OUT/scan" "$dir/accounts" >"$dir/out"
printf 'to: 110\nfrom: 90\n' | cmp - "$dir/out" || fail "scan prints something else"
"$OUT/scan" "$dir/accounts" f >"$dir/out"
printf 'from: 90\n' | cmp - "$dir/out" || fail "scan of a prefix prints something else"
if "$OUT/scan" "$dir/file" 2>"$dir/out"; then fail "scan opens a file"; fi

"$OUT/expiry" "$dir/sessions" >"$dir/out"
expect "$dir/out" "the session is good for another 3600 s"
expect "$dir/out" "an old one is not there"
if "$OUT/expiry" "$dir/file" 2>"$dir/out"; then fail "expiry opens a file"; fi

"$OUT/errors" "$dir/cities" no >"$dir/out"
expect "$dir/out" "there"
"$OUT/errors" "$dir/cities" se >"$dir/out"
expect "$dir/out" "not there"
if "$OUT/errors" "$dir/file" 2>"$dir/out"; then fail "errors opens a file"; fi
expect "$dir/out" "KVS_ERR_NOT_A_DIRECTORY"
mkfifo "$dir/hold"
"$OUT/serve" "$dir/cities" 127.0.0.1:0 <"$dir/hold" >"$dir/served" &
host=$!
exec 4>"$dir/hold"
tries=0
while ! grep -q serving "$dir/served"; do
    tries=$((tries + 1))
    test $tries -lt 100 || fail "the example does not serve"
    sleep 0.1
done
if "$OUT/errors" "$dir/cities" no 2>"$dir/out"; then fail "errors opens a store that is open"; fi
expect "$dir/out" "try later: "
expect "$dir/out" "process $host"
exec 4>&-
wait "$host"
host=

echo | "$OUT/serve" "$dir/cities" 127.0.0.1:0 >"$dir/out"
expect "$dir/out" "serving on port"
if "$OUT/serve" "$dir/cities" nonsense 2>"$dir/out" </dev/null; then fail "serve on nonsense"; fi
expect "$dir/out" "nonsense"

# The examples in the comments of kvs.h and kvs.hpp open stores in the current directory.
for snippets in "$OUT/snippets" "$OUT/snippets-cxx"; do
    mkdir "$dir/here"
    (cd "$dir/here" && "$snippets" "$dir/here/store") >"$dir/out" || fail "$snippets"
    rm -r "$dir/here"
done

# The demo host: loads, looks up, serves until its input ends.
{
    printf '41\tLATIN CAPITAL LETTER A\n'
    printf '20AC\tEURO SIGN\n'
    printf '1F980\tCRAB\n'
} >"$dir/names.tsv"
mkfifo "$dir/input"
"$OUT/host" --port-file "$dir/port" "$dir/names.tsv" "$dir/names" 1F980 41 FFFF \
    <"$dir/input" >"$dir/out" 2>"$dir/err" &
host=$!
exec 3>"$dir/input"
tries=0
while ! test -s "$dir/port"; do
    tries=$((tries + 1))
    test $tries -lt 100 || { cat "$dir/out" "$dir/err" >&2; fail "the host does not serve"; }
    sleep 0.1
done
expect "$dir/out" "3 records"
expect "$dir/out" "U+1F980 CRAB"
expect "$dir/out" "U+0041 LATIN CAPITAL LETTER A"
expect "$dir/out" "U+FFFF is not assigned"
expect "$dir/out" "listening on 127.0.0.1:$(cat "$dir/port")"
exec 3>&-
wait "$host" || { cat "$dir/err" >&2; fail "the host ends with $?"; }
host=

# What it stored is there for the next program; what it cannot do, it says.
if "$OUT/host" "$dir/absent.tsv" "$dir/names" 2>"$dir/err" </dev/null; then fail "no TSV, no error"; fi
expect "$dir/err" "absent.tsv"
printf '41\tLATIN CAPITAL LETTER A\nno tab here\n' >"$dir/bad.tsv"
if "$OUT/host" "$dir/bad.tsv" "$dir/bad" 2>"$dir/err" </dev/null; then fail "a bad line is taken"; fi
expect "$dir/err" "bad.tsv:2"
if "$OUT/host" "$dir/names.tsv" "$dir/file" 2>"$dir/err" </dev/null; then fail "a file is opened"; fi
expect "$dir/err" "is not a directory"

echo "check_examples: the examples and the demo host do what they say"
