"""One registry of errors, whose every entry reads well, is used, and survives the wire."""

import ast
import importlib
import re
import string
from collections.abc import Iterator
from functools import cache

import grpc
import pytest

from faos_core import errors
from faos_core.errors import REGISTRY, ErrorCode, FaosError
from tests.arch.sources import Source, dotted, product
from tunnel.error_mapping import DETAIL_KEY, detail_of, from_rpc_error

CODE = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
NOT_IMPORTED = (".migrations.", "__main__")  # Alembic runs the former, Python the latter

# Where code and fields are another error's, or the fields come as one value: nothing to read in the source.
PASSED_ON = {
    "data_plane.egress.ledger": "a fresh error, with code and fields of the one that ended the batch",
    "faos_core.store": "a fresh error, with code and fields of the one that ended the batch",
    "tunnel.error_mapping": "the code came over the wire, with its texts filled in",
}


@cache
def import_everything() -> dict[str, object]:
    """Modules by name. All codes are registered afterwards."""
    names = [source.module for source in product() if not any(part in source.module for part in NOT_IMPORTED)]
    return {name: importlib.import_module(name) for name in names}


def registered() -> list[ErrorCode]:
    """The product's entries; tests that ran before in this process may have added some of their own."""
    import_everything()
    return [entry for code, entry in REGISTRY.items() if not code.startswith("test.")]


def named(full_name: str) -> object:
    """The value of "module.NAME" in a module of ours; None for anything else."""
    module, _, name = full_name.rpartition(".")
    return getattr(import_everything().get(module), name, None)


def leaves() -> list[type[FaosError]]:
    """Of the tree in faos_core.errors."""
    own = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, FaosError)]
    return [each for each in own if not any(other is not each and issubclass(other, each) for other in own)]


def subclasses(cls: type[FaosError]) -> Iterator[type[FaosError]]:
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


def fields_of(code: ErrorCode) -> set[str]:
    """What the texts name."""
    parsed = [part for text in (code.what, code.why, code.next_step) for part in string.Formatter().parse(text)]
    return {re.split(r"[.\[]", field)[0] for _, field, _, _ in parsed if field is not None}


def test_every_code_is_defined_in_a_module_and_registered() -> None:
    """A code that is registered only when somebody happens to import its module has no page to look it up on."""
    import_everything()
    written = {
        node.args[0].value
        for source in product()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and dotted(node.func, source.imported_names).endswith("errors.define")
        and isinstance(node.args[0], ast.Constant)
    }

    assert len(written) > 80
    assert {entry.code for entry in registered()} == written
    assert all(key == entry.code for key, entry in REGISTRY.items())


def test_code_is_area_and_condition() -> None:
    """Operators filter and alert by area."""
    import_everything()

    assert [entry.code for entry in registered() if not CODE.fullmatch(entry.code)] == []


def test_every_entry_says_what_why_and_what_to_do() -> None:
    """A person reads them at the worst moment."""
    import_everything()

    for entry in registered():
        for text in (entry.what, entry.why, entry.next_step):
            filled = text.format_map({name: Filled() for name in fields_of(entry)})
            assert len(filled) > 2, entry.code
            assert text == text.strip(), entry.code


class Filled:
    """Stands for any value in a format string."""

    def __format__(self, spec: str) -> str:
        return "value"

    def __repr__(self) -> str:
        return "'value'"

    __str__ = __repr__


# --- raise sites ---


def defects_of_sites(source: Source) -> Iterator[str]:
    """Calls of error classes whose fields are not those of the code's texts, or whose code cannot be told."""
    for function, node in calls_in(source):
        called = named_in(source, node.func)
        if not (isinstance(called, type) and issubclass(called, FaosError)) or takes_no_code(called):
            continue
        where = f"{source.module}:{node.lineno}"
        if called in (FaosError, errors.RetryError, errors.RequestError, errors.StopError):
            yield f"{where} raises {called.__name__}, which is no leaf"
        codes = codes_of(source, node.args[0], function) if node.args else set()
        if not codes and source.module not in PASSED_ON:
            yield f"{where} has a code that nobody can read here"
        for code in codes:
            yield from (f"{where} {code.code}: {problem}" for problem in field_problems(code, node.keywords))


def takes_no_code(cls: type[FaosError]) -> bool:
    """A class of an area with a constructor of its own, which passes the code on itself."""
    return "__init__" in vars(cls) and cls is not FaosError


def field_problems(code: ErrorCode, keywords: list[ast.keyword]) -> Iterator[str]:
    given = {keyword.arg for keyword in keywords if keyword.arg}
    missing = fields_of(code) - given
    if missing and all(keyword.arg for keyword in keywords):  # else `**fields` brings them
        yield f"lacks {', '.join(sorted(missing))}"
    if useless := given - fields_of(code):
        yield f"gives {', '.join(sorted(useless))}, which no text names"


def calls_in(source: Source) -> Iterator[tuple[ast.AST, ast.Call]]:
    """Every call with the function around it (the module, for one outside)."""

    def visit(node: ast.AST, function: ast.AST) -> Iterator[tuple[ast.AST, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield function, child
            inside = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            yield from visit(child, inside)

    yield from visit(source.tree, source.tree)


def named_in(source: Source, node: ast.AST) -> object:
    full = dotted(node, source.imported_names)
    return named(full if "." in full else f"{source.module}.{full}") if full else None


def codes_of(source: Source, node: ast.AST, function: ast.AST, depth: int = 0) -> set[ErrorCode]:
    """What an expression can stand for: a constant, a choice, or a local name for these."""
    value = named_in(source, node)
    if isinstance(value, ErrorCode):
        return {value}
    if isinstance(value, dict):
        return {each for each in value.values() if isinstance(each, ErrorCode)}
    match node:
        case ast.IfExp(body=left, orelse=right):
            parts: list[ast.AST] = [left, right]
        case ast.BoolOp(values=values):
            parts = list(values)
        case ast.Subscript(value=table):
            parts = [table]
        case ast.Call(func=ast.Attribute(value=table, attr="get"), args=arguments):
            parts = [table, *arguments[1:]]
        case ast.Name(id=name) if depth < 3:
            parts = [
                each.value
                for each in ast.walk(function)
                if isinstance(each, ast.Assign | ast.NamedExpr)
                and any(isinstance(t, ast.Name) and t.id == name for t in targets(each))
            ]
        case _:
            return set()
    return set().union(*(codes_of(source, part, function, depth + 1) for part in parts))


def targets(node: ast.Assign | ast.NamedExpr) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def test_raise_sites_give_exactly_the_fields_that_the_texts_name() -> None:
    """A field too few is a KeyError in place of the message; one too many is knowledge kept from the reader."""
    assert [defect for source in product() for defect in defects_of_sites(source)] == []


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ("raise InvalidError(NAME_MALFORMED, name='x')", ""),
        ("raise InvalidError(NAME_MALFORMED)", "lacks name"),
        ("raise InvalidError(NAME_MALFORMED, name='x', why='y')", "gives why"),
        ("raise InvalidError(SPIFFE_MALFORMED, name='x')", "gives name"),
        ("code = NAME_MALFORMED if x else SPIFFE_MALFORMED\nraise InvalidError(code)", "lacks name"),
        ("raise InvalidError(NAME_MALFORMED, **fields)", ""),
        ("raise RequestError(NAME_MALFORMED, name='x')", "no leaf"),
        ("raise InvalidError(argument, name='x')", "nobody can read"),
    ],
)
def test_scanner_of_raise_sites_sees_a_planted_defect(planted: str, expected: str) -> None:
    """A scanner that finds nothing proves nothing."""
    head = "from faos_core.errors import InvalidError, RequestError\nfrom faos_core.ids import *\n"
    head += "from faos_core.ids import NAME_MALFORMED, SPIFFE_MALFORMED\n"
    body = "".join(f"    {line}\n" for line in planted.splitlines())

    found = list(defects_of_sites(Source("planted", f"{head}def f():\n{body}")))

    assert len(found) == bool(expected)
    assert all(expected in defect for defect in found)


def test_no_code_is_left_over() -> None:
    """An entry that nothing raises misleads whoever reads the list."""
    import_everything()
    used = {
        code
        for source in product()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
        if isinstance(code := named_in(source, node), ErrorCode)
    }
    unused = [entry.code for entry in registered() if entry not in used]

    assert unused == []


# --- the wire ---


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.__name__)
def test_leaf_comes_back_from_the_wire_as_itself(leaf: type[FaosError]) -> None:
    """What a caller does about an error must not depend on which side of a socket it was raised."""
    code = ErrorCode("planted.braces", what="What {a} {{", why="Why.", next_step="Next: {a}")
    error = leaf(code, a="{b}")
    metadata = grpc.aio.Metadata((DETAIL_KEY, detail_of(error)))

    seen = from_rpc_error(grpc.aio.AioRpcError(leaf.grpc_status, grpc.aio.Metadata(), metadata, details=error.what))

    assert type(seen) is leaf
    assert seen.code.code == "planted.braces"
    assert (seen.what, seen.why, seen.next_step) == ("What {b} {", "Why.", "Next: {b}")


def test_each_leaf_has_a_status_of_its_own() -> None:
    """Two leaves of one status would come back as one of them."""
    statuses = [leaf.grpc_status for leaf in leaves()]

    assert len(statuses) > 10
    assert len(set(statuses)) == len(statuses)


def test_classes_of_areas_are_leaves_too() -> None:
    """They map to the status of the leaf that they specialise."""
    import_everything()
    ours = [each for each in subclasses(FaosError) if not each.__module__.startswith(("tests.", "faos_core.errors"))]

    assert ours
    assert [each for each in ours if not issubclass(each, tuple(leaves()))] == []
