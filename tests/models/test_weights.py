"""Weights to start from: every kind of file, names hidden by prefixes, and nothing passed over in silence."""

import argparse
import os
import pickle
import shlex
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from states import whole
from torch import Tensor, nn
from torchvision import models

from cnntrain.config.schema.model import ModelSettings
from cnntrain.errors import CheckpointError, ConfigError, UnsafeError
from cnntrain.models.weights.load import Weights, load_weights_into, read_weights
from cnntrain.storage import checkpoint


def network(seed: int, classes: int = 7, channels: int = 3) -> nn.Module:
    """Nine tensors, two of them in the head."""
    torch.manual_seed(seed)
    layers = {"conv": nn.Conv2d(channels, 4, 3), "norm": nn.BatchNorm2d(4), "fc": nn.Linear(4, classes)}
    net = nn.Sequential(OrderedDict(layers))
    with torch.no_grad():
        net.norm.running_mean.normal_()
        net.norm.num_batches_tracked.fill_(seed)
    return net


def tensors(seed: int = 1, **sizes: int) -> dict[str, Tensor]:
    return dict(network(seed, **sizes).state_dict())


def prefixed(prefix: str, seed: int = 1) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors(seed).items()}


def holds(model: nn.Module, wanted: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[name], value) for name, value in wanted.items())


def read(path: Path, lines: list[str] | None = None) -> Weights:
    said = [] if lines is None else lines
    found = read_weights(ModelSettings(name="own", weights=str(path)), said.append)
    assert found is not None
    return found


def fill(model: nn.Module, given: dict[str, Tensor], **words: Any) -> list[str]:
    return load_weights_into(model, Weights(given, "f.pt"), **{"new": [], "allow_missing": [], **words})


# --- files ---


def as_safetensors(path: Path, content: dict[str, Tensor]) -> Path:
    path = path.with_suffix(".safetensors")
    save_file(content, path)
    return path


def as_torch(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def as_old_torch(path: Path, content: Any) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("write", [as_safetensors, as_torch, as_old_torch])
def test_published_resnet18_gets_a_head_for_five_classes(write: Callable[..., Path], tmp_path: Path) -> None:
    published, model = models.resnet18(), models.resnet18(num_classes=5)
    head = model.fc.weight.clone()
    path = write(tmp_path / "resnet18.pth", published.state_dict())
    lines = load_weights_into(model, read(path), new=["fc"], allow_missing=[])
    assert lines == [f"loaded 120/122 tensors of {path}; new: fc.weight, fc.bias"]
    assert torch.equal(model.fc.weight, head)
    assert torch.equal(model.layer4[1].bn2.running_var, published.layer4[1].bn2.running_var)


@pytest.mark.parametrize(
    "around",
    [
        lambda found: {"state_dict": found},
        lambda found: {"model": found, "optimizer": {"state": {0: {f"m{i}": torch.ones(1) for i in range(20)}}}},
        lambda found: {"model_state_dict": found, "args": argparse.Namespace(lr=0.1), "best_acc": np.float64(0.5)},
        lambda found: {"state_dict": found, "callbacks": {"best": {"score": torch.ones(())}}, "epoch": torch.tensor(3)},
        lambda found: {"epoch": 3, "deep": {"net": OrderedDict(found)}},
        lambda found: {
            name: nn.Parameter(value) if value.is_floating_point() else value for name, value in found.items()
        },
    ],
)
def test_state_dict_is_found_in_what_training_scripts_save(around: Callable[..., Any], tmp_path: Path) -> None:
    lines: list[str] = []
    found = read(as_torch(tmp_path / "a.pth", around(tensors())), lines)
    assert found.tensors.keys() == tensors().keys()
    assert not lines


def test_averaged_weights_are_preferred_and_that_is_said(tmp_path: Path) -> None:
    for place in ("state_dict_ema", "model_ema", "ema"):
        lines: list[str] = []
        content = {"state_dict": tensors(1), place: prefixed("module.", 2) | {"n_averaged": torch.tensor(9)}}
        model = network(0)
        fill(model, read(as_torch(tmp_path / "a.pth", content), lines).tensors)
        assert holds(model, tensors(2))
        assert lines == [
            f"{tmp_path / 'a.pth'} holds several networks: {place!r}, averaged weights, is taken, not 'state_dict'"
        ]


def test_averaged_weights_without_statistics_are_not_taken(tmp_path: Path) -> None:
    shadow = {name: value for name, value in tensors(2).items() if "running" not in name and "num" not in name}
    lines: list[str] = []
    found = read(as_torch(tmp_path / "a.pth", {"ema": shadow, "model": tensors(1)}), lines)
    assert torch.equal(found.tensors["conv.weight"], tensors(1)["conv.weight"])
    assert "'model' is taken, not 'ema'" in lines[0]


@pytest.mark.parametrize("about", [{"mean": "text"}, {"config": {}}, {"config": {"model": []}}, {"classes": [1]}])
def test_forged_runs_are_refused_or_of_no_harm(about: dict[str, Any], tmp_path: Path) -> None:
    torch.save(whole(model=tensors(1), about=about), tmp_path / "mine.pt")
    if "config" in about:
        assert read(tmp_path / "mine.pt").source == f"{tmp_path / 'mine.pt'} (a run)"
    else:
        with pytest.raises(CheckpointError, match=f"no about.{next(iter(about))} in it as cnntrain writes it"):
            read(tmp_path / "mine.pt")


@pytest.mark.parametrize("averaged", [False, True])
def test_runs_of_ours_give_their_averaged_weights_and_classes(averaged: bool, tmp_path: Path) -> None:
    about = {"config": {"model": {"name": "lenet5"}}, "classes": ["ant", "bee"]}
    state = whole(model=tensors(1), ema={"model": tensors(2), "updates": 0} if averaged else None, about=about)
    (tmp_path / "environment.json").write_text('{"run_id": "run"}')
    checkpoint.save(tmp_path, state, best=True)
    best = tmp_path / "checkpoints" / "best"
    copied = tmp_path / "mine.pt"
    copied.write_bytes((best / "state.pt").read_bytes())
    for path in (tmp_path, best, best / "state.pt", copied):
        found = read(path)
        assert found.classes == ["ant", "bee"]
        assert torch.equal(found.tensors["conv.weight"], tensors(1 + averaged)["conv.weight"])
        assert found.source == f"{path} (lenet5{', EMA weights' if averaged else ''})"


def test_without_weights_there_are_none() -> None:
    assert read_weights(ModelSettings(name="lenet5"), print) is None


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


@pytest.mark.parametrize("content", [{"state_dict": Evil()}, nn.Linear(2, 2)])
def test_file_that_holds_code_is_refused(content: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = as_torch(tmp_path / "a.pth", content)
    with pytest.raises(UnsafeError, match=r"^model.weights: .*a.pth: refused") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_bare_pickle_that_holds_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises((UnsafeError, CheckpointError), match=r"^model.weights: "):
        read(tmp_path / "a.pt")
    assert capsys.readouterr().out == ""


WHOLE = b"".join((len(head := b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}').to_bytes(8, "little"), head))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pt", b"", "is empty"),
        ("a.pth", b"\x89PNG\r\n\x1a\n" + bytes(60), "is no file of weights"),
        ("a.pt", b"PK\x03\x04" + bytes(60), "no readable weights"),
        ("a.safetensors", b"", "is damaged or no safetensors"),
        ("a.safetensors", b"\xff\xd8\xff\xe0" + bytes(60), "is damaged or no safetensors"),
        ("a.safetensors", WHOLE + bytes(20), "is damaged or no safetensors"),
        ("state.pt", b"\x00\x01", "is no file of weights"),
    ],
)
def test_wrong_kind_of_file_is_one_clear_line(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"model.weights: {path}")
    assert words in text
    assert "; " in text
    assert "\n" not in text


def test_missing_file_pipe_and_folder_without_a_run_are_one_clear_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path, words in (
        (tmp_path / "no.pth", "is not there; give a .safetensors"),
        (tmp_path / "pipe.safetensors", "is a pipe or device, not a file; give a"),
        (tmp_path, "no cnntrain checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=rf"^model.weights: {path}:? {words}"):
            read(path)


def test_file_without_tensors_is_refused(tmp_path: Path) -> None:
    for content in ({"epoch": 3}, {"optimizer": tensors()}, {}):
        with pytest.raises(CheckpointError, match="holds no tensors"):
            read(as_torch(tmp_path / "a.pt", content))
    with pytest.raises(CheckpointError, match="holds no weights but a list"):
        read(as_torch(tmp_path / "a.pt", [torch.ones(2)]))


# --- names ---


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "encoder.", "backbone.", "model.", "net.", "a.b.c."]
)
def test_prefix_that_hides_the_names_is_stripped_and_said(prefix: str) -> None:
    model, projector = network(0), {"projector.0.weight": torch.ones(4, 4)}
    lines = fill(model, prefixed(prefix) | projector)
    assert holds(model, tensors(1))
    shown = prefix.replace("_orig_mod.", "")
    assert lines == [
        "loaded 9/9 tensors of f.pt",
        *([f"names of the file without their {shown!r}"] if shown else []),
        "unused: projector.0.weight",
    ]


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", ["encoder", "module", "model", "net", "backbone"])
def test_network_whose_own_modules_are_named_like_prefixes_is_not_mangled(name: str, prefix: str) -> None:
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(OrderedDict({name: network(seed), "head": nn.Linear(7, 2), "conv": nn.Conv2d(3, 4, 3)}))

    saved, model = dict(build(1).state_dict()), build(0)
    lines = fill(model, {prefix + key: value for key, value in saved.items()})
    assert lines[0] == "loaded 13/13 tensors of f.pt"
    assert holds(model, saved)


def test_part_of_a_network_that_was_compiled_alone_is_found() -> None:
    model = network(0)
    given = tensors(1)
    given["conv._orig_mod.weight"] = given.pop("conv.weight")
    fill(model, given)
    assert holds(model, tensors(1))


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("wanted", [False, True])
def test_networks_with_enlarged_images_give_and_take_weights(saved: bool, wanted: bool) -> None:
    def wrapped(net: nn.Module) -> nn.Module:
        return nn.Sequential(OrderedDict(enlarge=nn.Upsample((64, 64)), net=net))

    inner = network(0)
    model = wrapped(inner) if wanted else inner
    head = inner.fc.weight.clone()
    lines = fill(model, prefixed("net." if saved else ""), new=["net.fc" if wanted else "fc"])
    assert lines[0].startswith("loaded 7/9 tensors of f.pt; new: ")
    assert not any("unused" in line for line in lines)
    assert torch.equal(inner.norm.running_mean, tensors(1)["norm.running_mean"])
    assert torch.equal(inner.fc.weight, head)


def test_two_networks_that_fit_alike_are_told_and_the_average_wins() -> None:
    model = network(0)
    lines = fill(model, prefixed("student.", 1) | prefixed("teacher.", 2))
    assert holds(model, tensors(2))
    assert "'student.' would have fitted as well" in lines


@pytest.mark.parametrize(
    ("own", "published"),
    [
        ("features.denseblock1.denselayer1.norm1.weight", "features.denseblock1.denselayer1.norm.1.weight"),
        ("features.denseblock1.denselayer2.conv2.weight", "features.denseblock1.denselayer2.conv.2.weight"),
        ("encoder.layers.encoder_layer_0.mlp.0.bias", "encoder.layers.encoder_layer_0.mlp.linear_1.bias"),
        ("encoder.layers.encoder_layer_9.mlp.3.weight", "encoder.layers.encoder_layer_9.mlp.linear_2.weight"),
    ],
)
def test_names_in_the_published_files_of_torchvision_are_known(own: str, published: str) -> None:
    with torch.device("meta"):
        assert own in (models.densenet121() if "dense" in own else models.vit_b_16()).state_dict()
    model = nn.Module()
    value = torch.zeros(2)
    model.state_dict = lambda: {own: value, "fc.bias": torch.zeros(2)}  # type: ignore[method-assign,assignment]
    assert fill(model, {published: torch.ones(2), "fc.bias": torch.ones(2)}) == ["loaded 2/2 tensors of f.pt"]
    assert value.sum() == 2


# --- values ---


def test_half_precision_files_take_the_precision_of_the_network() -> None:
    model = network(0)
    fill(model, {name: value.half() if value.is_floating_point() else value for name, value in tensors().items()})
    assert model.conv.weight.dtype == torch.float32
    assert torch.equal(model.conv.weight, tensors()["conv.weight"].half().float())


def test_files_from_before_batch_norms_counted_are_whole() -> None:
    given = {name: value for name, value in tensors().items() if "num_batches" not in name}
    assert fill(network(0), given, new=["fc"]) == ["loaded 6/8 tensors of f.pt; new: fc.weight, fc.bias"]


def test_first_convolution_is_summed_for_grey_images() -> None:
    model, color = network(0, channels=1), network(1)
    lines = fill(model, tensors(1))
    grey = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model.conv(grey), color.conv(grey.expand(-1, 3, -1, -1)))
    assert lines[1] == "conv.weight summed over its input channels, for grey images"


def test_anything_else_that_is_missing_is_an_error_and_changes_nothing() -> None:
    model = network(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = tensors(1, classes=5)
    del given["norm.weight"]
    with pytest.raises(CheckpointError) as caught:
        fill(model, given)
    assert str(caught.value) == (
        "model.weights: f.pt does not fit the network in 3 of 9 tensors (norm.weight is missing, fc.weight is (5, 4) "
        "in the file and (7, 4) in the network, fc.bias is (5,) in the file and (7,) in the network); "
        "correct model.name, model.args or data.image_size, or let them start as initialised: "
        "'model.allow_missing=[norm,fc]'"
    )
    assert holds(model, before)


def test_a_kernel_of_another_size_leads_to_the_published_stem() -> None:
    given = tensors(1)
    given["conv.weight"] = torch.ones(*given["conv.weight"].shape[:2], 7, 7)
    with pytest.raises(
        CheckpointError, match=r"or data.image_size, keep the published stem by model.stem=imagenet, or"
    ):
        fill(network(0), given)


def test_weights_that_are_not_finite_are_refused() -> None:
    given = tensors(1)
    given["norm.running_var"][2] = torch.nan
    with pytest.raises(CheckpointError, match=r"in 1 of 9 tensors \(norm.running_var is NaN or infinite in places\)"):
        fill(network(0), given)


def test_what_may_be_missing_is_said() -> None:
    model = network(0)
    lines = fill(model, tensors(1, classes=5), allow_missing=["fc"])
    assert lines == ["loaded 7/9 tensors of f.pt", "as initialised, by model.allow_missing: fc.weight, fc.bias"]
    assert fill(network(0), tensors(1, classes=5), allow_missing=["fc"], frozen=["fc.weight"])[2:] == [
        "warning: fc.weight stays as initialised and never learns; let it learn, or give weights that have it"
    ]


def test_pattern_that_matches_no_tensor_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"model.allow_missing: 'fk' matches no tensor"):
        fill(network(0), tensors(), allow_missing=["fk"])


def test_loading_nothing_is_an_error_even_where_all_may_be_missing() -> None:
    counters = {"norm.num_batches_tracked": torch.tensor(3)}
    for given in ({"x": torch.ones(1)}, tensors(1, classes=5) | {"conv.weight": torch.ones(1)}, counters):
        new = ["norm", "conv.bias"] if "conv.weight" in given else []
        with pytest.raises(CheckpointError, match="none of its tensors does"):
            fill(network(0), given, allow_missing=["*"], new=new)


def test_integers_do_not_become_weights() -> None:
    given = tensors() | {"conv.weight": tensors()["conv.weight"].to(torch.int8)}
    with pytest.raises(CheckpointError, match=r"conv.weight is torch.int8 in the file and torch.float32"):
        fill(network(0), given)


def test_unused_tensors_are_told_but_for_the_old_head() -> None:
    more = {f"aux.{i}.weight": torch.ones(1) for i in range(16)}
    lines = fill(network(0), tensors(classes=1000) | more, new=["fc"])
    assert lines[1:] == ["unused: aux.0.weight, aux.1.weight, aux.2.weight, aux.3.weight, and 12 more"]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_a_larger_network_are_refused(prefix: str) -> None:
    model = models.resnet18(num_classes=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = {prefix + name: value for name, value in models.resnet34().state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        fill(model, given, new=["fc"])
    assert holds(model, before)
    allowed = "module" if prefix else "layer1,layer2,layer3,layer4"  # it can be typed as it stands
    assert str(caught.value) == (
        "model.weights: f.pt is of another network, 48 of its 218 tensors have no place in this one "
        f"({prefix}layer1.2.conv1.weight, {prefix}layer1.2.bn1.weight, {prefix}layer1.2.bn1.bias, "
        f"{prefix}layer1.2.conv2.weight, and 44 more); correct model.name or model.args, or leave them out: "
        f"'model.allow_unused=[{allowed}]'"
    )
    assert "unused: " in fill(model, given, new=["fc"], allow_unused=allowed.split(","))[-1]


def test_layers_that_find_no_place_may_be_allowed_by_name() -> None:
    given = tensors() | {"conv.0.weight": torch.ones(1), "conv.1.weight": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"2 of its 11 tensors .* 'model.allow_unused=\[conv.0,conv.1\]'$"):
        fill(network(0), given)
    lines = fill(network(0), given, allow_unused=["conv.0", "conv.1"])
    assert lines[1:] == ["unused: conv.0.weight, conv.1.weight"]
    with pytest.raises(ConfigError, match=r"model.allow_unused: 'conf' matches no tensor of the file"):
        fill(network(0), given, allow_unused=["conf"])


@pytest.mark.parametrize(
    "beside",
    [
        {f"AuxLogits.conv{i}.weight": torch.ones(1) for i in range(9)},
        {f"projection_head.{i}.weight": torch.ones(1) for i in range(9)},
        {"mask_token": torch.ones(1), "queue": torch.ones(1), "queue_ptr": torch.ones(1, dtype=torch.int64)},
        {f"norm.{name}": torch.ones(1) for name in ("total_ops", "total_params", "attn_mask")},
        {f"conv.{i}.index": torch.ones(1, dtype=torch.int64) for i in range(9)},
    ],
)
def test_heads_counters_and_a_few_tensors_may_find_no_place(beside: dict[str, Tensor]) -> None:
    lines = fill(network(0), tensors() | beside)
    assert lines[0] == "loaded 9/9 tensors of f.pt"
    assert lines[1].startswith("unused: ")


def test_the_other_part_of_a_model_in_two_may_find_no_place() -> None:
    text = {f"text.layer{i}.weight": torch.ones(1) for i in range(9)}
    assert fill(network(0), prefixed("visual.") | text)[2].startswith("unused: text.layer0.weight")


def test_statistics_of_batch_norms_may_find_no_place_under_another_norm() -> None:
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.GroupNorm(1, 4), fc=nn.Linear(4, 7)))
    lines = fill(model, tensors())
    assert lines[1] == "unused: norm.running_mean, norm.running_var, norm.num_batches_tracked"


def test_many_tensors_in_parts_that_the_network_lacks_are_refused() -> None:
    with pytest.raises(CheckpointError, match="5 of its 14 tensors have no place"):
        fill(network(0), tensors() | {f"conv{i}.weight": torch.ones(1) for i in range(5)})


def test_the_advice_for_a_whole_pickled_network_gives_a_file_that_is_taken(tmp_path: Path) -> None:
    saved = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), fc=nn.Linear(4, 7)))
    path = as_torch(tmp_path / "it's $HOME.pt", saved)
    with pytest.raises(UnsafeError, match=r"if it is a whole network that you trust, .*: python -c ") as caught:
        read(path)
    assert "\n" not in str(caught.value)
    command = shlex.split(str(caught.value).rpartition("python -c ")[2])
    assert len(command) == 1
    exec(command[0], {})  # what the line says, without another Python
    model = network(0)
    assert load_weights_into(model, read(tmp_path / "tensors.pt"), new=[], allow_missing=[])[0].startswith("loaded 9/9")
    assert holds(model, dict(saved.state_dict()))
