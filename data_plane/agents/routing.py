"""Which of the tools and the passages is nearest to a question. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_plane.agents.steps import Candidate, RoutingResult
from data_plane.tools.interfaces import ToolDefinition

MIN_TOOL_SCORE = 0.2  # cosine: below it a tool has nothing to do with the question (unrelated sentences: ~0.0 to 0.15)


def candidate_of(tool: ToolDefinition) -> Candidate:
    words = tool.name.replace("_", " ").replace("-", " ")
    return {"server": tool.server, "tool": tool.name, "text": f"{words}: {tool.description}"}


def similarities(vectors: NDArray[np.float32]) -> list[float]:
    """Cosine of row 0, the question, to each further row. Rows are of unit length."""
    return [float(score) for score in vectors[1:] @ vectors[0]]


def choose(candidates: Sequence[Candidate], scores: Sequence[float], passage_score: float | None) -> RoutingResult:
    """The best tool when it is at least as near as the best passage and near at all; else the passages."""
    floor = MIN_TOOL_SCORE if passage_score is None else max(MIN_TOOL_SCORE, passage_score)
    best = max(range(len(candidates)), key=lambda index: scores[index])
    chosen = scores[best] >= floor
    return {
        "scores": list(scores),
        "passage_score": passage_score,
        "server": candidates[best]["server"] if chosen else "",
        "tool": candidates[best]["tool"] if chosen else "",
    }
