#!/usr/bin/env bash
# Makes target/venv with the pinned tools and the package; does nothing if that is up to date.
#
#   dev/setup.sh             the package in place: it loads the newest build in target/
#   dev/setup.sh --wheel     the package as users get it, built and installed with its library
#
# KVS_LIBRARY names the library for the wheel; without it, cargo builds one.
set -euo pipefail
cd "$(dirname "$0")/../../.."
package=bindings/python
venv=target/venv
requirements=$package/dev/requirements.txt

# Steps run side by side, and one at a time may install.
mkdir -p target
exec 9>target/venv.lock
flock 9

.ci/need python3-venv python3 -c 'import ensurepip, venv'

if ! cmp -s "$requirements" "$venv/requirements.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/requirements.txt"
fi

install() {
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
        --force-reinstall "$@"
}
# What the package in place is installed from. Installed anew, it is missing for a moment, perhaps
# to another step that uses it.
in_place=$venv/in-place.txt
if [ "${1:-}" = --wheel ]; then
    rm -f "$in_place"
    install "./$package"
elif ! cat "$package"/{pyproject.toml,hatch_build.py} | cmp -s - "$in_place"; then
    install --editable "./$package"
    cat "$package"/{pyproject.toml,hatch_build.py} >"$in_place"
fi
