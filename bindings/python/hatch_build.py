"""Puts libkvs and its header into the wheel.

The library is built by cargo, unless ``KVS_LIBRARY`` names one. The package is pure Python that
loads it by ctypes, so one wheel serves every Python 3 of its platform: ``py3-none-<platform>``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SUFFIXES = {"win32": ".dll", "darwin": ".dylib"}


class LibraryBuildHook(BuildHookInterface[Any]):
    """Adds what is not Python to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files to add, before the wheel is written."""
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        if version == "editable":
            # The package finds the builds and the header of the source tree that it is in.
            return
        root = Path(self.root).parents[1]
        given = os.environ.get("KVS_LIBRARY")
        library = Path(given) if given else cargo_build(root)
        name = "kvs.dll" if sys.platform == "win32" else f"libkvs{library_suffix()}"
        build_data["force_include"][str(library)] = f"kvs/{name}"
        build_data["force_include"][str(root / "include" / "kvs.h")] = "kvs/include/kvs.h"


def library_suffix() -> str:
    """Return how the file name of a shared library ends."""
    return SUFFIXES.get(sys.platform, ".so")


def cargo_build(root: Path) -> Path:
    """Build the library of the crate at ``root`` and return where cargo put it."""
    command = ["cargo", "build", "--release", "--lib", "--locked"]
    try:
        done = subprocess.run(
            [*command, "--message-format=json-render-diagnostics"],
            cwd=root,
            check=True,
            stdout=subprocess.PIPE,
        )
    except FileNotFoundError:
        sys.exit("kvs needs cargo to be built: install Rust, or set KVS_LIBRARY to a libkvs")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(command)} failed with exit status {error.returncode}")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if (
            message["reason"] == "compiler-artifact"
            and "cdylib" in message["target"]["crate_types"]
        ):
            for file in message["filenames"]:
                if file.endswith(library_suffix()):
                    return Path(file)
    sys.exit(f"{' '.join(command)} made no shared library")
