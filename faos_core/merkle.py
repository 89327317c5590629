"""Append-only Merkle logs: one tree hash for everything that must not be rewritten (egress ledger, audit logs).

Source: RFC 6962 section 2.1 (tree hash), RFC 9162 sections 2.1.3 and 2.1.4 (proofs and their verification). SHA-256.
Everything here is pure and not thread-safe: one owner per tree.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf; the prefix keeps it apart from a node (second preimages)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that can only grow: O(log n) memory, O(1) amortised append. Keeps what `root` needs, no leaves."""

    __slots__ = ("_perfect", "size")

    def __init__(self) -> None:
        self.size = 0
        self._perfect: list[bytes] = []  # roots of the perfect subtrees, largest first: the 1 bits of `size`

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        tree, carry = leaf, self.size
        while carry & 1:
            tree = node_hash(self._perfect.pop(), tree)
            carry >>= 1
        self._perfect.append(tree)
        self.size += 1

    def root(self) -> bytes:
        if not self._perfect:
            return EMPTY_ROOT
        root = self._perfect[-1]
        for tree in reversed(self._perfect[:-1]):
            root = node_hash(tree, root)
        return root

    def copy(self) -> "Frontier":
        twin = Frontier()
        twin.size, twin._perfect = self.size, self._perfect.copy()
        return twin


class Tree:
    """A tree that can prove: about 64 bytes of memory a leaf, O(log n) a proof."""

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]  # level k: roots of the perfect, aligned subtrees of 2**k leaves
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        self._levels[0].append(leaf)
        level = 0
        while len(self._levels[level]) % 2 == 0:
            if level + 1 == len(self._levels):
                self._levels.append([])
            self._levels[level + 1].append(node_hash(*self._levels[level][-2:]))
            level += 1

    def root(self, size: int | None = None) -> bytes:
        """Tree hash of the first `size` leaves; None means all. Raises ValueError beyond the tree."""
        size = self.size if size is None else size
        self._check(0 <= size <= self.size)
        return self._hash(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """That leaf `index` is in the tree of the first `size` leaves. Raises ValueError when it is not."""
        size = self.size if size is None else size
        self._check(0 <= index < size <= self.size)
        return self._path(index, 0, size)

    def consistency_proof(self, old_size: int, new_size: int | None = None) -> list[bytes]:
        """That the tree of `new_size` leaves begins with the tree of `old_size` leaves (1 or more)."""
        new_size = self.size if new_size is None else new_size
        self._check(1 <= old_size <= new_size <= self.size)
        return self._subproof(old_size, 0, new_size, known=True)

    @staticmethod
    def _check(in_tree: bool) -> None:
        if not in_tree:
            raise ValueError("beyond the tree")

    def _hash(self, start: int, end: int) -> bytes:
        """Tree hash of leaves [start, end); start is where the RFC's recursion splits, so subtrees are aligned."""
        width = end - start
        if width & (width - 1) == 0:
            level = width.bit_length() - 1
            return self._levels[level][start >> level]
        middle = start + split(width)
        return node_hash(self._hash(start, middle), self._hash(middle, end))

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        middle = start + split(end - start)
        if index < middle:
            return [*self._path(index, start, middle), self._hash(middle, end)]
        return [*self._path(index, middle, end), self._hash(start, middle)]

    def _subproof(self, old_end: int, start: int, end: int, *, known: bool) -> list[bytes]:
        """RFC 9162 2.1.4.1. known: the verifier has the hash of [start, old_end) as the old root."""
        if old_end == end:
            return [] if known else [self._hash(start, end)]
        middle = start + split(end - start)
        if old_end <= middle:
            return [*self._subproof(old_end, start, middle, known=known), self._hash(middle, end)]
        return [*self._subproof(old_end, middle, end, known=False), self._hash(start, middle)]


def split(width: int) -> int:
    """Largest power of two below `width` (2 or more)."""
    return 1 << (width - 1).bit_length() - 1


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows the leaf hash at `index` of the tree with this size and root. RFC 9162 2.1.3.2."""
    if not 0 <= index < size:
        return False
    node, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and computed == root


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the new tree begins with the old one. RFC 9162 2.1.4.2.

    An old size of 0 is consistent with everything and needs an empty proof.
    """
    if not 0 <= old_size <= new_size:
        return False
    if old_size in (0, new_size):
        return not proof and old_root == (new_root if old_size else EMPTY_ROOT)
    hashes = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    return bool(hashes) and climb(old_size - 1, new_size - 1, hashes) == (old_root, new_root)


def climb(node: int, last: int, hashes: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Old and new root that a consistency proof leads to; None when its length is wrong."""
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return (old, new) if last == 0 else None
