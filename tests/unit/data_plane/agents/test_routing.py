import pytest

from data_plane.agents.routing import candidate_of, choose
from tests.fakes.agents import definition

CANDIDATES = [candidate_of(definition("read_gauge", "Reads.")), candidate_of(definition("stop_pump", "Stops."))]


@pytest.mark.parametrize(
    ("scores", "passage_score", "tool"),
    [
        ([0.3, 0.6], 0.5, "stop_pump"),
        ([0.3, 0.6], 0.7, ""),
        ([0.3, 0.6], None, "stop_pump"),
        ([0.1, 0.05], None, ""),
        ([0.1, 0.05], 0.0, ""),
    ],
)
def test_nearest_wins_when_it_is_near_at_all(scores: list[float], passage_score: float | None, tool: str) -> None:
    """The question belongs to whatever is nearest to it, and a tool only when it has to do with it."""
    assert choose(CANDIDATES, scores, passage_score)["tool"] == tool
