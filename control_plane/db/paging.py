"""Lists in pages: one place that knows what a page token is.

A token is opaque to callers and holds the keys of the last row, so that rows that come or go meanwhile move nobody
else's page. It holds no authority: the query that it continues names its tenant itself. Source: AIP-158.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from control_plane.db.errors import PAGE_TOKEN_INVALID
from faos_core.errors import InvalidError

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_TOKEN_CHARACTERS = 2048
INT64 = 2**63

Key = sa.Column[Any]


def fetch_page(
    connection: sa.Connection,
    query: sa.Select[Any],
    *,
    keys: Sequence[Key],
    scope: str,
    page_size: int,
    page_token: str,
    newest_first: bool = False,
) -> tuple[list[Row[Any]], str]:
    """One page of the query's rows, and the token of the next one; "" when this is the last.

    keys: columns (text or integers, among those selected) that together are unique; they decide the order.
    scope: names the list and its filters; a token of another scope is refused.
    page_size: 0 means 50; more than 1000 means 1000.
    Raises: InvalidError (page_token.invalid).
    """
    size = min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    if page_token:
        after = sa.tuple_(*_read_token(page_token, keys, scope), types=[key.type for key in keys])
        position = sa.tuple_(*keys)
        query = query.where(position < after if newest_first else position > after)
    query = query.order_by(*(key.desc() if newest_first else key.asc() for key in keys)).limit(size + 1)
    rows = list(connection.execute(query))
    more = len(rows) > size
    return rows[:size], _make_token(rows[size - 1], keys, scope) if more else ""


def _make_token(row: Row[Any], keys: Sequence[Key], scope: str) -> str:
    body = [_digest(scope), *(row._mapping[key] for key in keys)]
    return base64.urlsafe_b64encode(json.dumps(body, separators=(",", ":")).encode()).decode().rstrip("=")


def _read_token(token: str, keys: Sequence[Key], scope: str) -> list[str | int]:
    try:
        body = json.loads(base64.urlsafe_b64decode(token[:MAX_TOKEN_CHARACTERS] + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise InvalidError(PAGE_TOKEN_INVALID) from error
    if not isinstance(body, list) or len(body) != len(keys) + 1 or body[0] != _digest(scope):
        raise InvalidError(PAGE_TOKEN_INVALID)
    return [_checked(value, key) for value, key in zip(body[1:], keys, strict=True)]


def _checked(value: Any, key: Key) -> str | int:
    """Raises InvalidError for a value that the column cannot hold."""
    if type(value) is not key.type.python_type or (isinstance(value, int) and not -INT64 <= value < INT64):
        raise InvalidError(PAGE_TOKEN_INVALID)
    if isinstance(value, str) and ("\0" in value or not value.isprintable()):
        raise InvalidError(PAGE_TOKEN_INVALID)
    checked: str | int = value
    return checked


def _digest(scope: str) -> str:
    return hashlib.sha256(scope.encode()).hexdigest()[:16]
