"""The formats in which a trained network leaves."""

import enum
import importlib.util


class Format(enum.Enum):
    onnx = "onnx"
    torch_export = "torch_export"
    safetensors = "safetensors"
    torchscript = "torchscript"


ENDINGS = {  # of the names of their files
    Format.onnx: ".onnx",
    Format.torch_export: ".pt2",
    Format.safetensors: ".safetensors",
    Format.torchscript: ".pt",
}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of the extra `export`


def absent_packages() -> list[str]:
    """The packages of ONNX_PACKAGES that are not installed here."""
    return [package for package in ONNX_PACKAGES if importlib.util.find_spec(package) is None]
