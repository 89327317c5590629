"""Generates the Python stubs beside the .proto files; with --check, says which committed stubs differ.

Run by `make proto` and, as the drift check, by `make check`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import grpc_tools  # type: ignore[import-untyped]  # ships no types
from grpc_tools import protoc

PROTO_ROOT = Path(__file__).resolve().parent.parent / "proto"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"


def generate(out: Path) -> None:
    """Write the stubs of every .proto under PROTO_ROOT below `out`. Raises SystemExit where protoc refuses."""
    sources = sorted(str(p.relative_to(PROTO_ROOT)) for p in PROTO_ROOT.rglob("*.proto"))
    services = [s for s in sources if "service " in (PROTO_ROOT / s).read_text()]
    base = ["protoc", f"-I{PROTO_ROOT}", f"-I{WELL_KNOWN}"]
    run([*base, f"--python_out={out}", f"--mypy_out=quiet:{out}", *sources])
    run([*base, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services])


def run(arguments: list[str]) -> None:
    if protoc.main(arguments) != 0:
        sys.exit("protoc failed: see its message above")


def stubs(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): p.read_text()
        for p in sorted(root.rglob("*_pb2*.py*"))
        if "__pycache__" not in p.parts
    }


def drifted() -> list[str]:
    """Names of stubs that are not what the .proto files generate."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh, committed = stubs(Path(scratch)), stubs(PROTO_ROOT)
    return sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the committed stubs differ")
    if not parser.parse_args().check:
        generate(PROTO_ROOT)
        return
    if names := drifted():
        sys.exit("stubs differ from their .proto files; run `make proto`:\n  " + "\n  ".join(names))


if __name__ == "__main__":
    main()
