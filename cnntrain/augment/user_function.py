"""The user's own batch function, named `package.module:function`."""

import inspect

from torch import Tensor

from cnntrain.augment.batch_context import BatchContext
from cnntrain.config.schema.pieces import OwnSettings
from cnntrain.errors import ConfigError
from cnntrain.registry import check_arguments, describe_failure, import_function

SECTION = "augment.own"


class UserFunction:
    """Calls `function(images, generator, **args)` on each micro-batch.

    Raises:
        ConfigError: no such function, or an argument that it does not take.
    """

    def __init__(self, settings: OwnSettings) -> None:
        self.name, self.args = settings.name, settings.args
        self.function = import_function(SECTION, self.name)
        if check_arguments(SECTION, self.name, self.function, self.args) is not None:
            self._check_call()

    def _check_call(self) -> None:
        try:
            inspect.signature(self.function).bind(None, None, **self.args)
        except TypeError as error:
            raise ConfigError(
                f"{SECTION}.name: {self.name} cannot be called with (images, generator) and {SECTION}.args ({error}); "
                "give a function that can"
            ) from error

    def __call__(self, images: Tensor, context: BatchContext) -> Tensor:
        """uint8 (N, C, H, W) to the same.

        Raises:
            ConfigError: it failed, or gave something else back.
        """
        try:
            result = self.function(images.clone(), context.generator, **self.args)  # which it may write into
        except Exception as error:  # a user's function can fail with anything
            shape = tuple(images.shape)
            raise ConfigError(
                f"{SECTION}.name: {self.name} fails on images {shape} ({describe_failure(error)}); correct it"
            ) from error
        expected = _kind(images)
        if (actual := _kind(result)) != expected:
            raise ConfigError(
                f"{SECTION}.name: {self.name} gave {actual} back for {expected}; return images of the same kind"
            )
        return result


def _kind(images: object) -> str:
    if not isinstance(images, Tensor):
        return type(images).__name__
    return f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)} on {images.device}"
