"""Mutation testing: small changes are made to the core, one at a time, and the tests of the file must notice each.

    make mutate [FILE=cnntrain/optim.py] [SAMPLE=20] [SEED=0]

cosmic-ray says what could be changed and changes it: a sign, a constant, `<` for `<=`, a condition turned round. Places
are drawn by the seed, and for each of them one change; SAMPLE=0 takes every change of every place. The work is done in
a copy of the repository. Each change is tried in a process of its own that begins with torch imported, as starting one
would take longer than most tests. Changes that no test can notice are listed, with the reason, in
mutate_equivalent.txt: a path, a line before (-) and after (+) the change, the reason. Exit code 1 where fewer than 95 %
of the others were noticed.
"""

import ast
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import ndiff
from pathlib import Path

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("mutate_equivalent.txt")
LEAST = 0.95

# The tests of each file, the quick and telling ones first.
ROOMS = {
    "cnntrain/optim/optimizers.py": "optim/optim optim/optim_embeddings training/reference",
    "cnntrain/training/losses.py": "training/losses",
    "cnntrain/training/metrics.py": "training/metrics",
    "cnntrain/data/epoch_plan.py": "data/epoch_plan",
    "cnntrain/training/scoring.py": "commands/evaluation training/tta",
    "cnntrain/augment/mix.py": "augment/augment_mix",
    "cnntrain/training/state.py": "training/loop_counts training/loop training/reference",
    "cnntrain/training/ema.py": "training/loop_counts training/loop training/skipped_steps",
    "cnntrain/training/loop.py": "training/loop_counts training/loop training/reference",
    "cnntrain/data/split.py": "data/split data/tiny_data",
    "cnntrain/data/loaders.py": "data/data_loaders data/data_epochs data/data",
    "cnntrain/finetune/tuning.py": "finetune/tuning",
    "cnntrain/finetune/layer_groups.py": "finetune/layer_groups",
    "cnntrain/models/head.py": "models/head",
    "cnntrain/storage/checkpoint.py": "storage/checkpoint models/weights",
    "cnntrain/storage/moves.py": "storage/checkpoint",
    "cnntrain/storage/plain.py": "storage/checkpoint storage/saver",
    "cnntrain/storage/saver.py": "storage/saver commands/saves",
    "cnntrain/training/skipped_steps.py": "training/skipped_steps",
    "cnntrain/models/small_images/fit.py": "models/models_fit",
}

# Of the many operators that cosmic-ray would put in the place of one, its nearest relation.
ARITHMETIC = {
    *("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_Mul", "Pow_Mul"),
    *("BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitAnd"),
}

# Imported before the first test: what the tests spend seconds on. Nothing of cnntrain may be among them.
HEAVY = ("torch", "torchvision", "timm", "sklearn.datasets", "hydra", "omegaconf", "safetensors.torch")


@dataclass(frozen=True)
class Mutant:
    """One change: the text of the whole file, and its lines before and after."""

    path: str
    line: int
    text: str
    before: str
    after: str


@dataclass
class Tally:
    """What became of the changes to a file."""

    noticed: int = 0
    equivalent: int = 0
    left: list[Mutant] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of those that can be noticed."""
        return self.noticed / max(self.noticed + len(self.left), 1)

    def row(self, path: str) -> str:
        """Of the table."""
        left = len(self.left)
        tried = self.noticed + self.equivalent + left
        return f"{path:32} {tried:5} {self.noticed:7} {self.equivalent:10} {left:4} {self.share:6.1%}"


def places(source: str) -> dict[tuple[int, int], list[tuple[str, int]]]:
    """Where a file can be changed, as (line, column), and how: the operator, and how many of its places come before.

    Annotations of types and protocols, which never run, are left alone.
    """
    tree, found = get_ast(source), {}
    lines = source.splitlines()
    spans = [
        ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
        for parent in ast.walk(ast.parse(source))
        for node in (getattr(parent, "annotation", None), getattr(parent, "returns", None), _protocol(parent))
        if node is not None
    ]
    for name in sorted(operator_names()):
        kind, swap = get_operator(name), name.partition("BinaryOperator_")[2]
        identity = name.endswith(("_Is", "_IsNot")) and "Operator_Is" not in name  # of small numbers, the same as ==
        if kind.arguments() or identity or (swap and swap not in ARITHMETIC):
            continue
        operator = kind()
        positions = [start for node in ast_nodes(tree) for start, _ in operator.mutation_positions(node)]
        for number, start in enumerate(positions):
            separator = lines[start[0] - 1][start[1] :].startswith("*,")  # of a signature
            if not separator and not any(first <= start < last for first, last in spans):
                found.setdefault(start, []).append((name, number))
    return found


def _protocol(node: ast.AST) -> ast.ClassDef | None:
    """A class that only says what others have."""
    if not isinstance(node, ast.ClassDef):
        return None
    return node if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases) else None


def mutants(path: str, source: str, sample: int, seed: int) -> Iterator[Mutant]:
    """The changes to a file: of each place that is drawn, one; with a sample of 0, all."""
    draw, known = random.Random(f"{seed} {path}"), places(source)
    starts = sorted(known)
    chosen = draw.sample(starts, min(sample, len(starts))) if sample else starts
    for start in sorted(chosen):
        for name, number in [draw.choice(known[start])] if sample else known[start]:
            text = mutate_code(source, get_operator(name)(), number)
            with suppress(SyntaxError):
                compile(text, path, "exec")
                yield Mutant(path, start[0], text, *difference(source, text))


def difference(before: str, after: str) -> tuple[str, str]:
    """The lines that differ, in one line each."""
    lines = list(ndiff(before.splitlines(), after.splitlines()))
    gone, come = (
        " ".join(" ".join(line[2:] for line in lines if line.startswith(sign)).split()) for sign in ("- ", "+ ")
    )
    return gone, come


def equivalent() -> set[tuple[str, str, str]]:
    """Path, lines before and lines after of the changes that no test can notice."""
    found = set()
    for entry in EQUIVALENT.read_text(encoding="utf-8").split("\n\n"):
        path, before, after, *why = entry.strip().splitlines()
        assert before[:2] == "- ", entry
        assert after[:2] == "+ ", entry
        assert why, f"no reason: {entry}"
        found.add((path, before[2:], after[2:]))
    return found


class Bench:
    """A copy of the repository in which changes are tried."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, self._turn = folder, 0
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, check=True
        )
        for name in listed.stdout.decode().splitlines():
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)

    def write(self, path: str, text: str) -> None:
        """A change of the same second and size would be hidden by the compiled file of the one before it."""
        self._turn += 1
        (self.folder / path).write_text(text, encoding="utf-8")
        os.utime(self.folder / path, (self._turn, self._turn))

    def passes(self, tests: list[str], limit: float | None = None) -> bool:
        """Whether all tests pass within `limit` seconds."""
        child = multiprocessing.get_context("fork").Process(target=self._test, args=(tests,))
        child.start()
        child.join(limit)
        if child.is_alive():
            assert child.pid
            os.killpg(child.pid, signal.SIGKILL)
            child.join()
        return child.exitcode == 0

    def _test(self, tests: list[str]) -> None:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.chdir(self.folder)
        sys.path[:] = [
            str(self.folder),
            *(path for path in sys.path if path not in ("", str(ROOT), str(ROOT / "tests"))),
        ]
        os.environ["PYTHONPATH"] = str(self.folder)
        early = "ignore::pytest.PytestAssertRewriteWarning"  # plugins that HEAVY has imported
        os._exit(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-W", early, *tests])))


def try_out(bench: Bench, path: str, sample: int, seed: int, known: set[tuple[str, str, str]]) -> Tally:
    """Make the changes to a file one after the other."""
    source, tally = (bench.folder / path).read_text(encoding="utf-8"), Tally()
    rooms = ["tests/{}/test_{}.py".format(*name.split("/")) for name in ROOMS[path].split()]
    tests, begin = [name for name in rooms if (bench.folder / name).exists()], time.perf_counter()
    if not bench.passes(tests):
        raise SystemExit(f"{path}: its tests ({' '.join(tests)}) fail without any change")
    limit = 15 + 3 * (time.perf_counter() - begin)
    for before, after in ((before, after) for where, before, after in known if where == path):
        if before not in " ".join(source.split()):
            print(f"{EQUIVALENT.name} is out of date:\n- {before}\n+ {after}\n")
    for mutant in mutants(path, source, sample, seed):
        bench.write(path, mutant.text)
        if (path, mutant.before, mutant.after) in known:
            tally.equivalent += 1
        elif not bench.passes(tests, limit):
            tally.noticed += 1
        else:
            tally.left.append(mutant)
            print(f"{path}:{mutant.line}\n- {mutant.before}\n+ {mutant.after}\n", flush=True)
    bench.write(path, source)
    return tally


def main(words: list[str]) -> int:
    given = dict(word.split("=", 1) for word in words)
    files = [given["FILE"]] if given.get("FILE") else list(ROOMS)
    if unknown := [path for path in files if path not in ROOMS]:
        raise SystemExit(f"FILE: no tests are known of {unknown[0]}; choose {', '.join(ROOMS)}")
    sample, seed = int(given.get("SAMPLE") or 20), int(given.get("SEED") or 0)
    for name in HEAVY:
        importlib.import_module(name)
    known, rows = equivalent(), {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(given.get("ROOT") or ROOT), Path(folder))
        for path in files:
            rows[path] = try_out(bench, path, sample, seed, known)
            print(rows[path].row(path), flush=True)
    print("\nfile                             tried noticed equivalent left  share")
    for path, tally in rows.items():
        print(tally.row(path))
    return int(any(tally.share < LEAST for tally in rows.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
