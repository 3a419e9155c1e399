"""Weights as safetensors, and networks in whole numbers: `cnntrain export` on a network of a library."""

import json
import re
import runpy
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from test_export import onnx_file, run
from torch import nn

from cnntrain import cli
from cnntrain.config.compose import compose_settings
from cnntrain.export import int8, latency, twin
from cnntrain.models.build import build_model
from cnntrain.report.run_report import Report
from cnntrain.training.load_run import load_job


@pytest.fixture(scope="module")
def gray_run(tmp_path_factory):
    """A network of timm that met small gray images, of which it knows neither, with another head."""
    folder = tmp_path_factory.mktemp("gray") / "run"
    words = ["model=timm", "model.name=test_resnet", "model.head.hidden=[8]", "data=digits", "data.limit=200"]
    words += [
        "trainer.device=cpu",
        "trainer.threads=1",
        "trainer.max_steps=4",
        "trainer.tensorboard=false",
        "trainer.probe=0",
    ]
    assert cli.main([*words, f"out={folder}"]) == 0
    return folder


@pytest.mark.slow
def test_weights_have_the_names_of_their_library_and_were_loaded_there(gray_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert run(gray_run, "format=safetensors", "out=a.safetensors") == 0
    out = capsys.readouterr().out
    assert "names those of timm" in out
    _, lines = out.split("the same network, of timm:\n")
    space = {"timm": timm, "nn": nn, "OrderedDict": OrderedDict}
    exec("\n".join(line.strip() for line in lines.splitlines()), space)
    assert 'timm.create_model("test_resnet", num_classes=10, in_chans=1)' in lines
    space["network"].load_state_dict(load_file("a.safetensors"), strict=True)
    _, _, job = load_job(gray_run, [], Report(None, tensorboard=False))
    images = job.data.test.pick(torch.arange(6))
    expected = job.scorer().logits(images)
    assert torch.allclose(space["network"].eval()(job.normalize(images)), expected, atol=1e-5)
    with safe_open("a.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classes"]) == list("0123456789")
        assert json.loads(file.metadata()["preprocessing"])["channels"] == 1
    answer = runpy.run_path("a.py")["probabilities"](images.permute(0, 2, 3, 1).numpy())
    assert np.allclose(answer, expected.softmax(1), atol=1e-5)


def job_of(model, settings, *, channels, image_size) -> Any:
    """What of a job a twin is found by."""
    data = SimpleNamespace(classes=list("abcde"), channels=channels, image_size=image_size)
    return SimpleNamespace(model=model, settings=settings, data=data)


NETWORKS = {
    "torchvision": (
        "resnet18",
        [],
        ["network.conv1 = nn.Conv2d(1, 64, (3, 3), padding=(1, 1), bias=False)", "network.maxpool = nn.Identity()"],
    ),
    "one of ours that torchvision has": (
        "efficientnet",
        ["model.args.phi=0"],
        ["network.features[0][0] = nn.Conv2d(1, 32, (3, 3), padding=(1, 1), bias=False)"],
    ),
    "strides alone": ("mobilenet_v3_large", ["data.channels=3"], ["network.features[0][0].stride = (1, 1)"]),
}


@pytest.mark.parametrize(
    ("name", "words", "lines"),
    [
        pytest.param(*case, id=name, marks=[] if name == "torchvision" else pytest.mark.slow)
        for name, case in NETWORKS.items()
    ],
)
def test_a_library_makes_the_same_network_by_the_lines_told(name, words, lines):
    channels = 3 if "data.channels=3" in words else 1
    settings = compose_settings([f"model={name}", "data.image_size=32", *words])
    model, _ = build_model(settings.model, classes=5, channels=channels, image_size=32)
    job = job_of(model, settings, channels=channels, image_size=32)
    found = twin.find_twin(job)
    network = found.build(model)
    assert found.library == "torchvision"
    assert [line in found.lines for line in lines] == [True] * len(lines)
    network.load_state_dict(model.state_dict(), strict=True)
    images = torch.randn(2, channels, 32, 32)
    with torch.no_grad():
        assert torch.allclose(network(images), model.eval()(images), atol=1e-5)


@pytest.mark.slow
def test_a_network_whose_images_are_enlarged_is_enlarged_there_too():
    net = torchvision.models.alexnet(num_classes=5)
    model = nn.Sequential(OrderedDict(enlarge=nn.Upsample(size=(75, 75), mode="bilinear"), net=net))
    settings = compose_settings(["model=alexnet"])
    job = job_of(model, settings, channels=3, image_size=8)
    found = twin.find_twin(job)
    network = found.build(twin.core_of(job)[0])
    network.load_state_dict(net.state_dict(), strict=True)
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(found.finish(network)(images), model.eval()(images))
    assert found.last_line == 'network = nn.Sequential(nn.Upsample(size=(75, 75), mode="bilinear"), network)'


def test_a_layer_that_is_made_nowhere_else_is_named(gray_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(twin, "_PLAIN", ())
    assert run(gray_run, "format=safetensors", "out=a.safetensors") == 0
    assert "none elsewhere, as " in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


# --- int8 and latency ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_int8_tells_the_accuracy_before_and_after_and_how_far_probabilities_move(
    gray_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert run(gray_run, "int8=true", "preprocessing=true", "latency=true", "out=small.onnx") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"int8 top-1 [\d.]+% of 144 validation images, before [\d.]+%; the probability", out)
    assert re.search(r"latency 1 image [\d.e-]+ ms, 32 images [\d.e-]+ ms", out)
    assert " in int8 1 image" in out
    _, _, job = load_job(gray_run, [], Report(None, tensorboard=False))
    facts, ask = onnx_file("small.onnx")
    assert json.loads(facts["classes"]) == list("0123456789")
    images, labels = job.data.val.pick(torch.arange(144)), job.data.val.labels
    answer = torch.from_numpy(ask(images.permute(0, 2, 3, 1).contiguous()))
    top1 = float((answer.argmax(1) == labels).float().mean())
    assert f"top-1 {100 * top1:.2f}%" in out
    full = job.scorer().logits(images).softmax(1)
    assert (answer - full).abs().mean() < 0.02
    shift = (answer - full)[torch.arange(144), full.argmax(1)].abs().mean()
    assert abs(100 * shift - float(re.findall(r"named moves by ([\d.]+) points on average", out)[0])) < 0.06
    kinds = {node.op_type: node for node in onnx.load("small.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Softmax"} <= kinds.keys()
    weights = [one for one in onnx.load("small.onnx").graph.initializer if one.data_type == onnx.TensorProto.INT8]
    assert max(np.abs(onnx.numpy_helper.to_array(one)).max() for one in weights) <= 64  # of 7 bits


def test_a_time_of_a_second_is_told_in_seconds():
    words = latency.in_words([(1, 0.0021), (32, 1.69)], "onnxruntime 1.23.0")
    assert words.startswith("1 image 2.1 ms, 32 images 1.69 s (52.8 ms each); median")
    assert latency.in_words([(1, 0.9996)], "").startswith("1 image 1 s;")


@pytest.mark.slow
def test_int8_that_costs_much_is_warned_of(gray_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(int8, "cost", lambda *given: int8.Cost(0.9, 0.6, 0.1))
    assert run(gray_run, "int8=true", "out=small.onnx") == 0
    assert "whole numbers cost 30.0 points of top-1; leave out int8 where these count" in capsys.readouterr().out
