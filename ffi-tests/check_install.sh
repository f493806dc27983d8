#!/bin/sh
# Installs libkvs as a packager would and builds programs against it as their authors would.
#
# usage: BUILT=directory-of-libkvs ./check_install.sh           by packaging/install.sh
#        CARGO_CINSTALL='cargo cinstall' ./check_install.sh      by cargo-c
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
    echo "check_install: $1" >&2
    exit 1
}

# installs DESTDIR PREFIX LIBDIR
installs() {
    if test -n "${CARGO_CINSTALL:-}"; then
        $CARGO_CINSTALL --locked --manifest-path ../Cargo.toml ${1:+"--destdir=$1"} "--prefix=$2" \
            "--libdir=$2/$3"
    else
        DESTDIR=$1 PREFIX=$2 LIBDIR=$3 ../packaging/install.sh
    fi
}
export BUILT

# runs PROGRAM [LIBRARIES]: it does what the example embed does.
runs() {
    LD_LIBRARY_PATH=${2:-} "$1" "$dir/store" >"$dir/out" 2>&1 || { cat "$dir/out" >&2; fail "$1 fails"; }
    grep -q "no: Oslo" "$dir/out" || fail "$1 prints something else"
}

# What programs link statically is what the compiler says that Rust's own library needs.
needed=$(echo | rustc --crate-type staticlib --print native-static-libs -o "$dir/probe.a" - 2>&1 |
    sed -n 's/^note: native-static-libs: //p')
test "$needed" = "$(cat ../packaging/static-libs)" ||
    fail "packaging/static-libs is not what rustc says: $needed"
grep -q "\"$(echo "$needed" | tr ' ' ';')\"" ../packaging/kvs-config.cmake ||
    fail "kvs-config.cmake does not link what rustc says: $needed"

# Staged, for another place.
installs "$dir/stage" /opt/kvs lib/any
abi=$(sed -n 's/^#define KVS_ABI_VERSION //p' "$dir/stage/opt/kvs/include/kvs.h")
if test -n "${CARGO_CINSTALL:-}"; then
    cmake_dir=share/cmake/kvs also=./opt/kvs/lib/any/libkvs.so.$abi.0.0
else
    cmake_dir=lib/any/cmake/kvs also=
fi
(cd "$dir/stage" && find . -type f -o -type l) | sort >"$dir/out"
grep . <<END | sort >"$dir/expected"
./opt/kvs/include/kvs.h
./opt/kvs/include/kvs.hpp
./opt/kvs/$cmake_dir/kvs-config-version.cmake
./opt/kvs/$cmake_dir/kvs-config.cmake
./opt/kvs/lib/any/libkvs.a
./opt/kvs/lib/any/libkvs.so
./opt/kvs/lib/any/libkvs.so.$abi
./opt/kvs/lib/any/pkgconfig/kvs.pc
$also
END
diff "$dir/expected" "$dir/out" >&2 || fail "other files are installed"
pc=$dir/stage/opt/kvs/lib/any/pkgconfig/kvs.pc
grep -q '^prefix=/opt/kvs$' "$pc" || fail "kvs.pc: prefix"
grep -q "^Libs.private: $needed\$" "$pc" || fail "kvs.pc does not link what rustc says: $needed"
if grep -q '@[A-Z_]*@' "$pc"; then fail "a name between @ was not replaced"; fi
if PREFIX=relative ../packaging/install.sh 2>/dev/null; then fail "a relative PREFIX is taken"; fi

# In place, by pkg-config.
usr=$dir/usr
installs '' "$usr" lib
export PKG_CONFIG_PATH="$usr/lib/pkgconfig"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' ../Cargo.toml | head -n 1)
test "$(pkg-config --modversion kvs)" = "$version" || fail "kvs.pc has another version"
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
# Where a distribution may put libraries, beside those of another machine.
staged=$dir/stage/opt/kvs
mkdir "$staged/lib/other" && : >"$staged/lib/other/libkvs.a"
mv "$staged/lib/any" "$staged/lib/$(cc -print-multiarch)"
cmake -S consumer -B "$dir/build-arch" -DCMAKE_PREFIX_PATH="$staged" >"$dir/out" 2>&1 ||
    { cat "$dir/out" >&2; fail "cmake does not find libraries in lib/ARCHITECTURE"; }
rm -r "$staged"/lib/*/libkvs.* "$dir/build-arch"
if cmake -S consumer -B "$dir/build-arch" -DCMAKE_PREFIX_PATH="$staged" >"$dir/out" 2>&1; then
    fail "cmake finds what is not there"
fi
# Without the shared library: what is static does not miss it, and pkg-config finds the archive.
rm "$dir"/moved/lib/libkvs.so*
runs "$dir/build/embed-static"
runs "$dir/build/embed-cxx-static"
export PKG_CONFIG_PATH="$dir/moved/lib/pkgconfig"
# shellcheck disable=SC2046
cc examples/embed.c -o "$dir/static" \
    $(pkg-config --define-variable=prefix="$dir/moved" --define-variable=libdir="$dir/moved/lib" \
        --static --cflags --libs kvs)
runs "$dir/static"

# Which versions CMake may be asked for.
file=$(find "$dir/moved" -name kvs-config-version.cmake)
for wanted in 0.1:yes 0.1.0:yes 0.2:no 1.0:no 0.0.9:no 99:no; do
    printf 'set(PACKAGE_FIND_VERSION %s)\ninclude("%s")\nmessage("=${PACKAGE_VERSION_COMPATIBLE}=")\n' \
        "${wanted%:*}" "$file" >"$dir/ask.cmake"
    case $(cmake -P "$dir/ask.cmake" 2>&1) in *=TRUE=*) said=yes ;; *) said=no ;; esac
    test "$said" = "${wanted#*:}" || fail "version ${wanted%:*}: $said"
done
echo "check_install: pkg-config, CMake and static programs work, from a moved tree too"
