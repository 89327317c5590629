"""A store of customer data as an area would define it, on metadata of its own: no part of the node's schema."""

import sqlalchemy as sa

from data_plane.storage.sealed import Sealed
from data_plane.storage.service import Storage

letters = sa.Table(
    "letters",
    sa.MetaData(),
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("subject_index", sa.LargeBinary(32), nullable=False),
    sa.Column("sender_index", sa.LargeBinary(32)),
    sa.Column("body", Sealed, nullable=False),
)


class Letters:
    """Writes and reads of the table above."""

    table = letters

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._sealer = storage.sealer

    async def put(self, row: str, body: object, *, subject: str = "") -> None:
        await self._storage.store.write(lambda connection: self.insert(connection, row, body, subject=subject))

    def insert(self, connection: sa.Connection, row: str, body: object, *, subject: str = "") -> None:
        sealed = self._sealer.seal_json(connection, letters.c.body, row, body, subject=subject)
        index = self._sealer.subject_index(subject)
        connection.execute(letters.insert().values(id=row, subject_index=index, body=sealed))

    async def get(self, row: str) -> object:
        return await self._storage.store.read(lambda connection: self.select(connection, row))

    def select(self, connection: sa.Connection, row: str) -> object:
        sealed = connection.execute(sa.select(letters.c.body).where(letters.c.id == row)).scalar_one()
        return self._sealer.unseal_json(connection, letters.c.body, row, sealed)

    async def count(self) -> int:
        query = sa.select(sa.func.count()).select_from(letters)
        return await self._storage.store.read(lambda connection: connection.execute(query).scalar_one())
