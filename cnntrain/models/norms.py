"""Other normalisations in place of batch norm: group, layer and instance norm."""

from torch import nn

from cnntrain.config.schema.model import Norm
from cnntrain.models.layers import norm2d


def replace_norms(model: nn.Module, norm: Norm) -> int:
    """Put `norm` in place of every 2-d batch norm of a network, in place; the number of layers that this touched.

    Scale and shift of each channel, and the epsilon, stay. Layer norm is that of a whole image's map, group norm with
    one group (arXiv 1607.06450). With `Norm.batch` the layers are counted and stay.
    """
    touched = 0
    for path, old in list(model.named_modules()):
        if not isinstance(old, nn.BatchNorm2d):
            continue
        touched += 1
        if norm is not Norm.batch:
            parent, _, key = path.rpartition(".")
            setattr(model.get_submodule(parent), key, _instead(old, norm))
    return touched


def _instead(old: nn.BatchNorm2d, norm: Norm) -> nn.Module:
    new = norm2d(norm.name, old.num_features, eps=old.eps, affine=old.affine)
    if old.affine:  # some start at 0, so that residual blocks start as the identity
        new.weight, new.bias = old.weight, old.bias
    # timm's norms carry the dropout and the activation that follow them.
    behind = [layer for layer in old.children() if not isinstance(layer, nn.Identity)]
    return nn.Sequential(new, *behind) if behind else new
