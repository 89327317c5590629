"""Bringing a database to this version's schema."""

from pathlib import Path

from faos_core.migrate import migrate

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate_schema(url: str) -> None:
    """Create or upgrade the control plane's tables, in one transaction. Blocks: call in a thread, before the store.

    Raises: what `faos_core.migrate.migrate` raises.
    """
    migrate(url, MIGRATIONS)
