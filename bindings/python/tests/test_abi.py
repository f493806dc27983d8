"""What is declared to ctypes is what the header says, and only a library that fits is loaded."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import check_python, run_python

import kvs
from kvs import _abi

# The C types of the header, and what stands for each. Pointers to bytes and to handles are told
# apart below.
SCALARS: dict[str, Any] = {
    "void": None,
    "kvs_log_fn": _abi.LOGGER_FN,
    "kvs_status": ctypes.c_int32,
    "int32_t": ctypes.c_int32,
    "uint16_t": ctypes.c_uint16,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
}
HANDLES = (
    "kvs_store",
    "kvs_options",
    "kvs_buf",
    "kvs_batch",
    "kvs_iter",
    "kvs_server",
    "kvs_stats",
)


def header() -> str:
    text = (Path(kvs.get_include()) / "kvs.h").read_text(encoding="ascii")
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)


def prototypes() -> dict[str, tuple[str, list[str]]]:
    """Return the result and the parameters of every function that the header declares."""
    found = {}
    pattern = r"\bKVS_API\s+([\w\s*]+?)\b(kvs_\w+)\s*\(([^)]*)\)[^;]*;"
    for result, name, parameters in re.findall(pattern, header()):
        listed = [] if parameters.strip() == "void" else parameters.split(",")
        types = [spelled(re.sub(r"\w+$", "", parameter.strip())) for parameter in listed]
        found[name] = (spelled(result.replace("KVS_MUST_USE", "")), types)
    return found


def spelled(c_type: str) -> str:
    """Return a C type in one spelling: no const, no struct, one space before the stars."""
    words = re.sub(r"\b(const|struct)\b", " ", c_type).replace("*", " * ").split()
    return (words[0] + " " + "".join(words[1:])).strip()


def accepted(c_type: str) -> list[Any]:
    """Return what may stand for a C type in the table."""
    base, _, stars = c_type.partition(" ")
    if not stars:
        return [SCALARS[base]]
    if stars == "**":
        return [ctypes.POINTER(ctypes.c_void_p)]
    if base in HANDLES:
        return [ctypes.c_void_p]
    if base in {"void", "char"}:
        return [ctypes.c_void_p, ctypes.c_char_p]
    return [ctypes.POINTER(SCALARS[base])]


def test_the_table_has_the_functions_of_the_header_and_no_others() -> None:
    assert sorted(_abi.FUNCTIONS) == sorted(prototypes())


@pytest.mark.parametrize("name", sorted(_abi.FUNCTIONS))
def test_the_table_has_the_types_of_the_header(name: str) -> None:
    result, parameters = prototypes()[name]
    restype, argtypes = _abi.FUNCTIONS[name]
    assert restype in accepted(result)
    assert len(argtypes) == len(parameters)
    for argtype, parameter in zip(argtypes, parameters):
        assert argtype in accepted(parameter), parameter


def test_data_never_comes_out_as_a_c_string() -> None:
    """ctypes would cut it at the first zero byte and forget the pointer."""
    assert ctypes.c_char_p not in {restype for restype, _ in _abi.FUNCTIONS.values()}


def test_every_function_of_the_loaded_library_is_declared() -> None:
    for name, (restype, argtypes) in _abi.FUNCTIONS.items():
        function = getattr(_abi.lib, name)
        assert (function.restype, tuple(function.argtypes)) == (restype, argtypes)


def test_numbers_are_those_of_the_header() -> None:
    defined = dict(
        re.findall(r"^#define KVS_(\w+) (-?\d+|UINT64_MAX)$", header(), flags=re.MULTILINE)
    )
    defined = {name: value.replace("UINT64_MAX", str(2**64 - 1)) for name, value in defined.items()}
    for name, value in vars(_abi).items():
        if name.isupper() and isinstance(value, int):
            assert defined.get(name, defined.get(name.replace("ABI_", ""))) == str(value), name
    kinds = "(ERR|OPT|DURABILITY|READ|WRITE|EXPIRY|SCAN|LOG)_"
    ours = {name for name in vars(_abi) if re.match(kinds, name)}
    assert ours == {name for name in defined if re.match(kinds, name)}


def test_names_of_numbers_are_those_of_the_library() -> None:
    for name in (
        "OK",
        "NOT_FOUND",
        "END",
        "MISMATCH",
        "TOO_SMALL",
        "TIMEOUT",
        *(n for n in vars(_abi) if "ERR_" in n),
    ):
        assert _abi.text(_abi.lib.kvs_status_name(getattr(_abi, name))) == f"KVS_{name}"


def test_version_is_that_of_the_library() -> None:
    number = _abi.lib.kvs_version_number()
    parts = (number >> 24, number >> 16 & 0xFF, number >> 8 & 0xFF)
    assert kvs.__version__ == ".".join(map(str, parts))


def test_the_header_is_where_get_include_says() -> None:
    assert "KVS_ABI_VERSION" in header()


def test_a_library_of_another_abi_is_refused() -> None:
    with pytest.raises(ImportError, match=r"ABI 4711.*ABI 0") as caught:
        _abi.load(_abi.library_path, abi_version=4711)
    assert str(_abi.library_path) in str(caught.value)
    assert kvs.__version__ in str(caught.value)


def import_with(library: object) -> str:
    """Return what an interpreter says that is told to use ``library``."""
    done = run_python(
        "import os, sys; os.environ['KVS_LIBRARY'] = sys.argv[1]; import kvs", library
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_a_library_that_is_none_is_an_import_error(tmp_path: Path) -> None:
    missing, text = tmp_path / "missing.so", tmp_path / "text.so"
    text.write_text("no library")
    import _ctypes

    foreign: str = _ctypes.__file__
    assert import_with(missing) == f"ImportError: KVS_LIBRARY names {missing}, which is not a file"
    assert import_with(text).startswith(f"ImportError: cannot load {text}: ")
    assert re.match(r"ImportError: .* has no kvs_check_abi", import_with(foreign))


def test_the_override_is_loaded_from_anywhere(tmp_path: Path) -> None:
    """The path is the user's, so it may be relative and hold spaces and other letters."""
    directory = tmp_path / "a bïg dir"
    directory.mkdir()
    shutil.copy(_abi.library_path, directory / "renamed.so")
    out = check_python(
        """
        import os, sys
        os.chdir(sys.argv[1])
        os.environ["KVS_LIBRARY"] = "renamed.so"
        import kvs
        print(kvs._abi.library_path)
        with kvs.open("s") as store:
            store[b"k"] = b"v"
        """,
        directory,
    )
    assert out.strip() == str(directory / "renamed.so")


def test_a_package_with_its_library_works_from_any_directory(tmp_path: Path) -> None:
    """As it is installed: the library beside the module, the header below, no source tree."""
    package = tmp_path / "some where" / "kvs"
    source = Path(kvs.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(_abi.library_path, package / _abi.LIBRARY_NAME)
    (package / "include").mkdir(exist_ok=True)
    shutil.copy(Path(kvs.get_include()) / "kvs.h", package / "include")
    out = check_python(
        """
        import os, sys
        os.environ.pop("KVS_LIBRARY", None)
        os.chdir("/")
        sys.path.insert(0, sys.argv[1])
        import kvs
        print(kvs._abi.library_path)
        print(os.listdir(kvs.get_include()))
        """,
        package.parent,
    )
    assert out.splitlines() == [str(package / _abi.LIBRARY_NAME), "['kvs.h']"]


def test_a_package_without_its_library_says_how_to_get_one(tmp_path: Path) -> None:
    package = tmp_path / "kvs"
    source = Path(kvs.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    done = run_python(
        """
        import os, sys
        os.environ.pop("KVS_LIBRARY", None)
        sys.path.insert(0, sys.argv[1])
        import kvs
        """,
        tmp_path,
    )
    assert done.returncode == 1
    assert "cargo build --release" in done.stderr.splitlines()[-1]
    assert os.fspath(package / _abi.LIBRARY_NAME) in done.stderr.splitlines()[-1]
