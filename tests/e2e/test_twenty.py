"""Twenty of twenty: each a fresh installation with fresh numbers, through real processes, at temperature 0."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import fresh_ports, up_once

pytestmark = [pytest.mark.needs("model", "embedder"), pytest.mark.slow]

RUNS = 20


@pytest.mark.parametrize("attempt", range(1, RUNS + 1))
def test_both_numbers_stand_in_the_answers_and_the_journal_shows_why(tmp_path: Path, attempt: int) -> None:
    """One wrong answer in twenty is what a newcomer would meet first; a right one by luck would be worse."""
    facts = up_once(tmp_path, *fresh_ports())

    document, tool = facts["numbers"]["document"], facts["numbers"]["tool"]
    first, second = facts["answers"]
    assert document in first["text"], first
    assert tool in second["text"], second
    assert document in retrieved_text(facts["journal"][first["run_id"]])
    (call,) = steps_of(facts["journal"][second["run_id"]], "STEP_KIND_TOOL")
    assert call["request"]["arguments"] == {"ward": "cardiology"}
    assert tool in call["result"]["text"]
    for answer, number in ((first, document), (second, tool)):
        model = steps_of(facts["journal"][answer["run_id"]], "STEP_KIND_MODEL")[-1]
        assert number in model["result"]["text"]
        assert model["attempts"] == 1
    assert facts["search"]["found"] == 0


def steps_of(steps: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [step for step in steps if step["kind"] == kind]


def retrieved_text(steps: list[dict[str, Any]]) -> str:
    """Every passage that was retrieved."""
    retrievals = steps_of(steps, "STEP_KIND_RETRIEVAL")
    return "\n".join(passage["text"] for step in retrievals for passage in step["result"]["passages"])
