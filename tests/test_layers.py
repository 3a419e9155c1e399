"""The house: every room stands on a floor of its own, imports go down only, and some things have one owner."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cnntrain"
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = (  # from the lowest up; the plan and what each room is for stand in CONTRIBUTING.md
    "__init__",
    "errors",
    "text",
    "registry",
    "config",
    "runtime",
    "storage",
    "augment",
    "data",
    "models",
    "optim",
    "finetune",
    "training",
    "evaluation",
    "export",
    "plots",
    "report",
    "inspect",
    "page",
    "play",
    "compare",
    "course",
    "commands",
    "cli",
    "__main__",
)
WITHOUT_TORCH = (
    "__init__.py",
    "errors.py",
    "text.py",
    "registry.py",
    "config",
    "cli",
    "runtime/group.py",
    "runtime/faults.py",
    "runtime/host_memory.py",
    "runtime/launcher_link.py",
    "runtime/lost_process.py",
    "runtime/slurm.py",
    "runtime/world.py",
    "storage/run_folder.py",
    "storage/run_record.py",
    "evaluation/intervals.py",
    "compare/plan.py",
    "compare/outcomes.py",
    "compare/existing.py",
    "compare/progress.py",
    "commands/compare.py",
    "commands/course.py",
    "course",
    "compare/runs.py",
    "commands/filter.py",
    "commands/models.py",
    "commands/pack.py",
    "commands/preview.py",
    "commands/summary.py",
)
DEVICE = {f"runtime.{name}" for name in ("device", "device_memory", "precision", "algorithms", "seeds")}
HEAVY = {"torch", "torchvision", "tensorboard", "sklearn", "rich", "PIL", "numpy", "matplotlib"}


def name_of(file: Path) -> str:
    """`config.schema.data`; a package has the name of its folder."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(file): file for file in FILES}


def imports(tree: ast.AST, anywhere: bool = True) -> Iterator[str]:
    """What a file imports; with `anywhere` off, only while it is itself imported."""
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


def own_modules(file: Path) -> set[str]:
    """The modules of ours that a file imports anywhere in it, for types alone too."""
    found = set()
    for name in imports(ast.parse(file.read_text())):
        own = name.removeprefix("cnntrain.")
        if name.startswith("cnntrain."):
            found.add(own if own in MODULES else own.rpartition(".")[0] or "__init__")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name: str) -> None:
    room = name.partition(".")[0]
    for other in {module.partition(".")[0] for module in own_modules(MODULES[name])} - {room}:
        assert FLOORS.index(other) < FLOORS.index(room), f"{name} imports {other}, which is not below it"


def test_no_module_leads_back_to_itself() -> None:
    try:
        TopologicalSorter({name: own_modules(file) - {name} for name, file in MODULES.items()}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_root_holds_what_all_rooms_say_and_no_more() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} == {"__init__", "__main__", "errors", "registry", "text"}


def test_only_what_knows_the_device_names_cuda() -> None:
    """Settings may name it in words for the user; code that acts on it lies in the files of `DEVICE`."""
    naming = {name for name in MODULES if not name.startswith("config.schema") and names_cuda(MODULES[name])}
    assert naming == DEVICE


def names_cuda(file: Path) -> bool:
    """Whether code of a file says `x.cuda`, or a text that begins with it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and node.attr == "cuda":
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("cuda"):
            return True
    return False


def test_only_checkpoint_saves_and_loads_with_torch() -> None:
    for name, file in MODULES.items():
        if name == "storage.checkpoint":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("save", "load"):
                assert not (isinstance(node.value, ast.Name) and node.value.id == "torch"), file


@pytest.mark.parametrize("place", WITHOUT_TORCH)
def test_what_finds_faults_does_not_import_torch(place: str) -> None:
    files = [PACKAGE / place] if place.endswith(".py") else sorted((PACKAGE / place).rglob("*.py"))
    assert files
    for file in files:
        heavy = {module.split(".")[0] for module in imports(ast.parse(file.read_text()), anywhere=False)}
        assert not heavy & HEAVY, file
