"""A publisher whose key is in an HSM, at the command line: real commands, library and control plane."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers import softhsm
from tests.system.harness import TENANT, RunningControlPlane

if TYPE_CHECKING:
    from tests.unit.faos_cli.conftest import RunFaos

pytestmark = pytest.mark.needs("softhsm")

BEDS = """
apiVersion: faos/v1
kind: KnowledgeBase
metadata: {{name: handbook}}
spec: {{folder: {folder}}}
"""


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The reference of a key that cannot be read."""
    with softhsm.token(tmp_path / "hsm") as token:
        monkeypatch.setenv("FAOS_KEY_PIN", token.pin)
        yield token.reference


async def test_publisher_in_an_hsm_applies_and_rolls_back_and_the_history_says_why(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path, key: str
) -> None:
    """The way of a bank: the control plane cannot publish, a person with a token can, and an auditor reads why."""
    await plane.create_tenant()
    file = tmp_path / "beds.yaml"
    file.write_text(BEDS.format(folder="old"))
    assert (await run_faos("apply", "-f", "beds.yaml")).code == 0

    moved = await run_faos("tenant", "publisher", "set", "--key", key, "--yes")
    shown = await run_faos("tenant", "publisher", "show", "-o", "json")
    file.write_text(BEDS.format(folder="new"))
    unsigned = await run_faos("apply", "-f", "beds.yaml")
    differs = await run_faos("diff", "-f", "beds.yaml")
    signed = await run_faos("apply", "-f", "beds.yaml", "--sign", key, "--yes", "--reason", "ward moved")
    never = await run_faos("rollback", "1", "--sign", key, "--yes")
    back = await run_faos("rollback", "2", "--sign", key, "--yes", "--reason", "it moved back")
    history = await run_faos("get", "revisions", "-o", "json")
    deleted = await run_faos("delete", "kb", "handbook", "--sign", key, "--yes")

    public = await run_faos("key", "show", key, "-o", "json")
    assert moved.code == 0, moved.err
    assert public.json["key"] in str(shown.json)
    assert not (plane.data_dir / "keys" / TENANT / "targets.pem").exists()
    assert (unsigned.code, "faos apply --sign KEYREF" in unsigned.err) == (1, True)
    assert (differs.code, "old" in differs.out, "new" in differs.out) == (1, True, True)
    assert signed.code == 0, signed.err
    assert (never.code, "--adopt" in never.err) == (1, True), "the control plane's word alone is no reason to sign"
    assert back.code == 0, back.err
    reasons = [each.get("reason", "") for each in history.json["items"]]
    assert reasons[:2] == ["it moved back", "ward moved"]
    assert all(each["author"] for each in history.json["items"])
    assert deleted.code == 0, deleted.err


async def test_what_is_typed_wrong_signs_nothing(
    plane: RunningControlPlane, run_faos: "RunFaos", tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong PIN, a token that is not in its slot, nobody to say yes: nothing is published, and each is said."""
    await plane.create_tenant()
    (tmp_path / "beds.yaml").write_text(BEDS.format(folder="old"))
    assert (await run_faos("tenant", "publisher", "set", "--key", key, "--yes")).code == 0

    unanswered = await run_faos("apply", "-f", "beds.yaml", "--sign", key)
    absent = await run_faos("apply", "-f", "beds.yaml", "--sign", "hsm:2?label=another", "--yes")
    monkeypatch.setenv("FAOS_KEY_PIN", "0000")
    mistyped = await run_faos("apply", "-f", "beds.yaml", "--sign", key, "--yes")

    for done in (unanswered, absent, mistyped):
        assert done.code == 1, done.err
        assert "Traceback" not in done.err
    assert "PIN" in mistyped.err
    listed = await run_faos("get", "revisions", "-o", "json")
    assert listed.json["items"] == []


async def test_root_does_not_move_where_nobody_can_say_yes(run_faos: "RunFaos") -> None:
    """A script that forgot --yes is told so, as it is when it signs; a question on its standard output helps nobody."""
    done = await run_faos("tenant", "root", "set", "--key", "file:root.key")

    assert (done.code, done.out, "--yes" in done.err) == (1, "", True)
