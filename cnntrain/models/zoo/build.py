"""Our own networks by name, each after its paper."""

from typing import Any

from torch import nn

from cnntrain.config.schema import nets
from cnntrain.config.schema.cnn import CnnArgs
from cnntrain.errors import ConfigError
from cnntrain.models.zoo.cnn import build_cnn
from cnntrain.models.zoo.efficientnet import efficientnet
from cnntrain.models.zoo.fast import airbench, resnet9
from cnntrain.models.zoo.inception import bn_inception, googlenet
from cnntrain.models.zoo.inception_resnet import InceptionResNetV1
from cnntrain.models.zoo.lenet import lenet, mlp, softmax
from cnntrain.models.zoo.resnet_cifar import CifarResNet, preact_resnet, wide_resnet


def build_own(
    name: str, args: dict[str, Any], *, classes: int, channels: int, image_size: int, aux: bool = False
) -> nn.Module:
    """The network `name` of OWN_NETS, from float (N, channels, S, S) to logits (N, classes).

    Args:
        args: of the network, as `settings/nets.py` has them; they must be without faults.
        aux: with auxiliary classifiers: in training mode the network gives a tuple, the logits and those of each.

    Raises:
        ConfigError: images too small, or auxiliary classifiers for a network that has none.
    """
    if aux and name not in nets.AUXILIARY_NETS:
        raise ConfigError(
            f"model.aux_weight: {name} has no auxiliary classifiers; set model.aux_weight=0 or choose a network that "
            f"has them, such as model={nets.AUXILIARY_NETS[0]}"
        )
    chosen = nets.OWN_NETS[name](**args)
    sizes = {"classes": classes, "channels": channels}
    match chosen:
        case CnnArgs():
            return build_cnn(chosen, image_size=image_size, **sizes)
        case nets.SoftmaxArgs():
            return softmax(image_size=image_size, **sizes)
        case nets.MlpArgs():
            return mlp(chosen, image_size=image_size, **sizes)
        case nets.LenetArgs():
            return lenet(name, chosen, image_size=image_size, **sizes)
        case nets.BnInceptionArgs():
            return bn_inception(chosen, **sizes)
        case nets.InceptionArgs():
            return googlenet(chosen, aux=aux, **sizes)
        case nets.InceptionResnetArgs():
            return InceptionResNetV1(chosen, **sizes)
        case nets.Resnet20Args():
            return CifarResNet(chosen, **sizes)
        case nets.PreactResnetArgs():
            return preact_resnet(chosen, **sizes)
        case nets.WideResnetArgs():
            return wide_resnet(chosen, **sizes)
        case nets.EfficientnetArgs():
            return efficientnet(chosen, **sizes)
        case nets.Resnet9Args():
            return resnet9(chosen, **sizes)
        case nets.AirbenchArgs():
            return airbench(chosen, **sizes)
    raise TypeError(f"no network for {type(chosen).__name__}")
