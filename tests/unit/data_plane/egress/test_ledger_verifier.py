"""The verifier as an auditor has it: one file, another machine, nothing of ours installed."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from data_plane.egress import ledger_verifier
from data_plane.egress.ledger import Entry, open_ledger
from data_plane.egress.reader import summarise
from data_plane.egress.records import segments
from tests.patience import PATIENCE_S


async def write(folder: Path) -> None:
    async with open_ledger(folder) as ledger:
        for classes in ({"OPERATIONAL": 1}, {"OPERATIONAL": 1, "IDENTIFIER": 2}, {}):
            await ledger.append(Entry(datetime.now(UTC), "tunnel", "cp:1", "/m", "M", classes, b"12345"))


def run_alone(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Isolated mode, from a copy: neither the repository nor any installed package can be imported."""
    alone = shutil.copy(Path(ledger_verifier.__file__), tmp_path / "verifier.py")
    command = [sys.executable, "-I", "-S", str(alone), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=tmp_path)


async def test_verifier_runs_alone_and_says_what_left(tmp_path: Path) -> None:
    """An auditor who trusts nothing of ours needs only this file and Python."""
    await write(tmp_path / "ledger")

    text = run_alone(tmp_path, str(tmp_path / "ledger"))
    report = json.loads(run_alone(tmp_path, str(tmp_path / "ledger"), "--json").stdout)

    assert text.returncode == 0, text.stderr
    assert text.stdout.startswith("HOLDS")
    assert report["by_class"] == {
        name: {"messages": 1, "size_bytes": 5} for name in ("OPERATIONAL", "IDENTIFIER", "EMPTY")
    }
    assert report["by_door"] == {"tunnel": {"messages": 3, "size_bytes": 15}}


async def test_everybody_counts_a_message_under_the_same_class(tmp_path: Path) -> None:
    """Where the running node, its reader and an auditor's verifier differ, one of them says too little of what left."""
    await write(tmp_path / "ledger")

    async with open_ledger(tmp_path / "ledger") as ledger:
        running = {name: total.leaves for name, total in ledger.meter.totals().items() if total.leaves}
    read = {name: tally.messages for name, tally in summarise(tmp_path / "ledger").by_class.items()}
    verified = {name: tally.messages for name, tally in ledger_verifier.verify(tmp_path / "ledger").by_class.items()}

    assert running == read == verified == dict.fromkeys(("OPERATIONAL", "IDENTIFIER", "EMPTY"), 1)


async def test_verifier_exits_1_with_a_sentence(tmp_path: Path) -> None:
    """Scripts look at the exit code, people at the sentence."""
    await write(tmp_path / "ledger")
    (segment,) = segments(tmp_path / "ledger")
    segment.write_bytes(segment.read_bytes()[:-1] + b"6")

    done = run_alone(tmp_path, str(tmp_path / "ledger"))

    assert done.returncode == 1
    assert f"Record 2 in {segment.name} is cut off or overwritten" in done.stdout


def test_verifier_of_no_ledger_says_so(tmp_path: Path) -> None:
    """A wrong path must not look like an intact, empty ledger."""
    assert run_alone(tmp_path, str(tmp_path / "nothing")).returncode == 1
    assert "removed" in ledger_verifier.verify(tmp_path).problem


async def test_verifier_takes_a_witness(tmp_path: Path) -> None:
    """The control plane's copy of a head is what the whole folder is held against."""
    await write(tmp_path / "ledger")
    report = ledger_verifier.verify(tmp_path / "ledger")

    held = run_alone(tmp_path, str(tmp_path / "ledger"), "--witness", f"3:{report.root_sha256}")
    broken = run_alone(tmp_path, str(tmp_path / "ledger"), "--witness", f"2:{report.root_sha256}")
    malformed = run_alone(tmp_path, str(tmp_path / "ledger"), "--witness", "2")

    assert (held.returncode, broken.returncode, malformed.returncode) == (0, 1, 2)
    assert "history was rewritten" in broken.stdout
