"""The values that an IDENTIFIER field may carry."""

from collections import OrderedDict
from hashlib import sha256

CAPACITY = 100_000


class KnownIdentifiers:
    """Implements `interfaces.Identifiers`. Not thread-safe: belongs to the event loop.

    Values are kept as SHA-256 digests, so a join secret does not stay in memory and a long value costs no more than
    a short one. At most `capacity` of them are kept, and a look-up keeps a value young: when more were allowed, the
    one that was neither allowed nor used for longest is forgotten, and sending it is then refused until it is allowed
    again. Names of the running revision do not count.
    """

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._names: frozenset[bytes] = frozenset()
        self._recent: OrderedDict[bytes, None] = OrderedDict()

    def allow(self, *values: str | bytes) -> None:
        for value in values:
            key = digest(value)
            self._recent[key] = None
            self._recent.move_to_end(key)
        while len(self._recent) > self._capacity:
            self._recent.popitem(last=False)

    def replace_names(self, names: frozenset[str]) -> None:
        """The names of the running revision, in place of those of the one before."""
        self._names = frozenset(map(digest, names))

    def __contains__(self, value: str | bytes) -> bool:
        key = digest(value)
        if key in self._names:
            return True
        if known := key in self._recent:
            self._recent.move_to_end(key)
        return known


def digest(value: str | bytes) -> bytes:
    return sha256(value.encode() if isinstance(value, str) else value).digest()
