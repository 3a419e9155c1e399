"""The wheel holds all that the checkout holds."""

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    built = next(iter(builder.build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])))
    return zipfile.ZipFile(built)


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("conf", "cnntrain/conf", "*.yaml"),
        ("docs/course", "cnntrain/course/pages", "*.md"),
        *(("cnntrain", "cnntrain", kind) for kind in ("*.py", "*.pyi", "py.typed", "*.gz", "LICENSE*")),
    ],
)
def test_wheel_holds_every_file(wheel: zipfile.ZipFile, source: str, target: str, kind: str) -> None:
    here = {str(Path(target) / file.relative_to(ROOT / source)): file for file in (ROOT / source).rglob(kind)}
    there = {name for name in wheel.namelist() if name.startswith(target + "/") and Path(name).match(kind)}
    assert there == set(here)
    for name, file in here.items():
        assert wheel.read(name) == file.read_bytes(), name


def test_wheel_installs_the_command_and_nothing_beside_the_package(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    info = next(top for top in tops if top.endswith(".dist-info"))
    assert tops == {"cnntrain", info}
    assert "cnntrain = cnntrain.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
