"""EfficientNet with a compound coefficient of the user's choice."""

from torch import nn

from cnntrain.config.schema.network_args import EfficientnetArgs

# Expansion, kernel, stride, channels in, channels out and layers of each stage of B0 (arXiv 1905.11946, table 1).
B0 = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)


def efficientnet(args: EfficientnetArgs, *, classes: int, channels: int) -> nn.Module:
    """EfficientNet-B0 scaled by phi (arXiv 1905.11946, equation 3), in torchvision's implementation.

    Depth grows by alpha^phi and width by beta^phi; the images should grow by gamma^phi, which `data.image_size` sets
    (`EfficientnetArgs.recommended_size`). phi=0 is B0, 5,288,548 parameters for 1,000 classes, and phi=1 is B2. The
    dropout rises as in the paper, from 0.2 at phi=0 to 0.5 at 7.
    """
    from torchvision.models.efficientnet import EfficientNet, MBConvConfig

    depth, width = args.alpha**args.phi, args.beta**args.phi
    rule = min(max(0.2 + 0.3 * args.phi / 7, 0.0), 0.5)
    model: nn.Module = EfficientNet(
        [MBConvConfig(*stage, width_mult=width, depth_mult=depth) for stage in B0],
        dropout=rule if args.dropout is None else args.dropout,
        stochastic_depth_prob=args.drop_path,
        num_classes=classes,
    )
    if channels != 3:
        stem = model.features[0]
        stem[0] = nn.Conv2d(channels, stem[0].out_channels, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
    return model
