"""Error codes of a node as a whole."""

from faos_core.errors import define

EMBEDDER_MISSING = define(
    "node.embedder_missing",
    what="{file} names no sentence embedder.",
    why="Knowledge bases and the routing of questions to tools need one.",
    next_step="Fetch the default one (faos model fetch) and name its files under [embedder].",
)
