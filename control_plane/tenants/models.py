"""Tenants and sites as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer organisation."""

    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Site:
    """One location of a tenant. Labels: what the nodes enrolled there start from."""

    tenant: str
    name: str
    labels: Mapping[str, str]
    created_at: datetime
