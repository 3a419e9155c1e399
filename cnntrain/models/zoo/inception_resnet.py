"""Inception-ResNet-v1."""

from torch import Tensor, nn

from cnntrain.config.schema.network_args import InceptionResnetArgs
from cnntrain.models.blocks import Branches, conv_norm_act, rising_rates, start_quiet
from cnntrain.models.drop import DropPath
from cnntrain.models.layers import activation, chain, initialise


class ResidualInception(nn.Module):
    """x + scale * (branches, then a 1x1 convolution that fits their maps to x), then the activation.

    (N, C, H, W) to the same. The scale keeps deep stacks of such units from dying (section 3.3).
    """

    def __init__(
        self, channels: int, branches: Branches, mixed: int, *, scale: float, drop_path: float, act: str
    ) -> None:
        super().__init__()
        self.branches = branches
        self.expand = nn.Conv2d(mixed, channels, 1)  # linear, without a norm, so with a bias
        self.drop_path = DropPath(drop_path)
        self.act = activation(act)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.act(x + self.scale * self.drop_path(self.expand(self.branches(x))))
        return added


class InceptionResNetV1(nn.Module):
    """Inception-ResNet-v1 (arXiv 1602.07261, figures 10 to 15) for images of 299 pixels: 35x35, 17x17 and 8x8 maps.

    22,756,328 parameters for 1,000 classes; the authors of FaceNet added a sixth unit to the last stage.
    """

    def __init__(self, args: InceptionResnetArgs, *, classes: int, channels: int) -> None:
        super().__init__()
        act = args.activation
        rates = iter(rising_rates(args.drop_path, 5 + 10 + 5))
        # The scales are those of the authors' code, within the 0.1 to 0.3 of the paper.
        self.features = chain(
            {
                "stem": _stem(channels, act),
                "inception_a": nn.Sequential(*(_unit_a(0.17, next(rates), act) for _ in range(5))),
                "reduction_a": _reduction_a(act),
                "inception_b": nn.Sequential(*(_unit(896, 128, 7, 0.10, next(rates), act) for _ in range(10))),
                "reduction_b": _reduction_b(act),
                "inception_c": nn.Sequential(*(_unit(1792, 192, 3, 0.20, next(rates), act) for _ in range(5))),
            }
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.drop = nn.Dropout(args.dropout)
        self.head = nn.Linear(1792, classes)
        initialise(self, "he")
        start_quiet(self.head)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.flatten(self.pool(self.features(x)))))
        return logits


def _stem(channels: int, act: str) -> nn.Sequential:
    """299x299 pixels to 256 maps of 35x35 (figure 14)."""
    return chain(
        {
            "conv1": conv_norm_act(channels, 32, 3, act, stride=2, padding=0),
            "conv2": conv_norm_act(32, 32, 3, act, padding=0),
            "conv3": conv_norm_act(32, 64, 3, act),
            "pool": nn.MaxPool2d(3, stride=2),
            "conv4": conv_norm_act(64, 80, 1, act),
            "conv5": conv_norm_act(80, 192, 3, act, padding=0),
            "conv6": conv_norm_act(192, 256, 3, act, stride=2, padding=0),
        }
    )


def _unit_a(scale: float, drop_path: float, act: str) -> nn.Module:
    """Inception-ResNet-A (figure 10)."""
    branches = Branches(
        one=conv_norm_act(256, 32, 1, act),
        three=nn.Sequential(conv_norm_act(256, 32, 1, act), conv_norm_act(32, 32, 3, act)),
        stacked=nn.Sequential(
            conv_norm_act(256, 32, 1, act), conv_norm_act(32, 32, 3, act), conv_norm_act(32, 32, 3, act)
        ),
    )
    return ResidualInception(256, branches, 3 * 32, scale=scale, drop_path=drop_path, act=act)


def _unit(channels: int, width: int, length: int, scale: float, drop_path: float, act: str) -> nn.Module:
    """Inception-ResNet-B or -C (figures 11 and 13), whose windows are a row and a column of `length` pixels."""
    branches = Branches(
        one=conv_norm_act(channels, width, 1, act),
        separable=nn.Sequential(
            conv_norm_act(channels, width, 1, act),
            conv_norm_act(width, width, (1, length), act),
            conv_norm_act(width, width, (length, 1), act),
        ),
    )
    return ResidualInception(channels, branches, 2 * width, scale=scale, drop_path=drop_path, act=act)


def _reduction_a(act: str) -> Branches:
    """35x35 to 17x17 (figure 7 with k=192, l=192, m=256, n=384 of table 1): 256 to 896 maps."""
    return Branches(
        three=conv_norm_act(256, 384, 3, act, stride=2, padding=0),
        stacked=nn.Sequential(
            conv_norm_act(256, 192, 1, act),
            conv_norm_act(192, 192, 3, act),
            conv_norm_act(192, 256, 3, act, stride=2, padding=0),
        ),
        pool=nn.MaxPool2d(3, stride=2),
    )


def _reduction_b(act: str) -> Branches:
    """17x17 to 8x8 (figure 12): 896 to 1,792 maps."""
    return Branches(
        wide=nn.Sequential(conv_norm_act(896, 256, 1, act), conv_norm_act(256, 384, 3, act, stride=2, padding=0)),
        narrow=nn.Sequential(conv_norm_act(896, 256, 1, act), conv_norm_act(256, 256, 3, act, stride=2, padding=0)),
        stacked=nn.Sequential(
            conv_norm_act(896, 256, 1, act),
            conv_norm_act(256, 256, 3, act),
            conv_norm_act(256, 256, 3, act, stride=2, padding=0),
        ),
        pool=nn.MaxPool2d(3, stride=2),
    )
