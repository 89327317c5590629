from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data_plane.ceiling.models import Ceiling
from data_plane.egress.service import ledger_folder, open_egress
from faos.tunnel.v1 import tunnel_pb2 as tunnel

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos

MESSAGES = 4


@pytest.fixture
async def node(tmp_path: Path) -> Path:
    """A node's data folder from which four heartbeats left."""
    async with open_egress(tmp_path / "node", Ceiling()) as egress:
        for sequence in range(MESSAGES):
            frame = tunnel.NodeFrame(heartbeat=tunnel.NodeHeartbeat(sequence=sequence + 7))
            await egress.gate.seal(
                frame, door="tunnel", destination="cloud:7443", method="/faos.tunnel.v1.Tunnel/Session"
            )
    return tmp_path / "node"


async def test_show_lists_what_left_and_how_much(node: Path, run_faos: "RunFaos") -> None:
    """The auditor's first look: each message with door, kind, size and classes."""
    done = await run_faos("ledger", "show", "--data", "node")
    last = await run_faos("ledger", "show", "--data", "node", "--limit", "1", "-o", "json")

    lines = [line.split() for line in done.out.splitlines()]
    assert [line[0] for line in lines] == ["N", "0", "1", "2", "3"]
    assert lines[1][2:5] == ["tunnel", "Session", "NodeFrame"]
    assert f"4 shown of {MESSAGES} messages" in done.err
    assert [item["index"] for item in last.json["items"]] == [3]


async def test_body_is_decoded_from_the_bytes_that_were_sent(node: Path, run_faos: "RunFaos") -> None:
    """ "What exactly did message 2 say" is the question that the ledger exists for."""
    done = await run_faos("ledger", "show", "--data", "node", "--body", "2")
    beyond = await run_faos("ledger", "show", "--data", "node", "--body", "9")

    assert done.json["body"]["heartbeat"]["sequence"] == "9"
    assert (beyond.code, "faos ledger show" in beyond.err) == (1, True)


async def test_verify_holds_and_says_the_head(node: Path, run_faos: "RunFaos") -> None:
    """Exit code 0 and the tree head, which is the witness for later."""
    done = await run_faos("ledger", "verify", "--data", "node", "-o", "json")
    head = f"{done.json['size']}:{done.json['root_sha256']}"
    again = await run_faos("ledger", "verify", "--data", "node", "--witness", head)
    other = await run_faos("ledger", "verify", "--data", "node", "--witness", f"2:{'0' * 64}")

    assert (done.code, done.json["ok"], done.json["size"]) == (0, True, MESSAGES)
    assert (again.code, again.out.startswith("HOLDS")) == (0, True)
    assert (other.code, "history was rewritten" in other.out) == (1, True)


async def test_one_changed_byte_does_not_hold(node: Path, run_faos: "RunFaos") -> None:
    """The promise of the ledger; exit code 1 so that a cron job can rely on it."""
    (segment,) = ledger_folder(node).glob("*.seg")
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)

    done = await run_faos("ledger", "verify", "--data", "node")
    shown = await run_faos("ledger", "show", "--data", "node")

    assert (done.code, done.out.startswith("DOES NOT HOLD")) == (1, True)
    assert (shown.code, "Traceback" in shown.err) == (1, False)


async def test_folder_without_ledger_is_said_so(run_faos: "RunFaos") -> None:
    """ "0 messages left" about the wrong folder would be a false proof."""
    for action in ("show", "verify"):
        done = await run_faos("ledger", action, "--data", "elsewhere")

        assert (done.code, "There is no ledger" in done.err) == (1, True)
