"""A network as an ONNX file, and its answer by onnxruntime."""

from typing import Any

import torch
from torch import Tensor

from cnntrain import __version__
from cnntrain.config.schema.export import Format
from cnntrain.errors import ConfigError
from cnntrain.export.graph import LONGEST, draw_graph, silence
from cnntrain.export.subject import ExportedFile, Subject
from cnntrain.runtime.faults import is_out_of_memory
from cnntrain.text import cut, one_line

OPSET = 18  # the one that torch's operators are written in; onnxruntime reads it since 1.14 (2023)


def to_onnx(subject: Subject) -> ExportedFile:
    """The network as ONNX, the weights in the file.

    Raises:
        ConfigError: ONNX has no operator for a part of it, or the graph is not one for all images.
    """
    program = draw_graph(subject, Format.onnx)
    try:
        with silence(), torch.no_grad():
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[subject.input_name],
                output_names=[subject.output_name],
                dynamic_shapes=({0: "batch"},),
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
        content = _finish(made.model_proto, subject)
    except Exception as error:  # of the exporter, which knows a dozen
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"format: onnx cannot hold this network ({_reason(error)}); choose format=torch_export or "
            "format=torchscript"
        ) from error
    return ExportedFile(content, Session(content), runtime(), (("opset", str(OPSET)),))


def _finish(model: Any, subject: Subject) -> bytes:
    """The file with what it says of itself, without what the exporter says of this machine: stack traces."""
    model.producer_name, model.producer_version = "cnntrain", __version__
    for part in (*model.graph.node, *model.graph.value_info, model.graph):
        del part.metadata_props[:]
    del model.metadata_props[:]
    for key, value in subject.metadata.items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


def _reason(error: BaseException) -> str:
    """What the exporter means, in one line: its own first one tells of steps, and the cause names the operator."""
    while error.__cause__ is not None and "translating node" not in str(error):
        error = error.__cause__
    _, found, operator = str(error).partition("target=")
    return f"it has no operator for {operator.partition(']')[0]}" if found else cut(one_line(error), LONGEST)


def runtime() -> str:
    """`onnxruntime 1.23.0`."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


class Session:
    """A file in onnxruntime, on as many threads as torch has.

    Args:
        content: of the file.
    """

    def __init__(self, content: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.input_name = self._session.get_inputs()[0].name

    def __call__(self, inputs: Tensor) -> Tensor:
        """The output (N, K) of an input."""
        return torch.from_numpy(self._session.run(None, {self.input_name: inputs.numpy()})[0])
