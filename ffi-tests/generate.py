#!/usr/bin/env python3
"""Writes the checks that follow from the header alone: generate.py HEADER > generated.c

For each function that returns a status, one call per rule that the head of kvs.h states:

* each pointer argument NULL in turn: KVS_ERR_NULL, and the text names the argument;
* each length of an input beyond what an object can have: KVS_ERR_INVALID, naming the input;
* each handle closed, or inherited through a fork: the status that says so;
* and after each of them: outputs are NULL or 0, and memory of the caller is as it was.

Each of these statuses has to stand in the comment of its function, or of the one that it refers to.

What else is passed stands in INPUTS. A parameter that is not there is an error, so that a new
function cannot go unchecked.

For each option, what its comment says of it: its default, and the smallest and the largest number
that it takes. A comment that does not say so is an error.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

HANDLES = {"store", "options", "batch", "iter", "server"}

# What is passed where a value is needed: by name, or by function and name.
INPUTS = {
    "key": '"k"',
    "key_len": "1",
    "value": '"v"',
    "value_len": "1",
    "expected": '"v"',
    "expected_len": "1",
    "desired": '"w"',
    "desired_len": "1",
    "start": '"a"',
    "start_len": "1",
    "end": '"z"',
    "end_len": "1",
    "prefix": '"k"',
    "prefix_len": "1",
    "packed_keys": r'"\1\0\0\0k"',
    "packed_len": "5",
    "count": "1",
    "expiry_ms": "1",
    "flags": "0",
    "timeout_ms": "0",
    "capacity": "sizeof dst",
    "stats_len": "sizeof stats",
    "path_utf8": "f->unused",
    "dest_utf8": "f->unused",
    "address": '"127.0.0.1:0"',
    "abi_version": "KVS_ABI_VERSION",
    "max_level": "KVS_LOG_OFF",
    "kvs_options_set_str id": "KVS_OPT_ENGINE",
    "kvs_options_set_u64 value": "1",
    "id": "KVS_OPT_CREATE",
}
# NULL is an answer here.
NULL_ALLOWED = {
    ("kvs_open", "options"),
    ("kvs_server_start", "options"),
    ("kvs_swap", "previous"),
    ("kvs_compare_and_swap", "actual"),
    ("kvs_set_expiry", "previous_ms"),
    ("kvs_set_logger", "fn"),
    ("kvs_set_logger", "userdata"),
}
# Pointers whose length has another name than theirs.
LENGTHS = {"packed_keys": "packed_len"}
# Closing is what ends a handle, so it may be done twice.
NEVER_CLOSED = {"kvs_close"}


class Parameter(NamedTuple):
    type: str
    name: str

    @property
    def is_pointer(self) -> bool:
        return self.type.endswith("*") or self.type == "kvs_log_fn"

    @property
    def is_handle(self) -> bool:
        return self.type.removeprefix("const ") in {f"kvs_{name} *" for name in HANDLES}

    @property
    def is_output(self) -> bool:
        return (
            self.type.endswith("*")
            and not self.is_handle
            and self.name != "userdata"
            and (self.type.endswith("**") or not self.type.startswith("const "))
        )


class Function(NamedTuple):
    result: str
    name: str
    parameters: list[Parameter]


def functions(header: str) -> list[Function]:
    """The functions that a header declares, in its order."""
    code = re.sub(r"/\*.*?\*/", "", header, flags=re.S)
    found = re.findall(r"^KVS_API\b(.*?)\b(kvs_\w+)\((.*?)\)\s*;", code, flags=re.S | re.M)
    result = []
    for before, name, listed in found:
        words = " ".join(before.replace("KVS_MUST_USE", "").replace("*", " *").split())
        result.append(Function(words, name, parameters(listed)))
    return result


def parameters(listed: str) -> list[Parameter]:
    if listed.strip() == "void":
        return []
    split = [re.fullmatch(r"\s*(.*?)(\w+)\s*", part, flags=re.S) for part in listed.split(",")]
    assert all(split), listed
    spelled = [(" ".join(part[1].replace("*", " *").split()), part[2]) for part in split if part]
    return [Parameter(re.sub(r"\* (?=\*)", "*", kind), name) for kind, name in spelled]


def value(function: Function, parameter: Parameter) -> str:
    if parameter.is_handle:
        return f"f->{parameter.name}"
    if parameter.is_output:
        return parameter.name if parameter.name == "dst" else f"&{parameter.name}"
    if parameter.is_pointer and parameter.type in {"kvs_log_fn", "void *"}:
        return "NULL"
    for name in (f"{function.name} {parameter.name}", parameter.name):
        if name in INPUTS:
            return INPUTS[name]
    sys.exit(f"generate.py: {function.name} has {parameter.type} {parameter.name}: what is passed?")


def case(function: Function, status: str, words: str, changed: dict[str, str]) -> str:
    """A block that calls `function` and looks at what came of it."""
    before, after, arguments = [], [], []
    for parameter in function.parameters:
        name = parameter.name
        argument = changed.get(name, value(function, parameter))
        needed = f"sizeof {name}" in [INPUTS.get(p.name) for p in function.parameters]
        if parameter.is_output and (argument != "NULL" or needed):
            if name == "dst":
                before.append(f"char dst[64]; memset(dst, 0x5a, sizeof dst);")
                after.append("CHECK(all_bytes_are(0x5a, dst, sizeof dst));")
            elif parameter.type.endswith("**"):
                kind = parameter.type[:-1]
                before.append(f"{kind}{name} = ({kind})1;")
                after.append(f"CHECK({name} == NULL);")
            else:
                kind = parameter.type[:-1]
                before.append(f"{kind}{name}; memset(&{name}, 0x5a, sizeof {name});")
                if argument != "NULL":
                    after.append(f"CHECK(all_bytes_are(0, &{name}, sizeof {name}));")
                else:
                    after.append(f"(void){name};")
        arguments.append(argument)
    call = f"{function.name}({', '.join(arguments)})"
    lines = [*declarations_first(before), f'CHECK_FAILS({status}, "{words}",\n        {call});', *after]
    return "    {\n" + "".join(f"        {line}\n" for line in lines) + "    }\n"


def declarations_first(lines: list[str]) -> list[str]:
    """C89 has them before statements."""
    parts = [part.strip() + ";" for line in lines for part in line.split(";") if part.strip()]
    return [p for p in parts if not p.startswith("memset")] + [
        p for p in parts if p.startswith("memset")
    ]


def checker(signature: str, blocks: list[str]) -> str:
    return f"{signature} {{\n{''.join(blocks)}}}\n\n"


def statuses(header: str) -> dict[str, set[str]]:
    """The statuses that the comment of each function names after Returns."""
    said: dict[str, set[str]] = {}
    referred: dict[str, list[str]] = {}
    for comment, name in re.findall(
        r"/\*\*\n((?: \*.*\n)*?) \*/\nKVS_API\b[^;]*?\b(kvs_\w+)\(", header
    ):
        text = " ".join(line.removeprefix(" *").strip() for line in comment.splitlines())
        returns = re.search(r"Returns:(.*?)(?=Threads:)", text)
        of_returns = returns[1] if returns else ""
        said[name] = set(re.findall(r"\bKVS_[A-Z_]+\b", of_returns))
        others = re.findall(r"\bas (kvs_\w+)(?: and (kvs_\w+))?", of_returns)
        referred[name] = [other for pair in others for other in pair if other]
    for name, others in referred.items():
        # A comment that refers refers to one that does not, or that has been filled in before.
        for other in others:
            said[name] |= said[other]
    return said


class Option(NamedTuple):
    name: str
    default: str
    # The numbers that it takes; None where they are not a range.
    lowest: int | None
    highest: int | None


def options(header: str) -> list[Option]:
    """The options that take a number, as their comments describe them."""
    defined = re.findall(r"/\*\*\n((?: \*.*\n)*?) \*/\n#define (KVS_\w+) (\d+)$", header, flags=re.M)
    numbers = {name: int(number) for _, name, number in defined}
    result = []
    for comment, name, _ in defined:
        text = " ".join(line.removeprefix(" *").strip() for line in comment.splitlines())
        if not name.startswith("KVS_OPT_") or text.startswith("Text: "):
            continue
        default = re.search(r"Default: (\d+|KVS_\w+)\b", text)
        among = re.search(r"one of (KVS_\w+_)\*", text)
        between = re.search(r"\b(\d+) to (\d+)\b", text)
        if among:
            choices = [n for other, n in numbers.items() if other.startswith(among[1])]
            lowest, highest = min(choices), max(choices)
        elif between:
            lowest, highest = int(between[1]), int(between[2])
        elif text.startswith("Switch: 1 ") and "0 " in text:
            lowest, highest = 0, 1
        elif name == "KVS_OPT_SERVER_LISTEN_FD":
            lowest = highest = None
        else:
            sys.exit(f"generate.py: which numbers does {name} take?")
        units = {"_MS": "milliseconds", "_BYTES": "bytes", "PERCENT": "percent"}
        if missing := [unit for part, unit in units.items() if part in name and unit not in text]:
            sys.exit(f"generate.py: {name} is not in {missing[0]}")
        if not default:
            sys.exit(f"generate.py: what is the default of {name}?")
        result.append(Option(name, default[1], lowest, highest))
    return result


def option_rows(found: list[Option]) -> str:
    rows = "".join(
        f'    {{{o.name}, "{o.name}", {o.default}u, {int(o.lowest is not None)}, '
        f"{o.lowest or 0}u, {o.highest or 0}u}},\n"
        for o in found
    )
    rows = re.sub(r"\b(KVS_\w+)u,", r"\1,", rows)
    return f"const option_row option_rows[] = {{\n{rows}    {{0, NULL, 0, 0, 0, 0}},\n}};\n\n"


def main() -> int:
    header = Path(sys.argv[1]).read_text(encoding="utf-8")
    described = options(header)
    found = functions(header)
    fallible = [f for f in found if f.result == "kvs_status"]
    said = statuses(header)

    def checked(function: Function, status: str, words: str, changed: dict[str, str]) -> str:
        if status not in said[function.name]:
            sys.exit(f"generate.py: the comment of {function.name} does not name {status}")
        return case(function, status, words, changed)

    for f in fallible:
        if any(p.name == "flags" for p in f.parameters):
            checked(f, "KVS_ERR_UNSUPPORTED", "", {})
    nulls = [
        checked(f, "KVS_ERR_NULL", f"argument {p.name} is NULL", {p.name: "NULL"})
        for f in fallible
        for p in f.parameters
        if p.is_pointer and (f.name, p.name) not in NULL_ALLOWED
    ]
    lengths = []
    for f in fallible:
        names = {p.name for p in f.parameters}
        for p in f.parameters:
            length = LENGTHS.get(p.name, f"{p.name}_len")
            if p.is_pointer and length in names and not p.is_output:
                lengths.append(checked(f, "KVS_ERR_INVALID", p.name, {length: "(size_t)-1"}))

    def on(kinds: set[str], status: str, words: str) -> list[str]:
        return [
            checked(f, status, words, {})
            for f in fallible
            if f.parameters
            and f.parameters[0].name in kinds
            and not (status == "KVS_ERR_CLOSED" and f.name in NEVER_CLOSED)
        ]

    closed = on({"store", "iter"}, "KVS_ERR_CLOSED", "closed")
    forked = on({"store", "iter", "server"}, "KVS_ERR_FORKED", "parent")
    frees = []
    for f in found:
        if f.result == "kvs_status" or not f.parameters or not f.parameters[0].is_pointer:
            continue
        arguments = ", ".join("NULL" if p.is_pointer else value(f, p) for p in f.parameters)
        call = f"{f.name}({arguments})"
        frees.append(f"    {call};\n" if f.result == "void" else f"    CHECK({call} == 0);\n")

    print("/* Written by generate.py from kvs.h: what follows from the header alone. */")
    print('#include "harness.h"\n\n#include <string.h>\n')
    print(checker("void check_null_is_refused(const fixture *f)", nulls))
    print(checker("void check_negative_lengths_are_refused(const fixture *f)", lengths))
    print(checker("void check_closed_is_refused(const fixture *f)", closed))
    print(checker("void check_forked_is_refused(const fixture *f)", forked))
    print(checker("void check_null_is_accepted_elsewhere(void)", frees))
    print(option_rows(described))
    counts = f"{len(nulls)} NULL, {len(lengths)} lengths, {len(closed)} closed, {len(forked)} forked"
    counts += f", {len(described)} options"
    print(f"generate.py: {len(found)} functions: {counts}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
