"""MCP server over stdio with one tool: whom to call for a free bed.

    python wards.py WARDS.json

WARDS.json maps each ward to the extension of its bed desk. A real one would ask the hospital's bed management.
"""

import json
import sys
from pathlib import Path
from typing import Literal

from mcp.server.mcpserver import MCPServer

Ward = Literal["cardiology", "maternity", "neurology", "surgery"]

server = MCPServer("wards")
extensions: dict[str, str] = {}


@server.tool(
    description="Free beds right now in a ward: cardiology, maternity, neurology or surgery.",
    structured_output=False,
)
def free_beds(ward: Ward) -> str:
    return f"There are free beds in {ward}. The reservation number for a bed in {ward} is {extensions[ward]}."


if __name__ == "__main__":
    extensions.update(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    server.run("stdio")
