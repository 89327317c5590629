"""Codes of tenants and sites."""

from faos_core.errors import define

TENANT_EXISTS = define(
    "tenant.exists",
    what="There is a tenant {tenant!r} already.",
    why="Names of tenants are unique, and are not given twice.",
    next_step="Use it, or choose another name; see: faos get tenants",
)
TENANT_UNKNOWN = define(
    "tenant.unknown",
    what="There is no tenant {tenant!r}.",
    why="It was never created here, or its name is misspelt.",
    next_step="See which there are: faos get tenants",
)
SITE_EXISTS = define(
    "site.exists",
    what="Tenant {tenant!r} has a site {site!r} already.",
    why="Names of sites are unique within their tenant.",
    next_step="Use it, or choose another name; see: faos get sites",
)
SITE_UNKNOWN = define(
    "site.unknown",
    what="Tenant {tenant!r} has no site {site!r}.",
    why="It was never created here, or its name is misspelt.",
    next_step="See which there are: faos get sites",
)
