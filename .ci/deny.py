"""Checks the dependencies against deny.toml: licences, bans, sources.

The same questions as `cargo deny check licenses bans sources`, asked of what cargo itself knows, so
that they are answered on every machine that can build. Advisories need a database from the network
and are left to cargo-deny.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def is_allowed(expression: str, allowed: set[str]) -> bool:
    """Whether a SPDX expression can be met with the licences of `allowed`."""
    # `A/B` is how old manifests say `A OR B`; `WITH X` only adds to what a licence permits.
    expression = re.sub(r"\s+WITH\s+[^\s()]+", "", expression.replace("/", " OR "))
    operators = {"(": "(", ")": ")", "AND": "and", "OR": "or"}
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    # Nothing of the expression reaches `eval` but operators: licences become True or False.
    return bool(eval(" ".join(operators.get(token, str(token in allowed)) for token in tokens)))


def complaints(policy: dict, packages: list[dict]) -> list[str]:
    allowed = set(policy["licenses"]["allow"])
    exceptions = {rule["crate"]: set(rule["allow"]) for rule in policy["licenses"]["exceptions"]}
    banned = {rule["crate"] for rule in policy["bans"]["deny"]}
    found = []
    for package in packages:
        name, licence = package["name"], package["license"] or "none stated"
        who = f"{name} {package['version']}"
        if not is_allowed(licence, allowed | exceptions.get(name, set())):
            found.append(f"{who}: licence {licence} is not in deny.toml")
        if name in banned:
            found.append(f"{who}: banned in deny.toml")
        # Without a source it is ours; cargo asks no registry but its default one.
        if not (package["source"] or "registry+").startswith("registry+"):
            found.append(f"{who}: from {package['source']}, not from a registry")
    return found


def main() -> int:
    policy = tomllib.loads((ROOT / "deny.toml").read_text(encoding="utf-8"))
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--all-features"]
    told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    packages = json.loads(told.stdout)["packages"]
    found = complaints(policy, packages)
    for complaint in found:
        print(complaint)
    print(f"{len(packages)} packages, {len(found)} complaint(s)")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
