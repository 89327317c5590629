"""What an audit record says."""

from dataclasses import dataclass
from datetime import datetime

DONE = "OK"  # outcome of what was done; otherwise the name of the gRPC status it ended with


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the audit log. Names and codes only, never what a customer wrote."""

    sequence: int  # from 1, without gaps
    at: datetime
    actor: str
    action: str  # full RPC name, or an action of the control plane itself
    tenant: str  # empty: no one tenant
    target: str
    outcome: str
