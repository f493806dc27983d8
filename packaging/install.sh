#!/bin/sh
# Installs the C library: headers, libraries, and what pkg-config and CMake need to find them.
#
#   BUILT=target/release PREFIX=/usr/local LIBDIR=lib DESTDIR=/tmp/stage packaging/install.sh
#
# PREFIX is where the files will be used and LIBDIR the folder of libraries below it, such as
# lib/x86_64-linux-gnu. DESTDIR is where a packager wants them meanwhile, or nothing.
set -eu
cd "$(dirname "$0")/.."
: "${BUILT:=target/release}" "${PREFIX:=/usr/local}" "${LIBDIR:=lib}" "${DESTDIR:=}"
case $PREFIX in /*) ;; *) echo "install.sh: PREFIX must begin with /, not $PREFIX" >&2 && exit 1 ;; esac
test "$(uname -s)" = Linux || { echo "install.sh: knows Linux only" >&2 && exit 1; }

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
abi=$(sed -n 's/^#define KVS_ABI_VERSION //p' include/kvs.h)
lib=$DESTDIR$PREFIX/$LIBDIR
include=$DESTDIR$PREFIX/include

install -d "$include" "$lib/pkgconfig" "$lib/cmake/kvs"
install -m 644 include/kvs.h include/kvs.hpp "$include/"
install -m 644 "$BUILT/libkvs.a" "$lib/"
# Programs ask for the library by the name inside it, which carries the ABI number; only the linker
# asks for the other one.
install -m 755 "$BUILT/libkvs.so" "$lib/libkvs.so.$abi"
ln -sf "libkvs.so.$abi" "$lib/libkvs.so"
install -m 644 packaging/kvs-config.cmake packaging/kvs-config-version.cmake "$lib/cmake/kvs/"
sed -e "s|@PREFIX@|$PREFIX|g" -e "s|@LIBDIR@|$LIBDIR|g" -e "s|@VERSION@|$version|g" \
    -e "s|@STATIC_LIBS@|$(cat packaging/static-libs)|g" packaging/kvs.pc.in >"$lib/pkgconfig/kvs.pc"
chmod 644 "$lib/pkgconfig/kvs.pc"
