"""The source that the architecture tests read."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {  # import name of each package → where it stands
    "faos_core": ROOT / "faos_core",
    "tunnel": ROOT / "tunnel",
    "control_plane": ROOT / "control_plane",
    "data_plane": ROOT / "data_plane",
    "faos_cli": ROOT / "installer" / "faos_cli",
}


@dataclass(frozen=True)
class Source:
    """One file."""

    module: str
    text: str
    path: Path = Path("planted.py")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def imported_names(self) -> dict[str, str]:
        """Local name → what it stands for, wherever in the file it is imported."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    plain = alias.name.split(".")[0]
                    names[alias.asname or plain] = alias.name if alias.asname else plain
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        return names

    @cached_property
    def imported_modules(self) -> dict[str, int]:
        """Every name that an import statement could load → its line; "a.b" and "a.b.c" for `from a.b import c`."""
        found: dict[str, int] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name: node.lineno for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found[node.module] = node.lineno
                found |= {f"{node.module}.{alias.name}": node.lineno for alias in node.names}
        return found

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def product() -> Sequence[Source]:
    """Every module of our packages."""
    found = [source for package, folder in FOLDERS.items() for source in below(folder, package)]
    assert len(found) > 150
    return found


def below(folder: Path, package: str) -> Iterator[Source]:
    """package: import name of the folder; "" for a folder of programs."""
    for path in sorted(folder.rglob("*.py")):
        parts = [package, *path.relative_to(folder).with_suffix("").parts]
        module = ".".join(part for part in parts if part).removesuffix(".__init__")
        yield Source(module, path.read_text(encoding="utf-8"), path)


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """Full dotted name of an expression; "" when it is something else."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (left := dotted(node.value, names)):
        return f"{left}.{node.attr}"
    return ""
