"""MCP server over stdio with one tool: the sum of two integers. Started by bench_agent_run."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("sums")


@server.tool(structured_output=False)
def add(a: int, b: int) -> str:
    """Add two integers."""
    return str(a + b)


if __name__ == "__main__":
    server.run("stdio")
