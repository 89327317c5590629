"""What a tenant's nodes are offered, out of the database."""

from hashlib import sha256

import sqlalchemy as sa

from control_plane.config.revisions import metadata_of, signed_manifest, standing_bodies, standing_number
from control_plane.db.models import revisions
from control_plane.fleet.interfaces import OfferMaterial
from faos.resource.v1.resource_pb2 import Manifest


def material_of(connection: sa.Connection, tenant: str) -> OfferMaterial | None:
    """The standing revision; None before the first."""
    number = standing_number(connection, tenant)
    if number == 0:
        return None
    manifest = signed_manifest(connection, tenant, number)
    trace = sa.select(revisions.c.traceparent).where(revisions.c.tenant == tenant, revisions.c.number == number)
    return OfferMaterial(
        revision=number,
        manifest_bytes=manifest,
        manifest_sha256=sha256(manifest).digest(),
        manifest=Manifest.FromString(manifest),
        metadata=metadata_of(connection, tenant, number),
        blobs={body.digest: body.data for body in standing_bodies(connection, tenant).values()},
        traceparent=connection.execute(trace).scalar_one() or "",
    )
