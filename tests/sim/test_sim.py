"""The simulator itself: nothing is violated, the same seed is the same history, and a defect does not go unseen."""

import pytest

from tests.sim.mutations import MUTATIONS, Mutation, caught_by, mutated
from tests.sim.world import simulate

SEEDS = 300
FOUND = (6124, 8322, 8669, 8798)  # seeds beyond those in which something was wrong once


@pytest.mark.parametrize("first", range(1, SEEDS + 1, 50))
def test_no_seed_violates_what_must_hold(first: int) -> None:
    """Crashes, lost writes, cut connections and lies in any order leave every node where it should be."""
    violations = [
        f"make sim SEEDS=1 FIRST={seed} TRACE=1: {violation}"
        for seed in range(first, first + 50)
        for violation in simulate(seed).violations
    ]

    assert violations == []


@pytest.mark.parametrize("seed", FOUND)
def test_history_that_once_went_wrong_goes_right(seed: int) -> None:
    """Ten thousand seeds take minutes; those that found something are replayed every time."""
    assert simulate(seed).violations == ()


@pytest.mark.parametrize("seed", [1, 7, 26])
def test_same_seed_is_the_same_history(seed: int) -> None:
    """A violation that cannot be replayed helps nobody."""
    first = simulate(seed)

    assert simulate(seed).trace_sha256 == first.trace_sha256
    assert simulate(seed + 1).trace_sha256 != first.trace_sha256


def test_simulation_has_faults_and_ends_at_rest() -> None:
    """A simulator in which nothing happens finds nothing."""
    outcomes = [simulate(seed) for seed in range(1, 51)]

    assert sum(outcome.faults for outcome in outcomes) > 50
    lines = {line.split(" ", 3)[-1] for outcome in outcomes for line in outcome.trace}
    assert any("power cut" in line for line in lines)
    assert any("ROLLED_BACK" in line for line in lines)


def test_planted_defect_is_caught_and_is_gone_afterwards() -> None:
    """The proof that a green run means something."""
    planted = next(each for each in MUTATIONS if each.name == "the ceiling is not asked")

    caught = caught_by(planted)

    assert caught is not None
    assert any("ceiling" in violation for violation in caught.violations)
    assert simulate(caught.seed).violations == ()


def test_mutation_that_no_longer_fits_the_source_is_an_error() -> None:
    """A mutation that changes nothing would look like one that is not caught, or worse, the other way round."""
    for mutation in MUTATIONS:
        with mutated(mutation):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_every_mutation_is_caught(mutation: Mutation) -> None:
    """Each is a defect that somebody might make one day."""
    assert caught_by(mutation) is not None
