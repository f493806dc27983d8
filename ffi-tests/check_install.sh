#!/bin/sh
# Installs libkvs as a packager would and builds programs against it as their authors would.
#
# usage: LIBDIR=directory-of-libkvs ./check_install.sh
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
    echo "check_install: $1" >&2
    exit 1
}

# runs PROGRAM: it does what the example embed does.
runs() {
    LD_LIBRARY_PATH=${2:-} "$1" "$dir/store" >"$dir/out" 2>&1 || { cat "$dir/out" >&2; fail "$1 fails"; }
    grep -q "no: Oslo" "$dir/out" || fail "$1 prints something else"
}

# What programs link statically is what the compiler says that Rust's own library needs.
needed=$(echo | rustc --crate-type staticlib --print native-static-libs -o "$dir/probe.a" - 2>&1 |
    sed -n 's/^note: native-static-libs: //p')
test "$needed" = "$(cat ../packaging/static-libs)" ||
    fail "packaging/static-libs is not what rustc says: $needed"

# Staged, for another place.
export BUILT="$LIBDIR"
DESTDIR=$dir/stage PREFIX=/opt/kvs LIBDIR=lib/any ../packaging/install.sh
abi=$(sed -n 's/^#define KVS_ABI_VERSION //p' "$dir/stage/opt/kvs/include/kvs.h")
(cd "$dir/stage" && find . -type f -o -type l) | sort >"$dir/out"
sort >"$dir/expected" <<END
./opt/kvs/include/kvs.h
./opt/kvs/include/kvs.hpp
./opt/kvs/lib/any/cmake/kvs/kvs-config-version.cmake
./opt/kvs/lib/any/cmake/kvs/kvs-config.cmake
./opt/kvs/lib/any/libkvs.a
./opt/kvs/lib/any/libkvs.so
./opt/kvs/lib/any/libkvs.so.$abi
./opt/kvs/lib/any/pkgconfig/kvs.pc
END
diff "$dir/expected" "$dir/out" >&2 || fail "other files are installed"
grep -q '^prefix=/opt/kvs$' "$dir/stage/opt/kvs/lib/any/pkgconfig/kvs.pc" || fail "kvs.pc: prefix"
if grep -rq '@[A-Z_]*@' "$dir/stage/opt/kvs/lib/any/cmake" "$dir/stage/opt/kvs/lib/any/pkgconfig"; then
    fail "a name between @ was not replaced"
fi
if PREFIX=relative ../packaging/install.sh 2>/dev/null; then fail "a relative PREFIX is taken"; fi

# In place, by pkg-config.
usr=$dir/usr
DESTDIR='' PREFIX=$usr LIBDIR=lib ../packaging/install.sh
export PKG_CONFIG_PATH="$usr/lib/pkgconfig"
test "$(pkg-config --modversion kvs)" = "$(sed -n 's/^version = "\(.*\)"$/\1/p' ../Cargo.toml | head -n 1)" ||
    fail "kvs.pc has another version"
# shellcheck disable=SC2046  # words are what is wanted
cc examples/embed.c -o "$dir/by-pkg-config" $(pkg-config --cflags --libs kvs)
readelf -d "$dir/by-pkg-config" | grep -q "NEEDED.*\[libkvs.so.$abi\]" || fail "another inner name"
runs "$dir/by-pkg-config" "$usr/lib"

# By CMake, from a tree that was moved after it was installed.
mv "$usr" "$dir/moved"
cmake -S consumer -B "$dir/build" -DCMAKE_PREFIX_PATH="$dir/moved" >"$dir/out" 2>&1 &&
    cmake --build "$dir/build" >>"$dir/out" 2>&1 || { cat "$dir/out" >&2; fail "cmake"; }
runs "$dir/build/embed-shared"
runs "$dir/build/embed-cxx"
readelf -d "$dir/build/embed-shared" | grep -q "NEEDED.*\[libkvs.so.$abi\]" || fail "cmake: inner name"
# Without the shared library: what is static does not miss it, and pkg-config finds the archive.
rm "$dir"/moved/lib/libkvs.so*
runs "$dir/build/embed-static"
export PKG_CONFIG_PATH="$dir/moved/lib/pkgconfig"
# shellcheck disable=SC2046
cc examples/embed.c -o "$dir/static" \
    $(pkg-config --define-variable=prefix="$dir/moved" --static --cflags --libs kvs)
runs "$dir/static"

# Which versions CMake may be asked for.
for wanted in 0.1:yes 0.1.0:yes 0.2:no 1.0:no 0.0.9:no 99:no; do
    printf 'set(PACKAGE_FIND_VERSION %s)\ninclude("%s")\nmessage("=${PACKAGE_VERSION_COMPATIBLE}=")\n' \
        "${wanted%:*}" "$dir/moved/lib/cmake/kvs/kvs-config-version.cmake" >"$dir/ask.cmake"
    case $(cmake -P "$dir/ask.cmake" 2>&1) in *=TRUE=*) said=yes ;; *) said=no ;; esac
    test "$said" = "${wanted#*:}" || fail "version ${wanted%:*}: $said"
done
echo "check_install: pkg-config, CMake and static programs work, from a moved tree too"
