"""Codes of reading from the control plane's database."""

from faos_core.errors import define

PAGE_TOKEN_INVALID = define(
    "page_token.invalid",
    what="The page token does not belong to this list.",
    why="A page token is good for the very request that it came with: same parent, same filter.",
    next_step="Ask again without a page token.",
)
