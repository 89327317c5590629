"""Tables of the sealed storage itself."""

import sqlalchemy as sa

from data_plane.storage.metadata import metadata

data_keys = sa.Table(
    "data_keys",
    metadata,
    sa.Column("id", sa.LargeBinary(16), primary_key=True),  # random; stands in every value sealed with the key
    sa.Column("tenant", sa.String(63), nullable=False),
    sa.Column("subject_index", sa.LargeBinary(32), nullable=False),  # keyed HMAC: a subject's name is customer data
    sa.Column("kek_id", sa.LargeBinary(8), nullable=False),  # which site key wraps it
    sa.Column("wrapped_key", sa.LargeBinary(60), nullable=False),  # nonce, ciphertext, tag
    sa.UniqueConstraint("tenant", "subject_index"),
)
