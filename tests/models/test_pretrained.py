"""Weights of torchvision and timm: downloads without a network, caches, and the images that they were trained on."""

import hashlib
import logging
import socket
import urllib.error
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models, transforms

from cnntrain.config.schema.data import Interpolation
from cnntrain.config.schema.model import Library, ModelSettings
from cnntrain.errors import CheckpointError, ConfigError, UnsafeError
from cnntrain.models.weights.download import file_of_address
from cnntrain.models.weights.load import load_weights_into, read_weights
from cnntrain.models.weights.pretrained import library_tensors, preprocessing
from cnntrain.storage import state_form

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
SMALL = "shufflenet_v2_x0_5"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches; the folder where torch keeps downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    return tmp_path / "hub" / "checkpoints"


def pretrained(name: str, **words: Any) -> ModelSettings:
    return ModelSettings(name=name, pretrained=True, **words)


# --- preprocessing ---


@pytest.mark.parametrize(
    ("name", "library", "wanted"),
    [
        ("resnet50", Library.auto, (*IMAGENET, 224, "bilinear", 224 / 232)),
        ("efficientnet_b0", Library.auto, (*IMAGENET, 224, "bicubic", 224 / 256)),
        ("efficientnet_v2_l", Library.auto, (*HALF, 480, "bicubic", 1.0)),
        ("googlenet", Library.auto, (*HALF, 224, "bilinear", 224 / 256)),
        ("inception_v3", Library.auto, (*HALF, 299, "bilinear", 299 / 342)),
        ("resnet50", Library.timm, (*IMAGENET, 224, "bicubic", 0.95)),
        ("tf_efficientnet_lite0", Library.auto, (*HALF, 224, "bicubic", 0.875)),
        ("test_resnet", Library.auto, (*HALF, 160, "bilinear", 0.95)),
        ("xception", Library.auto, (*HALF, 299, "bicubic", 0.8975)),
    ],
)
def test_preprocessing_is_that_of_the_published_weights(name: str, library: Library, wanted: tuple[Any, ...]) -> None:
    found = preprocessing(pretrained(name, library=library))
    assert found is not None
    interpolation = Interpolation[wanted[3]]
    assert (found.mean, found.std, found.image_size, found.interpolation, found.channels) == (
        *wanted[:3],
        interpolation,
        3,
    )
    assert found.crop == pytest.approx(wanted[4])


@pytest.mark.parametrize(("name", "kind"), [("googlenet", models.GoogLeNet), ("inception_v3", models.Inception3)])
def test_images_of_googlenet_and_inception_are_what_torchvision_turns_them_into(name: str, kind: Any) -> None:
    published = models.get_model_weights(name).DEFAULT.transforms()
    images = torch.rand(2, 3, 8, 8)
    stub = kind.__new__(kind)
    torch.nn.Module.__init__(stub)
    stub.transform_input = True
    wanted = stub._transform_input(transforms.functional.normalize(images, published.mean, published.std))
    ours = preprocessing(pretrained(name))
    assert ours is not None
    torch.testing.assert_close(transforms.functional.normalize(images, ours.mean, ours.std), wanted)
    kept = preprocessing(pretrained(name, args={"transform_input": True}))
    assert kept is not None
    assert (kept.mean, kept.std) == (published.mean, published.std)


def test_foreign_file_takes_the_preprocessing_of_its_network(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    for file in ("a.safetensors", "a.pth"):
        settings = ModelSettings(name="resnet18", weights=str(tmp_path / file))
        found = preprocessing(settings)
        assert found is not None
        assert found.source == "torchvision's IMAGENET1K_V1"
    with pytest.raises(CheckpointError, match=r"^model.weights: .* is not there"):
        preprocessing(ModelSettings(name="resnet18", weights=str(tmp_path / "b.safetensors")))


@pytest.mark.parametrize("old", [False, True])
def test_run_of_ours_says_how_its_images_were_prepared(
    old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_form, "fault", lambda state: None)  # the rest of a state is not what this is about
    about = {"config": {}, "classes": ["a"], "mean": [0.1], "std": [0.2], "image_size": 28, "channels": 1}
    about |= {} if old else {"interpolation": "bicubic", "crop": 1.0, "crop_mode": "squash"}
    torch.save({"about": about, "model": {}}, tmp_path / "a.pt")
    found = preprocessing(ModelSettings(name="lenet5", weights=str(tmp_path / "a.pt")))
    assert found is not None
    assert (found.mean, found.std, found.image_size, found.channels) == ([0.1], [0.2], 28, 1)
    assert (found.interpolation.name, found.crop) == (("bilinear", 0.875) if old else ("bicubic", 1.0))
    assert found.crop_mode.name == ("center" if old else "squash")


def test_networks_of_ours_and_of_the_user_have_none() -> None:
    assert preprocessing(ModelSettings(name="resnet18")) is None
    assert preprocessing(pretrained("lenet5")) is None
    assert preprocessing(pretrained("my_pkg.nets:build")) is None


def test_every_network_of_torchvision_has_a_preprocessing_that_settings_can_hold() -> None:
    for name in models.list_models(module=models):
        found = preprocessing(pretrained(name))
        assert found is not None
        assert 0 < found.crop <= 1


# --- torchvision ---


def published(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, torch.Tensor], list[tuple[str, str]]]:
    """Let the download of SMALL write random weights; what was asked for."""
    calls: list[tuple[str, str]] = []
    state = models.get_model(SMALL).state_dict()

    def download(url: str, place: str, digits: str | None) -> None:
        assert socket.getdefaulttimeout() is not None
        calls.append((url, str(digits)))
        torch.save(state, place)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    return state, calls


def test_weights_of_torchvision_are_downloaded_with_their_checksum(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, calls = published(monkeypatch)
    lines: list[str] = []
    weights = read_weights(pretrained(SMALL), lines.append)
    assert weights is not None
    url = models.get_model_weights(SMALL).DEFAULT.url
    assert calls == [(url, url.rpartition("-")[2].partition(".")[0])]
    assert lines == [f"downloading {url} to {cache}"]
    assert socket.getdefaulttimeout() is None
    model = models.get_model(SMALL, num_classes=3)
    said = load_weights_into(model, weights, new=["fc"], allow_missing=[])
    count = len(state)
    assert said == [f"loaded {count - 2}/{count} tensors of torchvision's IMAGENET1K_V1; new: fc.weight, fc.bias"]
    assert torch.equal(model.conv1[0].weight, state["conv1.0.weight"])


def test_damaged_file_in_the_cache_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(monkeypatch)
    settings = pretrained(SMALL)
    library_tensors(settings, print)  # random weights have another sha256 than those whose name they have
    with pytest.raises(ConfigError, match=rf"^model.pretrained: {cache}/.*sha256 does not begin with .*; delete it"):
        library_tensors(settings, print)


def test_file_that_was_put_into_the_cache_needs_no_download(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    cache.mkdir(parents=True)
    name = f"net-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    (cache / name).write_bytes(b"weights")
    assert file_of_address(f"https://example.org/{name}", pytest.fail) == cache / name


def test_code_in_the_cache_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.hub, "download_url_to_file", lambda url, place, digits: torch.save(torch.nn.ReLU(), place)
    )
    with pytest.raises(UnsafeError, match=r"^model.pretrained: .*refused"):
        library_tensors(pretrained(SMALL), print)


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError(socket.gaierror(-2, "Name or service not known")),
        TimeoutError("timed out"),
        RuntimeError('invalid hash value (expected "11ad3fa6", got "00")'),
        PermissionError(13, "Permission denied"),
    ],
)
def test_download_that_fails_is_one_line_with_what_to_do(
    error: Exception, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(ConfigError) as caught:
        library_tensors(pretrained("resnet50"), lambda line: None)
    assert str(caught.value) == (
        "model.pretrained: https://download.pytorch.org/models/resnet50-11ad3fa6.pth cannot be downloaded "
        f"({type(error).__name__}: {error}); put it as resnet50-11ad3fa6.pth into {cache}, "
        "or give a file that you have, model.weights=FILE"
    )
    assert socket.getdefaulttimeout() is None


def test_untrained_auxiliary_classifiers_of_googlenet_are_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, place, digits: torch.save({}, place))
    lines: list[str] = []
    library_tensors(pretrained("googlenet", aux_weight=0.3), lines.append)
    assert "never trained" in lines[-1]


# --- timm ---


def small_timm(path: Path) -> dict[str, torch.Tensor]:
    state = timm.create_model("test_resnet").state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)
    return state


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_weights_of_timm_that_were_put_into_the_cache_need_no_download(cache: Path) -> None:
    state = small_timm(cache / "test_resnet.r160_in1k.safetensors")
    before = torch.get_rng_state()
    found, source = library_tensors(pretrained("test_resnet"), pytest.fail)
    assert same(found, state)
    assert source == "timm's test_resnet.r160_in1k"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("etag", ["right", "wrong", "none"])
def test_weights_of_timm_are_downloaded_with_their_checksum(
    etag: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "blob.safetensors"
    state = small_timm(file)
    digest = {"right": hashlib.sha256(file.read_bytes()).hexdigest(), "wrong": 64 * "0", "none": '"abc"'}[etag]
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: Mock(etag=digest))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda filename, repo_id, revision: str(file))
    lines: list[str] = []
    if etag == "wrong":
        with pytest.raises(ConfigError, match=r"sha256 does not begin with 00000000\); delete it"):
            library_tensors(pretrained("test_resnet"), lines.append)
    else:
        assert same(library_tensors(pretrained("test_resnet"), lines.append)[0], state)
    url = "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    assert lines == [f"downloading {url} to the cache of Hugging Face"]


def test_repository_without_safetensors_gives_its_older_file(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = timm.create_model("test_resnet").state_dict()
    torch.save(state, tmp_path / "weights.bin")

    def metadata(url: str, timeout: float) -> Any:
        if url.endswith("safetensors"):
            raise huggingface_hub.errors.EntryNotFoundError("404")
        return Mock(etag=None)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda filename, **_: str(tmp_path / "weights.bin"))
    lines: list[str] = []
    assert same(library_tensors(pretrained("test_resnet"), lines.append)[0], state)
    assert "pytorch_model.bin" in lines[0]


def test_timm_offline_is_one_line_and_nothing_else(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(url: str, timeout: float) -> None:
        logging.getLogger("huggingface_hub").error("retrying")
        raise ConnectionError("[Errno -2] Name or service not known")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    with pytest.raises(ConfigError) as caught:
        library_tensors(pretrained("tf_efficientnet_lite0"), pytest.fail)
    url = "https://huggingface.co/timm/tf_efficientnet_lite0.in1k/resolve/main/model.safetensors"
    assert str(caught.value) == (
        f"model.pretrained: {url} cannot be downloaded (ConnectionError: [Errno -2] Name or service not known); "
        f"put it as tf_efficientnet_lite0.in1k.safetensors into {cache}, "
        "or give a file that you have, model.weights=FILE"
    )
    assert not caplog.records
    assert logging.root.manager.disable == 0


def test_damaged_weights_of_timm_are_one_line(cache: Path) -> None:
    file = cache / "test_resnet.r160_in1k.safetensors"
    small_timm(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=rf"^model.pretrained: {file} cannot be used .*; delete it") as caught:
        library_tensors(pretrained("test_resnet"), pytest.fail)
    assert "\n" not in str(caught.value)


# --- networks without weights ---


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "lenet5",
            "lenet5 is one of our own networks, for which no library has weights; give a file, model.weights=FILE",
        ),
        ("preact_resnet18", "such as model=resnet18$"),
        ("my_pkg.nets:build", "is a function of yours"),
        ("botnet50ts_256", "timm has no weights for botnet50ts_256; give a file.* model.name=halo2botnet50ts_256$"),
    ],
)
def test_network_without_published_weights_is_one_line(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model.pretrained: .*{words}"):
        library_tensors(pretrained(name), pytest.fail)
