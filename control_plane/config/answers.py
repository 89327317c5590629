"""Answers of applies by request id: who does not know whether they were heard asks again, and is told the same."""

import json
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

import sqlalchemy as sa

from control_plane.config.errors import REQUEST_ID_REUSED
from control_plane.config.models import Applied, Change
from control_plane.config.revisions import Body
from control_plane.db.models import requests
from faos_core.errors import ConflictError

MAX_REQUEST_ID = 128  # characters of the column


def request_digest(bodies: Sequence[Body], **more: object) -> str:
    """What makes a request the same as another: its resources, and what else it asks for (JSON values)."""
    extra = json.dumps(more, sort_keys=True).encode() if any(more.values()) else b""
    return sha256(b"".join(body.digest for body in bodies) + extra).hexdigest()


def _key(request_id: str) -> str:
    """The id itself, or its digest when the column is too short for it."""
    return request_id if len(request_id) <= MAX_REQUEST_ID else sha256(request_id.encode()).hexdigest()


def answered(connection: sa.Connection, tenant: str, request_id: str, digest: str) -> Applied | None:
    """The answer given before to this request. Raises ConflictError when it was another request."""
    here = sa.and_(requests.c.tenant == tenant, requests.c.request_id == _key(request_id))
    stored = connection.execute(sa.select(requests.c.response).where(here)).scalar()
    if stored is None:
        return None
    answer = json.loads(stored)
    if answer["request"] != digest:
        raise ConflictError(REQUEST_ID_REUSED, request_id=_key(request_id))
    changes = tuple(Change(*change) for change in answer["changes"])
    return Applied(answer["revision"], changes, tuple(answer["affected_sites"]))


def remember(
    connection: sa.Connection, tenant: str, request_id: str, digest: str, applied: Applied, at: datetime
) -> None:
    answer = {
        "request": digest,
        "revision": applied.revision,
        "changes": [[int(it.kind), it.name, int(it.change)] for it in applied.changes],
        "affected_sites": list(applied.affected_sites),
    }
    key = {"tenant": tenant, "request_id": _key(request_id)}
    connection.execute(requests.insert().values(response=json.dumps(answer).encode(), at=at, **key))
