"""Names, sizes and habits that are kept by a program, so that reviews can be about ideas."""

import ast
from collections.abc import Iterator, Sequence

import pytest

from faos_core import names
from tests.arch.sources import ROOT, Source, below, dotted, product

VAGUE = {"utils", "util", "common", "manager", "managers", "helpers", "helper", "misc"}
MOST_LINES = 500
MOST_FUNCTION_LINES = 60

# What may be longer, and why.
LONG: dict[str, str] = {
    "control_plane.db.migrations.versions.0001_first_schema.upgrade": "Alembic's own output: one statement a table",
}
# Tasks that no task group of the same function owns, by module and function, with who ends them.
OWNED_TASKS: dict[str, str] = {
    "data_plane.agents.service:_spawn": "the group is entered and left by the service's own run()",
    "data_plane.agents.service:_owned": "the group is entered and left by the service's own run()",
    "data_plane.egress.relay:accepted": "the group is entered and left with the relay itself",
    "data_plane.link.applier:_begin": "the group is entered and left by the applier's own run()",
    "tunnel.server:targets_changed": "the group is entered and left by the server's own run()",
    "tunnel.server:_tell": "the group is entered and left by the server's own run()",
    "tunnel.server:_tick_all": "the group is entered and left by the server's own run()",
    "tunnel.client:unmute": "the group is entered and left by the link's own run()",
    "tunnel.client:_keep_open": "the group is entered and left by its caller, _one_session()",
    "data_plane.tools.broker:begun": "the group is entered and left with the broker itself",
    "data_plane.tools.broker:__aenter__": "the group is entered and left with the broker itself",
    "data_plane.tools.mcp_connection:prove_free": "the group is entered and left by the life's own _converse()",
}
# Futures made without a task group, with the `finally` that ends them.
BRIEF_FUTURES: dict[str, str] = {
    "faos_core.lifecycle:until_ready": "cancelled before it returns",
    "faos_core.lifecycle:undivided": "waited for before it returns: that is its purpose",
    "control_plane.fleet.changes:_wait": "cancelled before it returns",
    "tunnel.client:_first": "cancelled before it returns",
    "data_plane.link.applier:_until": "both are cancelled before it returns",
    "faos_cli.up.service:unless_ended": "all are cancelled before it returns",
}
# Modules with sleeping threads.
BLOCKING_SLEEPS: dict[str, str] = {
    "faos_core.store": "in the store's own threads, between attempts that the database asked for",
    "faos_core.store_postgres": "in the store's own threads: between attempts to purge beside an older snapshot",
    "faos_core.store_sqlite": "in the store's own threads: the one statement that ignores SQLite's busy_timeout",
}


def programs() -> Sequence[Source]:
    """Our packages, and what stands beside them."""
    beside = [source for folder in ("scripts", "benchmarks", "examples") for source in below(ROOT / folder, "")]
    assert beside
    return [*product(), *beside]


def spans(source: Source) -> Iterator[tuple[str, int]]:
    """Lines of the file, and of each function with its decorators."""
    yield source.module, source.text.count("\n")
    for function in source.functions():
        first = min([function.lineno, *(each.lineno for each in function.decorator_list)])
        yield f"{source.module}.{function.name}", (function.end_lineno or first) - first + 1


def too_long(sources: Sequence[Source]) -> dict[str, int]:
    found = {}
    for source in sources:
        (file, lines), *functions = spans(source)
        found |= {file: lines} if lines > MOST_LINES else {}
        found |= {name: length for name, length in functions if length > MOST_FUNCTION_LINES}
    return found


def test_no_module_is_named_after_nothing() -> None:
    """A module called "utils" takes in whatever has no place, until nobody finds anything."""
    tests = list(below(ROOT / "tests", "tests"))

    assert [source.module for source in (*programs(), *tests) if VAGUE & set(source.module.split("."))] == []


def test_no_function_and_no_file_grows_past_reading() -> None:
    """What does not fit a screen or an hour holds a second idea."""
    long = too_long(programs())

    assert {name: lines for name, lines in long.items() if name not in LONG} == {}
    assert LONG.keys() <= long.keys(), "no longer long: take it off the list"


def test_check_of_sizes_sees_what_is_too_long() -> None:
    """A check that finds nothing must be able to."""
    function = "@decorated\ndef f():\n" + "    x = 1\n" * 59
    fitting = "def g():\n" + "    x = 1\n" * 59

    assert too_long([Source("m", function + fitting)]) == {"m.f": 61}
    assert too_long([Source("m", "x = 1\n" * 501)]) == {"m": 501}


# --- habits ---


def uses(source: Source) -> Iterator[tuple[str, str]]:
    """What a module does that needs an owner: ("task" | "future" | "sleep" | "print", "module:function")."""
    for function, call in calls_in(source):
        place = f"{source.module}:{getattr(function, 'name', '')}"
        called = dotted(call.func, source.imported_names)
        if called == "asyncio.ensure_future":
            yield "future", place
        elif isinstance(call.func, ast.Attribute) and call.func.attr == "create_task":
            if not (isinstance(call.func.value, ast.Name) and call.func.value.id in groups_in(source, function)):
                yield "task", place
        elif called == "asyncio.create_task":
            yield "task", place
        elif called == "time.sleep":
            yield "sleep", place
        elif called in ("print", "builtins.print"):
            yield "print", place


def calls_in(source: Source) -> Iterator[tuple[ast.AST, ast.Call]]:
    """Every call with the innermost function around it."""

    def visit(node: ast.AST, function: ast.AST) -> Iterator[tuple[ast.AST, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield function, child
            inner = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            yield from visit(child, inner)

    yield from visit(source.tree, source.tree)


def groups_in(source: Source, function: ast.AST) -> set[str]:
    """Names that `async with asyncio.TaskGroup() as NAME` binds in the function."""
    return {
        item.optional_vars.id
        for node in ast.walk(function)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name)
        and isinstance(item.context_expr, ast.Call)
        and dotted(item.context_expr.func, source.imported_names) == "asyncio.TaskGroup"
    }


def places(kind: str) -> set[str]:
    return {place for source in product() for found, place in uses(source) if found == kind}


@pytest.mark.parametrize(
    ("kind", "listed"),
    [("task", OWNED_TASKS), ("future", BRIEF_FUTURES), ("print", {})],
)
def test_habit_has_a_listed_reason(kind: str, listed: dict[str, str]) -> None:
    """A task without an owner outlives its purpose, a sleep stops the loop, a print bypasses the rules of logs."""
    assert places(kind) == set(listed)
    assert all(len(reason) > 10 for reason in listed.values())


def test_no_thread_sleeps_but_the_stores_own() -> None:
    """A sleep in the loop's thread stops everything."""
    assert {place.partition(":")[0] for place in places("sleep")} <= BLOCKING_SLEEPS.keys()


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("import asyncio\ndef f():\n    asyncio.create_task(g())", "task"),
        ("from asyncio import create_task as go\ndef f():\n    go(g())", "task"),
        ("def f(loop):\n    loop.create_task(g())", "task"),
        (
            "import asyncio\nasync def f():\n    async with asyncio.TaskGroup():\n        b.create_task(g())",
            "task",
        ),
        ("import asyncio\nasync def f():\n    async with asyncio.TaskGroup() as a:\n        a.create_task(g())", None),
        ("import asyncio\nasync def f():\n    await asyncio.ensure_future(g())", "future"),
        ("from time import sleep\ndef f():\n    sleep(1)", "sleep"),
        ("def f():\n    print(1)", "print"),
        ("import asyncio\nasync def f():\n    await asyncio.sleep(1)", None),
    ],
)
def test_scanner_of_habits_sees_a_planted_one(planted: str, kind: str | None) -> None:
    """A scanner that finds nothing proves nothing."""
    assert list(uses(Source("m", planted))) == ([(kind, "m:f")] if kind else [])


# --- log fields ---

LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def stray_fields(source: Source) -> Iterator[str]:
    """Keys of log fields that are not constants of faos_core.names, and `extra`s that cannot be read here."""
    for function, call in calls_in(source):
        if not (isinstance(call.func, ast.Attribute) and call.func.attr in LOG_METHODS):
            continue
        if dotted(call.func.value, {}) not in ("log", "self._log"):
            continue
        for keyword in call.keywords:
            if keyword.arg == "extra":
                yield from (
                    f"{source.module}:{call.lineno} {key}" for key in stray_keys(source, keyword.value, function)
                )


def stray_keys(source: Source, node: ast.AST | None, function: ast.AST) -> Iterator[str]:
    match node:
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                if key is None:  # **value
                    yield from stray_keys(source, value, function)
                elif not is_known_name(source, key):
                    yield ast.unparse(key)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from stray_keys(source, left, function)
            yield from stray_keys(source, right, function)
        case ast.IfExp(body=left, orelse=right):
            yield from stray_keys(source, left, function)
            yield from stray_keys(source, right, function)
        case ast.Name(id=name):
            made = [
                each.value
                for each in ast.walk(function)
                if isinstance(each, ast.Assign | ast.AnnAssign | ast.AugAssign)
                and any(isinstance(t, ast.Name) and t.id == name for t in targets(each))
            ]
            if not made:
                yield f"{name}, which comes from elsewhere"
            for value in made:
                yield from stray_keys(source, value, function)
        case _:
            yield f"{ast.unparse(node) if node else node}, which cannot be read here"


def targets(node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def is_known_name(source: Source, key: ast.expr) -> bool:
    full = dotted(key, source.imported_names)
    return full.startswith("faos_core.names.") and hasattr(names, full.removeprefix("faos_core.names."))


def test_every_log_field_is_one_of_ours() -> None:
    """One spelling each: a search for a revision must find it in every line."""
    assert [stray for source in product() for stray in stray_fields(source)] == []


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ("{names.NODE: 1}", 0),
        ("{names.NODE: 1} | {names.SITE: 2}", 0),
        ("{'node': 1}", 1),
        ("{names.NODE: 1, 'x': 2, 'y': 3}", 2),
        ("{names.NODE: 1} | {'x': 2}", 1),
        ("{names.NOWHERE: 1}", 1),
        ("{**given}", 1),
        ("made", 1),
    ],
)
def test_scanner_of_log_fields_sees_a_planted_one(fields: str, count: int) -> None:
    """A scanner that finds nothing proves nothing."""
    text = f"from faos_core import names\ndef f(given):\n    made = {{'x': 1}}\n    log.info('event', extra={fields})"

    assert len(list(stray_fields(Source("m", text)))) == count


def test_names_are_unique_and_in_order() -> None:
    """Two constants of one spelling are one idea too many."""
    constants = {name: value for name, value in vars(names).items() if name.isupper()}

    assert len(set(constants.values())) == len(constants)
    assert list(constants) == sorted(constants)
    assert all(name.lower() == value for name, value in constants.items())
