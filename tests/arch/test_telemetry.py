"""Telemetry names things in one place, and can carry nothing else: read from the source."""

import ast
from collections.abc import Iterator

import pytest

from faos_core import names
from faos_core.names import Attribute, Metric, Span
from faos_core.tracing import KINDS
from tests.arch.sources import Source, dotted, product

INSTRUMENTS = {f"faos_core.meters.{name}": name for name in ("Counter", "Gauge", "Histogram")}
# Where text is said to be ours, and why it is: a Word passes into a span unasked.
WORDS: dict[str, str] = {
    "control_plane.telemetry.calls:observe": "the method's name in our proto, and the name of a gRPC status",
    "control_plane.telemetry.fleet:_record": "the name of an ApplyState that our proto has, else UNKNOWN",
    "data_plane.agents.sight:attributes_of": "a member of names.Span",
    "data_plane.agents.sight:ended": "a member of RunState",
    "data_plane.agents.sight:run": "a member of names.Span",
    "data_plane.link.applier:_do_traced": "the name of a NackCode of our proto",
    "faos_core.telemetry:__exit__": "the name of an exception's class, never its message",
}


def calls(source: Source) -> Iterator[tuple[str, ast.Call, str]]:
    """Function, call, and what is called, of each call in a function."""
    for function in source.functions():
        inner = {id(node) for each in ast.walk(function) if each is not function
                 and isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(each)}  # fmt: skip
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and id(node) not in inner:
                yield function.name, node, dotted(node.func, source.imported_names)


def words(source: Source) -> set[str]:
    if "Word" not in source.text:
        return set()
    found = {f"{source.module}:{function}" for function, _, name in calls(source) if name == "faos_core.tracing.Word"}
    every = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
    in_functions = {id(call) for _, call, _ in calls(source)}
    loose = [node for node in every if id(node) not in in_functions]
    if any(dotted(node.func, source.imported_names) == "faos_core.tracing.Word" for node in loose):
        found.add(f"{source.module}:")
    return found


def misnamed(source: Source) -> Iterator[str]:
    """Instruments and spans whose name, or whose label, is not a member of faos_core.names'."""
    if "meters" not in source.text and "tracer" not in source.text:
        return
    for _, call, name in calls(source):
        if name in INSTRUMENTS:
            labels = [keyword.value for keyword in call.keywords if keyword.arg == "labels"]
            given = [each for value in labels if isinstance(value, ast.Tuple) for each in value.elts]
            wanted = [(call.args[0], "Metric"), *((each, "Attribute") for each in given)]
            yield from (f"{source.module}:{call.lineno}" for node, kind in wanted if not is_member(source, node, kind))
        elif name.endswith("tracer.span") and isinstance(call.args[0], ast.Constant):
            yield f"{source.module}:{call.lineno}"


def is_member(source: Source, node: ast.expr, kind: str) -> bool:
    full = dotted(node, source.imported_names)
    prefix = f"faos_core.names.{kind}."
    return full.startswith(prefix) and full.removeprefix(prefix) in getattr(names, kind).__members__


def test_text_is_called_ours_in_listed_places_only() -> None:
    """Everything else has to pass somebody who vouches for it; each new place is for a person to look at."""
    found = {place for source in product() for place in words(source)}

    assert found == WORDS.keys()


def test_every_instrument_and_span_has_a_name_of_ours() -> None:
    """One spelling each, or a dashboard misses half."""
    assert [place for source in product() for place in misnamed(source)] == []


@pytest.mark.parametrize("kind", [Metric, Span, Attribute])
def test_every_name_is_used(kind: type[Metric | Span | Attribute]) -> None:
    """A name that nothing measures is a promise in a dashboard that stays empty."""
    text = "\n".join(
        source.text for source in product() if source.module not in ("faos_core.names", "faos_core.tracing")
    )

    assert [each.name for each in kind if f"{kind.__name__}.{each.name}" not in text] == []
    assert [each.name for each in kind] == sorted(each.name for each in kind)


def test_what_a_span_may_say_is_of_a_stated_kind() -> None:
    """What stands in no list is left out; an attribute that a label alone has is none of a span's."""
    of_labels_only = {Attribute.CLASS, Attribute.DOOR, Attribute.SIGNAL, Attribute.TOKEN_TYPE}

    assert set(Attribute) - KINDS.keys() == of_labels_only


def test_one_module_knows_the_sdk() -> None:
    """So that replacing it is a small change, and that no library's own exporter ever comes in."""
    knowing = {source.module for source in product() if "opentelemetry" in imported(source)}

    assert knowing == {"faos_core.telemetry"}


def imported(source: Source) -> set[str]:
    return {name.split(".")[0] for name in source.imported_names.values()}


@pytest.mark.parametrize(
    ("planted", "count"),
    [
        ("Counter(Metric.RUN_TURNS, 'x')", 0),
        ("Counter('runs', 'x')", 1),
        ("Counter(Metric.NOWHERE, 'x')", 1),
        ("Counter(Metric.RUN_TURNS, 'x', labels=(Attribute.DOOR,))", 0),
        ("Counter(Metric.RUN_TURNS, 'x', labels=('door',))", 1),
        ("tracer.span('a name')", 1),
    ],
)
def test_scanner_of_names_sees_a_planted_one(planted: str, count: int) -> None:
    """A scanner that finds nothing proves nothing."""
    head = "from faos_core.meters import Counter\nfrom faos_core.names import Attribute, Metric\n"

    assert len(list(misnamed(Source("m", f"{head}def f(tracer):\n    {planted}")))) == count


@pytest.mark.parametrize("planted", ["def f(x):\n    return Word(x)", "X = Word('x')"])
def test_scanner_of_words_sees_a_planted_one(planted: str) -> None:
    """A scanner that finds nothing proves nothing."""
    assert words(Source("m", f"from faos_core.tracing import Word\n{planted}"))
