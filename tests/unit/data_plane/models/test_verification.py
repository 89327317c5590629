import hashlib
import os
from pathlib import Path

import pytest

from data_plane.models.verification import FileVerifier
from faos_core.errors import IntegrityError, SetupError

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(CONTENT)
    return path


async def test_a_pinned_file_passes_in_either_case_of_hex(file: Path) -> None:
    """People paste digests as their tools print them."""
    verifier = FileVerifier()

    await verifier.verify(file, SHA256)
    await verifier.verify(file, SHA256.upper())


async def test_another_file_is_refused_with_both_digests(file: Path) -> None:
    """Whoever restores the file, or pins the new one, needs both digests."""
    with pytest.raises(IntegrityError) as refused:
        await FileVerifier().verify(file, "0" * 64)

    assert SHA256 in refused.value.why
    assert "0" * 64 in refused.value.why


async def test_a_file_that_changed_after_it_was_verified_is_refused(file: Path) -> None:
    """The memory of a verified file must not outlive the file: same size, other content."""
    verifier = FileVerifier()
    await verifier.verify(file, SHA256)

    file.write_bytes(b"weightz")
    os.utime(file, ns=(1, 1))

    with pytest.raises(IntegrityError):
        await verifier.verify(file, SHA256)


async def test_a_missing_file_says_its_path(tmp_path: Path) -> None:
    """The commonest mistake in site.toml."""
    with pytest.raises(SetupError) as refused:
        await FileVerifier().verify(tmp_path / "none.gguf", SHA256)

    assert "none.gguf" in refused.value.what
