"""`make fuzz SECONDS=n`: atheris over each target in turn, each in a process of its own, for n seconds.

    make fuzz TARGET=trust SECONDS=600      one target
    make fuzz TARGET=trust INPUT=FILE       an input that failed, again

Corpora and failing inputs are kept under .cache/fuzz/TARGET.
"""

# ruff: noqa: T201  # a program that people start

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--target", default="")
    parser.add_argument("--input", default="")
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if options.child:
        return fuzz(options.target, options.seconds, options.input)
    return fuzz_all([options.target] if options.target else [], options.seconds, options.input)


def fuzz_all(names: list[str], seconds: int, failing: str) -> int:
    from tests.fuzz.targets import TARGETS

    failed = []
    for name in names or list(TARGETS):
        command = [sys.executable, "-m", "tests.fuzz", "--child", "--target", name, "--seconds", str(seconds)]
        done = subprocess.run([*command, "--input", failing], cwd=ROOT, capture_output=True, text=True, check=False)
        said = done.stderr.splitlines()
        last = next((line for line in reversed(said) if line.startswith(("Done ", "#"))), "")
        print(f"{name:14} {last.strip()}", flush=True)
        if done.returncode:
            failed.append(name)
            print("\n".join(said[-40:]), f"\n  again: make fuzz TARGET={name} INPUT=FILE (see Test unit above)")
    print(f"fuzz: {len(names or TARGETS)} targets, {len(failed)} failed")
    return 1 if failed else 0


def fuzz(name: str, seconds: int, failing: str) -> int:
    """In this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["data_plane", "faos_core", "tunnel", "tuf", "ruamel"]):
        from tests.fuzz.targets import TARGETS, seeds

    folder = ROOT / ".cache" / "fuzz" / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=20", f"-artifact_prefix={folder}/"]
    where = [failing] if failing else [str(corpus)]
    atheris.Setup([f"fuzz-{name}", *options, *where], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
