"""Single operations, each done to a random part of the images."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from cnntrain.augment import color, layout
from cnntrain.augment.accelerator import perform_rounds
from cnntrain.augment.affine import inverse_matrices
from cnntrain.augment.batch_context import BatchContext, Operation
from cnntrain.augment.kernels import KINDS, ImageOperation, affine_kernel, shift_kernel, with_number, without_numbers
from cnntrain.augment.per_image import Floats, Integers, apply_per_image
from cnntrain.config.schema.augment import AugmentSettings
from cnntrain.config.schema.pieces import AffineSettings, BlurSettings, ColorJitterSettings
from cnntrain.errors import ConfigError

Draw = Callable[[int, np.random.Generator], Floats]  # a number for each of that many images


def build_affine(settings: AffineSettings) -> Operation:
    """Rotation, translation by whole pixels, scale and shear along x, as torchvision's RandomAffine draws them."""
    only_shifts = not settings.degrees and not settings.shear and settings.scale == [1, 1]

    def operation(images: Tensor, context: BatchContext) -> Tensor:
        height, width = images.shape[2:]
        draws = affine_draws(settings, len(images), height, width, context.host)
        kernel = affine_kernel(settings.interpolation, settings.fill)
        if only_shifts:
            right, down = (int(np.abs(draws[name]).max()) for name in ("translate_x", "translate_y"))
            kernel = shift_kernel(settings.fill, most_right=right, most_down=down)
        return _sometimes(images, settings.p, kernel, inverse_matrices(**draws).reshape(-1, 6), context)

    return operation


def affine_draws(
    settings: AffineSettings, count: int, height: int, width: int, random: np.random.Generator
) -> dict[str, Floats]:
    """The arguments of affine.inverse_matrices for `count` images, float64 (count,) each."""
    smallest, largest = settings.scale

    def within(most: float) -> Floats:
        return random.uniform(-most, most, count)

    return {
        "angle": within(settings.degrees),
        "translate_x": np.rint(within(settings.translate * width)),
        "translate_y": np.rint(within(settings.translate * height)),
        "scale": random.uniform(smallest, largest, count),
        "shear_x": within(settings.shear),
        "shear_y": np.zeros(count),
    }


def build_color(settings: AugmentSettings, channels: int, image_size: int) -> list[tuple[str, Operation]]:
    """The colour pieces that are on, with their names, in the order of the settings.

    Args:
        settings: of all pieces.
        channels: of the images, 1 or 3.
        image_size: the smallest that the images have in any epoch.

    Raises:
        ConfigError: a piece that does nothing to images of one channel, a blur wider than the images.
    """
    pieces: list[tuple[str, Operation]] = []
    if settings.color_jitter is not None:
        pieces.append(("color_jitter", _color_jitter(settings.color_jitter, channels)))
    if (grayscale := settings.grayscale) is not None:
        if channels == 1:
            raise ConfigError("augment.grayscale: does nothing to images of 1 channel; leave it out, or set it to null")
        pieces.append(("grayscale", _piece(grayscale.p, without_numbers(color.grayscale))))
    if (invert := settings.invert) is not None:
        pieces.append(("invert", _piece(invert.p, without_numbers(color.invert))))
    if (posterize := settings.posterize) is not None:
        pieces.append(("posterize", _piece(posterize.p, with_number(color.posterize), _always(posterize.bits))))
    if (solarize := settings.solarize) is not None:
        pieces.append(("solarize", _piece(solarize.p, with_number(color.solarize), _always(solarize.threshold))))
    if (equalize := settings.equalize) is not None:
        pieces.append(("equalize", _piece(equalize.p, without_numbers(color.equalize))))
    if (autocontrast := settings.autocontrast) is not None:
        pieces.append(("autocontrast", _piece(autocontrast.p, without_numbers(color.autocontrast))))
    if (sharpness := settings.sharpness) is not None:
        pieces.append(("sharpness", _piece(sharpness.p, with_number(color.sharpness), _always(sharpness.factor))))
    if (blur := settings.blur) is not None:
        pieces.append(("blur", _blur(blur, image_size)))
    return pieces


def _always(value: float) -> Draw:
    return lambda count, _: np.full(count, float(value))


def _nothing(count: int, _: np.random.Generator) -> Floats:
    return np.zeros(count)


def _piece(p: float, kernel: ImageOperation, draw: Draw = _nothing) -> Operation:
    return lambda images, context: _sometimes(images, p, kernel, draw(len(images), context.host)[:, None], context)


def _sometimes(images: Tensor, p: float, kernel: ImageOperation, numbers: Floats, context: BatchContext) -> Tensor:
    """Apply a kernel to each image with probability `p`; numbers: float64 (N, P), its row for each image."""
    choices: Integers = np.zeros((1, len(images)), dtype=np.int64)
    choices[0, context.chosen(len(images), p)] = 1
    return apply_per_image(images, [None, kernel], choices, numbers[None], context)


def _blur(settings: BlurSettings, image_size: int) -> Operation:
    widest = 2 * image_size - 1
    if settings.kernel_size > widest:
        raise ConfigError(
            f"augment.blur.kernel_size: {settings.kernel_size} cannot mirror the border of images of {image_size} "
            f"pixels; choose an odd number up to {widest}"
        )
    smallest, largest = settings.sigma
    kernel = with_number(lambda images, sigmas: color.blur(images, sigmas, settings.kernel_size))
    return _piece(settings.p, kernel, lambda count, random: random.uniform(smallest, largest, count))


# --- color jitter --------------------------------------------------------------------------------------------------


_JITTER_KINDS = np.array([KINDS.index(name) for name in ("Identity", "Brightness", "Contrast", "Color", "Hue")])


def _color_jitter(settings: ColorJitterSettings, channels: int) -> Operation:
    idle = [name for name in ("saturation", "hue") if channels == 1 and getattr(settings, name)]
    if idle:
        grey = bool(settings.brightness or settings.contrast)
        advice = " ".join(f"augment.color_jitter.{name}=0" for name in idle) if grey else "augment.color_jitter=null"
        raise ConfigError(
            f"augment.color_jitter: {' and '.join(idle)} {'does' if len(idle) == 1 else 'do'} nothing to images of "
            f"1 channel; set {advice}"
        )
    functions = (color.brightness, color.contrast, color.saturation, color.hue)
    kernels = [None, *(with_number(function) for function in functions)]

    def operation(images: Tensor, context: BatchContext) -> Tensor:
        choices, factors = jitter_draws(settings, len(images), context.host)
        touched = np.isin(np.arange(len(images)), context.chosen(len(images), settings.p))
        if layout.launching_costs(images.device):
            return perform_rounds(images, *_hue_at_once(_JITTER_KINDS[choices * touched], factors), context)
        return apply_per_image(images, kernels, choices * touched, factors[:, :, None], context)

    return operation


def _hue_at_once(kinds: Integers, factors: Floats) -> tuple[Integers, Floats]:
    """The same operations in the same order, in more rounds, the middle one of which has the hues of all images.

    To turn hues takes more launches than all else together.

    Args and result: places in KINDS, int64 (R, N), and factors, float64 (R, N).
    """
    rounds, count = kinds.shape
    is_hue = kinds == _JITTER_KINDS[4]
    if not is_hue.any():
        return kinds, factors
    at = rounds - 1 + np.arange(rounds)[:, None] - is_hue.argmax(axis=0)
    result = np.zeros((2 * rounds - 1, count), np.int64), np.zeros((2 * rounds - 1, count))
    for target, values in zip(result, (kinds, factors), strict=True):
        np.put_along_axis(target, at, values, axis=0)
    return result


def jitter_draws(settings: ColorJitterSettings, count: int, random: np.random.Generator) -> tuple[Integers, Floats]:
    """A random order and random factors for each image, as torchvision's ColorJitter draws them.

    Returns:
        int64 (R, count), what is changed in each of R rounds: 1 brightness, 2 contrast, 3 saturation, 4 hue, of which
        only those that are on; float64 (R, count), its factor.
    """
    most = np.array([settings.brightness, settings.contrast, settings.saturation, settings.hue])
    on = np.flatnonzero(most)
    order = random.permuted(np.tile(on, (count, 1)), axis=1).T
    lowest, highest = np.maximum(1 - most, 0), 1 + most
    lowest[3], highest[3] = -settings.hue, settings.hue
    return order + 1, random.uniform(lowest[order], highest[order])
