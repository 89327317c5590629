"""The fuzz targets, driven by Hypothesis for a moment, so that they hold and keep working where atheris is not."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, seeds

SEEDS = seeds()


def spliced(base: bytes, cut: int, insert: bytes, skip: int) -> bytes:
    at = cut % (len(base) + 1)
    return base[:at] + insert + base[at + skip :]


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Garbage, and valid inputs with something put in or left out."""
    changed = st.builds(
        spliced, st.sampled_from(SEEDS[name]), st.integers(0, 4096), st.binary(max_size=12), st.integers(0, 12)
    )
    return st.binary(max_size=300) | changed


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_target_holds(name: str, data: st.DataObject) -> None:
    """Bytes from outside are an answer or a named refusal, never an accident."""
    TARGETS[name](data.draw(inputs(name)))


@pytest.mark.parametrize("name", TARGETS)
def test_valid_inputs_hold(name: str) -> None:
    """A corpus that the target refuses at its first line would fuzz nothing."""
    for seed in SEEDS[name]:
        TARGETS[name](seed)
