"""Our own networks: of each its arguments, its builder and its facts, without torch."""

from dataclasses import dataclass, fields
from typing import Any

from cnntrain.config.schema.cnn import CnnArgs
from cnntrain.config.schema.network_args import (
    AirbenchArgs,
    BnInceptionArgs,
    EfficientnetArgs,
    HogArgs,
    InceptionArgs,
    InceptionResnetArgs,
    LenetArgs,
    MlpArgs,
    PreactResnetArgs,
    Resnet9Args,
    Resnet20Args,
    Resnet56Args,
    Resnet110Args,
    SoftmaxArgs,
    WideResnetArgs,
)
from cnntrain.registry import Entry, Registry


@dataclass(frozen=True)
class NetworkEntry(Entry):
    """A network of ours; its builder takes its arguments, `classes` and `channels`, and gives the torch.nn.Module.

    Attributes:
        year: of its first publication.
        source: arXiv identifier, or author and year.
        parameters: numbers that it learns, without auxiliary classifiers; tests/models/test_catalogue.py counts them.
        macs: multiply-adds for one image; counted there too.
        classes: of the data that it was made for, as are the next two.
        channels: 1 or 3.
        image_size: pixels a side.
        is_sized: built for one image size, so that nothing in it is ever relaxed; the builder takes `image_size` too.
        has_auxiliary: with classifiers on the way, whose losses model.aux_weight adds; the builder takes `aux` too.
    """

    year: int
    source: str
    parameters: int
    macs: int
    classes: int = 1000
    channels: int = 3
    image_size: int = 224
    is_sized: bool = False
    has_auxiliary: bool = False


_ZOO = "cnntrain.models.zoo"
MNIST, CIFAR = (10, 1, 28), (10, 3, 32)  # classes, channels, pixels a side
NETWORKS = Registry(
    "model",
    (
        NetworkEntry(
            "softmax", SoftmaxArgs, f"{_ZOO}.lenet:softmax", 1958, "Cox 1958", 7_850, 7_840, *MNIST, is_sized=True
        ),
        NetworkEntry(
            "mlp", MlpArgs, f"{_ZOO}.lenet:mlp", 1986, "Rumelhart 1986", 235_146, 234_752, *MNIST, is_sized=True
        ),
        NetworkEntry(
            "cnn", CnnArgs, f"{_ZOO}.cnn:build_cnn", 2015, "Keras 2015", 34_826, 2_440_960, *MNIST, is_sized=True
        ),
        NetworkEntry(
            "lenet1", LenetArgs, f"{_ZOO}.lenet:lenet1", 1989, "LeCun 1989", 3_246, 136_320, *MNIST, is_sized=True
        ),
        NetworkEntry(
            "lenet4", LenetArgs, f"{_ZOO}.lenet:lenet4", 1998, "LeCun 1998", 51_050, 287_600, 10, 1, 32, is_sized=True
        ),
        NetworkEntry(
            "lenet5", LenetArgs, f"{_ZOO}.lenet:lenet5", 1998, "LeCun 1998", 61_706, 416_520, 10, 1, 32, is_sized=True
        ),
        NetworkEntry("hog", HogArgs, f"{_ZOO}.hog:hog", 2005, "Dalal 2005", 12_970, 12_960, *MNIST, is_sized=True),
        NetworkEntry(
            "inception_v1",
            InceptionArgs,
            f"{_ZOO}.inception:googlenet",
            2014,
            "arXiv 1409.4842",
            6_998_552,
            1_582_671_872,
            has_auxiliary=True,
        ),
        NetworkEntry(
            "inception_v2",
            BnInceptionArgs,
            f"{_ZOO}.inception:bn_inception",
            2015,
            "arXiv 1502.03167",
            11_285_224,
            2_032_600_064,
        ),
        NetworkEntry(
            "inception_resnet_v1",
            InceptionResnetArgs,
            f"{_ZOO}.inception_resnet:InceptionResNetV1",
            2016,
            "arXiv 1602.07261",
            22_756_328,
            6_206_361_696,
            image_size=299,
        ),
        NetworkEntry(
            "resnet20",
            Resnet20Args,
            f"{_ZOO}.resnet_cifar:CifarResNet",
            2015,
            "arXiv 1512.03385",
            269_722,
            40_551_040,
            *CIFAR,
        ),
        NetworkEntry(
            "resnet56",
            Resnet56Args,
            f"{_ZOO}.resnet_cifar:CifarResNet",
            2015,
            "arXiv 1512.03385",
            853_018,
            125_485_696,
            *CIFAR,
        ),
        NetworkEntry(
            "resnet110",
            Resnet110Args,
            f"{_ZOO}.resnet_cifar:CifarResNet",
            2015,
            "arXiv 1512.03385",
            1_727_962,
            252_887_680,
            *CIFAR,
        ),
        NetworkEntry(
            "preact_resnet18",
            PreactResnetArgs,
            f"{_ZOO}.resnet_cifar:preact_resnet",
            2016,
            "arXiv 1603.05027",
            11_172_170,
            555_422_720,
            *CIFAR,
        ),
        NetworkEntry(
            "wrn28_10",
            WideResnetArgs,
            f"{_ZOO}.resnet_cifar:wide_resnet",
            2016,
            "arXiv 1605.07146",
            36_479_194,
            5_243_328_768,
            *CIFAR,
        ),
        NetworkEntry(
            "efficientnet",
            EfficientnetArgs,
            f"{_ZOO}.efficientnet:efficientnet",
            2019,
            "arXiv 1905.11946",
            5_288_548,
            385_814_752,
        ),
        NetworkEntry("resnet9", Resnet9Args, f"{_ZOO}.fast:resnet9", 2018, "Page 2018", 6_573_120, 379_261_952, *CIFAR),
        NetworkEntry(
            "airbench", AirbenchArgs, f"{_ZOO}.fast:airbench", 2024, "arXiv 2404.00498", 1_972_792, 118_147_360, *CIFAR
        ),
    ),
    user=NetworkEntry("own", dict, "cnntrain.models.user_model:build_user_model", 0, "", 0, 0, is_sized=True),
)


def argument_faults(name: str, args: dict[str, Any]) -> list[tuple[str, Any, str]]:
    """Values that an argument of our own network `name` cannot take, as (key, value, rule); [] for other networks."""
    if name not in NETWORKS:
        return []
    kind = NETWORKS[name].settings
    rules = {item.name: item.metadata for item in fields(kind)}
    values = {key: value for key, value in args.items() if key in rules}
    faults = [(key, value, rules[key]["rule"]) for key, value in values.items() if not rules[key]["fits"](value)]
    if not faults and hasattr(kind, "faults"):  # rules that one value alone cannot break
        faults += kind(**values).faults()
    return faults
