"""Files of the user: their faults are told with their names, and no code in them is run."""

import re
from pathlib import Path

import pytest
import yaml
from faults import faults, write

from cnntrain import cli
from cnntrain.config.compose import compose_line, compose_settings
from cnntrain.config.errors import ConfigErrors
from cnntrain.config.plain import to_plain, to_yaml
from cnntrain.config.run_config import restore_config
from cnntrain.errors import ConfigError, UnsafeError


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        (
            "data/mine.yaml",
            "name: imagefolder\nroot: /x\nbatch_sze: 3\nvall: 0.1\n",
            "data.batch_sze: no such key (given 3)",
        ),
        (
            "data/mine.yaml",
            "name: imagefolder\nroot: /x\nimage_size: many\n",
            "data.image_size: must be a whole number >= 4, or null (given many)",
        ),
        ("data/mine.yaml", "name: [\n", ":2: not valid YAML"),
        ("experiment/mine.yaml", "# @package _global_\ntrianer: {epochs: 3}\n", "trianer: no such key"),
        (
            "experiment/mine.yaml",
            "# @package _global_\ndefaults:\n  - override /optimizer: adamz\n",
            "optimizer: no option adamz",
        ),
        (
            "experiment/mine.yaml",
            "# @package _global_\ndefaults:\n  - override /augment: hflop\n",
            "augment: no option hflop",
        ),
        (
            "experiment/mine.yaml",
            "# @package _global_\ndefaults:\n  - override /optimizer: adamw\noptimizer: {momentum: 0.5}\n",
            "optimizer.momentum: adamw has no momentum (given 0.5)",
        ),
    ],
)
def test_faults_in_files_of_the_user_are_told_with_their_file(tmp_path: Path, file: str, text: str, fault: str) -> None:
    write(tmp_path, file, text)
    group = file.partition("/")[0]
    found = faults(f"{group}=mine", "model=cnn", "trainer.epochs=0", config_dir=tmp_path)
    assert fault in found[0]
    if "option" not in fault:
        assert found[0].startswith(str(tmp_path / file))
    assert found[-1].startswith("trainer.epochs")
    assert len(found) == (3 if "vall" in text else 2)


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("mine.yaml", "seed: 3\n", "--config-name: mine is no training config; let its defaults list begin with train"),
        ("mine.yaml", "defaults: [train, _self_]\nsede: 3\n", "FILE: sede: no such key (given 3)"),
        ("mine.yaml", "defaults: [train, _self_]\nseed: [\n", "FILE:3: not valid YAML"),
        ("other.yaml", "", "--config-name: no mine.yaml in "),
    ],
)
def test_a_config_of_ones_own_is_found_and_its_faults_are_told(
    tmp_path: Path, file: str, text: str, fault: str
) -> None:
    write(tmp_path, file, text)
    with pytest.raises(ConfigErrors) as told:
        compose_line(["seed=2"], config_dir=str(tmp_path), config_name="mine")
    assert len(told.value.faults) == 1
    assert told.value.faults[0].startswith(fault.replace("FILE", str(tmp_path / file)))
    write(tmp_path, "mine.yaml", "defaults: [train, _self_]\nseed: 3\n")
    assert compose_line([], config_dir=str(tmp_path), config_name="mine").settings.seed == 3


def test_an_optimizer_of_the_users_says_which_of_ours_it_derives_from(tmp_path: Path) -> None:
    write(tmp_path, "optimizer/lion.yaml", "name: lion\nlr: 0.1\n")
    (fault,) = faults("optimizer=lion", config_dir=tmp_path)
    assert fault.startswith(
        "optimizer.name: must be one of sgd, adam, adamw, rmsprop, muon, timm, torch, or package.module:function "
        "(given lion); "
    )
    write(tmp_path, "optimizer/mine.yaml", "defaults: [sgd, _self_]\nlr: 0.3\n")
    assert faults("optimizer=mine", config_dir=tmp_path) == []


def test_a_file_that_names_an_optimizer_of_ours_and_derives_from_none_lacks_its_numbers(tmp_path: Path) -> None:
    write(tmp_path, "optimizer/mine.yaml", "name: sgd\nlr: 0.1\n")
    lacking = [f"optimizer.{key}: missing; write optimizer.{key}=VALUE" for key in ("momentum", "nesterov")]
    assert set(lacking) < set(faults("optimizer=mine", config_dir=tmp_path))


@pytest.mark.parametrize("value", [[1], {"a": 1}, None, int("f" * 5000, 16)], ids=["list", "mapping", "null", "huge"])
def test_a_saved_config_whose_optimizer_has_no_name_is_told(value: object) -> None:
    plain = to_plain(compose_settings([]))
    plain["optimizer"]["name"] = value
    with pytest.raises(ConfigErrors, match=r"^x\.yaml: [^\n]*$"):
        restore_config(plain, source="x.yaml")


@pytest.mark.parametrize(
    "line",
    [
        "+hydra.callbacks.x._target_=os.system",
        "hydra.launcher._target_=os.system",
        "hydra.sweeper._target_=os.system",
        "+hydra.job_logging.handlers.x.class=os.system",
    ],
)
def test_code_that_hydra_would_run_is_refused(line: str) -> None:
    with pytest.raises(UnsafeError, match=r"^hydra\.\S+: os\.system would run code"):
        faults(line)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("callbacks: {x: {_target_: os.system}}", "callbacks.x._target_"),
        ("job_logging: {formatters: {x: {(): os.system}}}", "job_logging.formatters.x.()"),
    ],
)
def test_code_in_a_preset_is_refused(tmp_path: Path, part: str, key: str) -> None:
    write(tmp_path, "experiment/theirs.yaml", f"# @package _global_\nhydra: {{{part}}}\n")
    with pytest.raises(UnsafeError, match=rf"^hydra\.{re.escape(key)}: os\.system would run code"):
        faults("experiment=theirs", config_dir=tmp_path)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("callbacks: {x: '${oc.create:{_target_:os.system}}'}", "callbacks.x"),
        ("callbacks: {x: '${oc.decode:abc}'}", "callbacks.x"),
        ("callbacks: {x: '${model.args}'}", "callbacks.x"),
        ("callbacks: {x: {_target_: hydra.experimental.callbacks.X, y: [{_target_: os.system}]}}", "callbacks.x.y.0"),
        ("job_logging: {handlers: {x: {class: logging.FileHandler, filename: /tmp/x}}}", "job_logging.handlers.x"),
        ("job_logging: {handlers: {x: {class: logging.StreamHandler, stream: ext://evil.x}}}", "job_logging.handlers"),
        ("output_subdir: /tmp/x", "output_subdir"),
        ("output_subdir: ../x", "output_subdir"),
    ],
)
def test_a_preset_reaches_no_code_and_no_file_by_a_detour(tmp_path: Path, part: str, key: str) -> None:
    write(tmp_path, "experiment/theirs.yaml", f"# @package _global_\nhydra: {{{part}}}\n")
    with pytest.raises(UnsafeError, match=rf"^hydra\.{re.escape(key)}\S*: .*; leave it out$"):
        faults("experiment=theirs", config_dir=tmp_path)


def test_logging_into_the_run_folder_and_to_the_terminal_is_no_fault(tmp_path: Path) -> None:
    handlers = (
        "{file: {class: logging.FileHandler, filename: '${hydra.runtime.output_dir}/x.log'}, "
        "console: {class: logging.StreamHandler, stream: ext://sys.stdout}}"
    )
    logged = f"# @package _global_\nhydra: {{job_logging: {{handlers: {handlers}}}, output_subdir: .hydra}}\n"
    write(tmp_path, "experiment/ours.yaml", logged)
    assert faults("experiment=ours", config_dir=tmp_path) == []


def test_what_a_recipe_says_in_vain_is_told(tmp_path: Path) -> None:
    for folder in ("data", "recipe"):
        (tmp_path / folder).mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [imagefolder]\nroot: photos\n")
    recipe = tmp_path / "recipe" / "mine.yaml"
    recipe.write_text("# @package _global_\ntrainer: {epochs: 3}\noptimizer: {lr: 0.02}\n")
    (fault,) = faults("data=mine", config_dir=tmp_path)
    assert fault == (
        "recipe/mine.yaml: optimizer: is overruled by files that come later; write it into recipe/sgd_mine.yaml, which "
        "holds the keys alone, such as lr"
    )
    recipe.write_text("trainer: {epochs: 3}\n")
    (fault,) = faults("data=mine", config_dir=tmp_path)
    assert fault.endswith("let the file of the recipe begin with '# @package _global_'")
    recipe.write_text("# @package _global_\ntrainer: {epochs: 3}\n")
    (tmp_path / "recipe" / "sgd_mine.yaml").write_text("lr: 0.02\n")
    settings = compose_settings(["data=mine"], str(tmp_path))
    assert (settings.trainer.epochs, settings.optimizer.lr) == (3, 0.02)


def test_the_base_of_a_data_file_is_told_where_it_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, base in {"slip": "imagefoldr", "one": "two", "two": "one"}.items():
        (tmp_path / "data" / f"{name}.yaml").write_text(f"defaults: [{base}]\nroot: photos\n")
    (fault,) = faults("data=slip", config_dir=tmp_path)
    assert fault.startswith(
        f"{tmp_path / 'data' / 'slip.yaml'}: data: no option imagefoldr; did you mean data=imagefolder?"
    )
    ring = "data=one: its defaults list leads back to itself; let it begin with an option of cnntrain's"
    assert faults("data=one", config_dir=tmp_path) == [ring]


def test_a_data_file_by_the_name_of_one_of_ours_is_told(tmp_path: Path) -> None:
    """Else ours would be read, as it comes first, and without a word."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stl10.yaml").write_text("defaults: [imagefolder]\nroot: photos\n")
    line = f"data: {tmp_path / 'data' / 'stl10.yaml'} is not read, as data=stl10 comes with cnntrain; rename it"
    assert faults("data=stl10", config_dir=tmp_path) == [line]
    assert faults("data=mnist", config_dir=tmp_path) == []


def test_a_missing_config_dir_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^--config-dir: no such folder \(given {tmp_path / 'nowhere'}\)$"):
        faults(config_dir=tmp_path / "nowhere")


def test_a_preset_that_sweeps_is_checked(tmp_path: Path) -> None:
    sweep = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      trainer.epochs: 1,0\n"
    write(tmp_path, "experiment/mine.yaml", "# @package _global_\n" + sweep)
    assert faults("experiment=mine", config_dir=tmp_path) == ["trainer.epochs: must be a whole number >= 1 (given 0)"]


def test_a_value_of_a_foreign_run_writes_no_line_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = "\x1b[31m\ncnntrain: error: rm -r all"
    plain = yaml.safe_load(to_yaml(compose_line([]).settings))
    plain["trainer"] |= {odd: 1, "precision": odd}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    assert cli.main(["resume", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(r"\x1b[31m\ncnntrain" in line for line in lines)
