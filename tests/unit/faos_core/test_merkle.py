"""The tree hash against the RFC's own recursive definition, and proofs that nothing else can satisfy."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faos_core import merkle

# The reference leaves and roots of the Certificate Transparency test suite for RFC 6962.
REFERENCE_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
REFERENCE_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIZES = st.integers(min_value=1, max_value=130)


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], b: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 2.1.2, word for word."""
    if m == len(leaves):
        return [] if b else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_subproof(m, leaves[:k], b), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def leaves_of(size: int) -> list[bytes]:
    return [f"leaf {number}".encode() for number in range(size)]


def tree_of(size: int) -> merkle.Tree:
    return merkle.Tree(merkle.leaf_hash(leaf) for leaf in leaves_of(size))


def test_root_empty_is_sha256_of_nothing() -> None:
    """The RFC fixes the root of an empty log; verifiers of others compare it."""
    known = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    assert merkle.Frontier().root().hex() == merkle.Tree().root().hex() == known


def test_root_matches_reference_vectors() -> None:
    """Published vectors show that we compute the RFC's tree and not merely a tree."""
    frontier, tree = merkle.Frontier(), merkle.Tree()

    for leaf, root in zip(REFERENCE_LEAVES, REFERENCE_ROOTS, strict=True):
        frontier.append(merkle.leaf_hash(leaf))
        tree.append(merkle.leaf_hash(leaf))
        assert frontier.root().hex() == tree.root().hex() == root


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_root_equals_recursive_definition(leaves: list[bytes]) -> None:
    """The incremental frontier is the fast path of every append; it must be the definition."""
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier.append(merkle.leaf_hash(leaf))

    assert frontier.root() == naive_root(leaves)
    assert frontier.size == len(leaves)


@given(SIZES, st.data())
def test_inclusion_proof_is_the_rfc_path_and_verifies(size: int, data: st.DataObject) -> None:
    """An auditor's own implementation must accept our proofs."""
    index = data.draw(st.integers(0, size - 1))
    leaves = leaves_of(size)

    proof = tree_of(size + 7).inclusion_proof(index, size)

    assert proof == naive_path(index, leaves)
    assert merkle.verify_inclusion(merkle.leaf_hash(leaves[index]), index, size, proof, naive_root(leaves))


@given(SIZES, st.data())
def test_inclusion_proof_fits_nothing_else(size: int, data: st.DataObject) -> None:
    """A proof that also fits another leaf, place or a changed hash would prove nothing."""
    index = data.draw(st.integers(0, size - 1))
    leaf, root = merkle.leaf_hash(leaves_of(size)[index]), naive_root(leaves_of(size))
    proof = tree_of(size).inclusion_proof(index)

    assert not merkle.verify_inclusion(merkle.leaf_hash(b"other"), index, size, proof, root)
    assert not merkle.verify_inclusion(leaf, index, size, [*proof, root], root)
    assert not merkle.verify_inclusion(leaf, size, size, proof, root)
    for place in range(len(proof)):
        changed = [*proof[:place], merkle.leaf_hash(proof[place]), *proof[place + 1 :]]
        assert not merkle.verify_inclusion(leaf, index, size, changed, root)
        assert not merkle.verify_inclusion(leaf, index, size, proof[:place] + proof[place + 1 :], root)
    other = data.draw(st.integers(0, size - 1))
    assert other == index or not merkle.verify_inclusion(leaf, other, size, proof, root)


@given(SIZES, st.data())
def test_consistency_proof_is_the_rfc_subproof_and_verifies(size: int, data: st.DataObject) -> None:
    """The control plane is a witness: it keeps an old head and asks that the new one extends it."""
    old_size = data.draw(st.integers(1, size))
    leaves = leaves_of(size)

    proof = tree_of(size + 5).consistency_proof(old_size, size)

    assert proof == naive_subproof(old_size, leaves, True)
    assert merkle.verify_consistency(old_size, naive_root(leaves[:old_size]), size, naive_root(leaves), proof)


@given(SIZES, st.data())
def test_consistency_proof_refuses_rewritten_history(size: int, data: st.DataObject) -> None:
    """One leaf rewritten before the old head must be visible, whatever proof is offered."""
    old_size = data.draw(st.integers(1, size))
    honest = leaves_of(size)
    place = data.draw(st.integers(0, old_size - 1))
    rewritten = [*honest[:place], b"rewritten", *honest[place + 1 :]]
    old_root = naive_root(honest[:old_size])
    proof = merkle.Tree(map(merkle.leaf_hash, rewritten)).consistency_proof(old_size)

    assert not merkle.verify_consistency(old_size, old_root, size, naive_root(rewritten), proof)
    assert not merkle.verify_consistency(old_size, old_root, size, naive_root(honest), [*proof, old_root])


def test_consistency_from_nothing_needs_the_empty_root() -> None:
    """A witness that has seen nothing yet accepts any log, but only without a made-up proof."""
    root = naive_root(leaves_of(3))

    assert merkle.verify_consistency(0, merkle.EMPTY_ROOT, 3, root, [])
    assert not merkle.verify_consistency(0, root, 3, root, [])
    assert not merkle.verify_consistency(4, root, 3, root, [])


def test_proof_beyond_the_tree_is_refused() -> None:
    """Asking for what is not there is a defect of the caller, not an empty proof."""
    with pytest.raises(ValueError, match="beyond"):
        tree_of(3).inclusion_proof(3)
    with pytest.raises(ValueError, match="beyond"):
        tree_of(3).consistency_proof(0)


def test_copy_does_not_share_what_follows() -> None:
    """A group commit grows a copy and throws it away when the disk is full."""
    frontier = merkle.Frontier()
    frontier.append(merkle.leaf_hash(b"a"))
    twin = frontier.copy()

    twin.append(merkle.leaf_hash(b"b"))

    assert frontier.root() == naive_root([b"a"])
    assert twin.root() == naive_root([b"a", b"b"])
