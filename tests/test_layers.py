"""The house: imports go down only, and some things have one owner."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cnntrain"
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = [
    {"errors", "__version__", "take_seconds"},
    {"paths"},
    {"settings", "files", "git", "manual", "spreadsheet"},
    {
        "assign",
        "faults",
        "guard",
        "overrides",
        "comparison",
        "composer",
        "config",
        "device",
        "distributed",
        "idle",
        "inherit",
        "losses",
        "metrics",
        "named",
        "patterns",
        "plan",
        "signals",
        "sweep",
        "timing",
        "unsafe",
        "wishes",
    },
    {
        "models",
        "anatomy",
        "data",
        "augment",
        "finetune",
        "optim",
        "checkpoint",
        "form",
        "loading",
        "manifest",
        "runfolder",
        "report",
        "explain",
        "filters",
        "tta",
    },
    {"run", "evaluation"},
    {"loop"},
    {"commands", "launch"},
    {"cli"},
    {"__main__", "__init__"},
]
NEIGHBOURS = (3, 4)  # floors whose rooms may use each other
WITHOUT_TORCH = (
    "cli",
    "guard",
    "manual",
    "assign",
    "config",
    "composer",
    "faults",
    "idle",
    "inherit",
    "overrides",
    "unsafe",
    "paths",
    "patterns",
    "errors",
    "settings",
    "runfolder",
    "commands/models",
    "commands/filter",
    "wishes",
    "comparison",
    "distributed",
    "commands/compare",
    "commands/preview",
    "commands/summary",
)


def floor(module: str) -> int:
    return next(level for level, names in enumerate(FLOORS) if module in names)


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, anywhere: bool = True) -> Iterator[str]:
    """The modules that a file imports; with `anywhere` off, only while it is itself imported."""
    for node in ast.walk(tree) if anywhere else module_level(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_level(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from module_level(node)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down_only(file: Path) -> None:
    own = name_of(file)
    for module in imports(ast.parse(file.read_text())):
        parts = module.split(".")
        if parts[0] != "cnntrain" or len(parts) == 1 or parts[1] == own:
            continue
        below, here = floor(parts[1]), floor(own)
        assert below < here or below == here in NEIGHBOURS, f"{own} imports {parts[1]}, which is not below it"


def test_only_device_names_cuda() -> None:
    """Settings may name it in words for the user; code that acts on it lies in device.py."""
    for file in FILES:
        if name_of(file) in ("device", "settings"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            named = isinstance(node, ast.Attribute) and node.attr == "cuda"
            text = isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("cuda")
            assert not named, f"{file}:{getattr(node, 'lineno', 0)}"
            assert not text, f"{file}:{getattr(node, 'lineno', 0)}"


def test_only_checkpoint_saves_and_loads_with_torch() -> None:
    for file in FILES:
        if name_of(file) == "checkpoint":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            call = isinstance(node, ast.Attribute) and node.attr in ("save", "load")
            assert not (call and isinstance(node.value, ast.Name) and node.value.id == "torch"), file


@pytest.mark.parametrize("place", WITHOUT_TORCH)
def test_what_finds_faults_does_not_import_torch(place: str) -> None:
    files = [PACKAGE / f"{place}.py"] if (PACKAGE / f"{place}.py").exists() else sorted((PACKAGE / place).glob("*.py"))
    assert files
    for file in files:
        heavy = {module.split(".")[0] for module in imports(ast.parse(file.read_text()), anywhere=False)}
        assert not heavy & {"torch", "torchvision", "torchmetrics", "tensorboard", "sklearn", "rich", "PIL", "numpy"}, (
            file
        )
