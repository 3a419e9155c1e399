"""The program beside an exported file: it tells the classes of pictures as `cnntrain predict` does, without cnntrain.

It is text that is put together of the parts that the run needs: what it reads stands in it and in the file's metadata.
"""

from cnntrain.config.schema.data import CropMode
from cnntrain.config.schema.export import Format
from cnntrain.data.common import Data
from cnntrain.data.view import View
from cnntrain.export.subject import Subject
from cnntrain.export.twin import Twin

MARK = "# Written by cnntrain export beside {file!r}"  # how a program begins; one that does not is another file's

_HEAD = '''\
{mark}. It needs: pip install {packages}
"""Tells the classes of pictures, as `cnntrain predict` does: python {module}.py cat.jpg"""

import json
import sys{more}
from pathlib import Path

{imports}

{load}

'''
_ONNX = """\
session = onnxruntime.InferenceSession(str(Path(__file__).with_name({file!r})))
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])"""
_TORCHSCRIPT = """\
warnings.filterwarnings("ignore", ".*torch.jit.*deprecated")  # no news to whoever has chosen this format
extra = {{"classes": ""{more_keys}}}
network = torch.jit.load(str(Path(__file__).with_name({file!r})), "cpu", _extra_files=extra)
classes = json.loads(extra["classes"])"""
_TORCH_EXPORT = """\
extra = {{"classes": ""{more_keys}}}
network = torch.export.load(str(Path(__file__).with_name({file!r})), extra_files=extra).module()
classes = json.loads(extra["classes"])"""
_WEIGHTS = """\
path = str(Path(__file__).with_name({file!r}))
{network}
network.load_state_dict(load_file(path))
network.eval()
{last}with safe_open(path, "pt") as weights:
    classes = json.loads(weights.metadata()["classes"])"""
_THRESHOLDS = '{indent}thresholds = np.array(json.loads({facts}["thresholds"]), np.float32)'
_FACTS = {Format.onnx: "session.get_modelmeta().custom_metadata_map", Format.safetensors: "weights.metadata()"}
_LOADS = {Format.onnx: _ONNX, Format.torchscript: _TORCHSCRIPT, Format.torch_export: _TORCH_EXPORT}
_ASK = {  # `inputs` to `answers`, both of numpy
    Format.onnx: 'session.run(None, {{"{input}": {inputs}}})[0]',
}
_ASK_TORCH = "network(torch.from_numpy({inputs})).detach().numpy()"

_WHOLE = '''
def probabilities(images):
    """uint8 (N, {size}, {size}, {channels}) to float32 (N, {classes})."""
    return {ask}
'''
_PLAIN = '''
def probabilities(images):
    """uint8 (N, {size}, {size}, {channels}) to float32 (N, {classes})."""
    mean, std = np.array({mean}), np.array({std})
    inputs = images * np.float32(1 / (255 * std)) + np.float32(-mean / std)
    logits = {ask}{temperature}
{behind}
'''
_SOFTMAX = """\
    exps = np.exp(logits - logits.max(1, keepdims=True))
    return exps / exps.sum(1, keepdims=True)"""
_SIGMOID = "    return np.exp(-np.logaddexp(0, -logits))"
_READ = '''

def read(path):
    """A picture as uint8 ({size}, {size}, {channels}), resized and cut as validation images are."""
    with Image.open(path) as file:
{draft}        image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    pixels = np.array(image.convert({mode!r})).reshape(image.height, image.width, {channels})
{cut}

'''
_DRAFT = """\
        if file.getexif().get(274, 1) == 1:  # upright: a JPEG holds its gray level as it is
            file.draft("L", None)
"""
_SQUASH = """\
    pixels = np.array(Image.fromarray(pixels{plane}).resize(({short}, {short}), Image.Resampling.{filter}))
    pixels = pixels.reshape({short}, {short}, {channels})
"""
_CENTER = """\
    height, width, _ = pixels.shape
    longest = 4 * min(height, width)  # the far ends of a strip are never seen
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    pixels = pixels[top : top + longest, left : left + longest]
    height, width, _ = pixels.shape
    short = min(height, width)
    pixels = resize(pixels, int({short} * height / short), int({short} * width / short))
"""
_BORDER = """\
    ratio = max(pixels.shape[:2]) / {short}
    pixels = resize(pixels, *(max(1, round(length / ratio)) for length in pixels.shape[:2]))
"""
_CROP = """\
    top, left = (round((length - {size}) / 2) for length in pixels.shape[:2])
    return pixels[top : top + {size}, left : left + {size}]"""
_CANVAS = """\
    starts = [round((n - {size}) / 2) if n >= {size} else -(({size} - n) // 2) for n in pixels.shape[:2]]
    (top, above), (left, before) = ((max(0, start), max(0, -start)) for start in starts)
    window = pixels[top : top + {size}, left : left + {size}]
    canvas = np.full(({size}, {size}, {channels}), {fill}, np.uint8)
    canvas[above : above + window.shape[0], before : before + window.shape[1]] = window
    return canvas"""

_RESIZE = '''
def resize(pixels, height, width):
    """An antialiased resize in whole numbers, to the bit that of torch, with which the network has learned.

    Pillow's `image.resize((width, height), Image.Resampling.{filter})` is faster, and off by two levels at most.
    """
    return resize_rows(resize_rows(pixels.swapaxes(0, 1), width).swapaxes(0, 1), height)


def resize_rows(pixels, size):
    if len(pixels) == size:
        return pixels
    scale = len(pixels) / size
    stretch, place = max(scale, 1.0), np.arange(len(pixels))
    centre = (np.arange(size) + 0.5) * scale
    first = np.maximum((centre - {reach} * stretch + 0.5).astype(int), 0)
    last = np.minimum((centre + {reach} * stretch + 0.5).astype(int), len(pixels))
    x = np.abs(place + 0.5 - centre[:, None]) / stretch
    weights = np.where((place >= first[:, None]) & (place < last[:, None]), {kernel}, 0)
    weights = weights / weights.sum(1, keepdims=True)
    bits = next(bits for bits in range(23) if bits == 22 or 0.5 + weights.max() * 2 ** (bits + 1) >= 2**15)
    weights = np.trunc(weights * 2**bits + np.copysign(0.5, weights))
    parts = zip(weights, first, last)
    sums = np.stack([np.tensordot(row[a:b], pixels[a:b].astype(np.float64), 1) for row, a, b in parts])
    return np.clip(np.floor((sums + 2 ** (bits - 1)) / 2**bits), 0, 255).astype(np.uint8)

'''
_KERNELS = {  # of a distance in 0.., and how far it reaches
    "bilinear": ("np.maximum(1 - x, 0)", 1),
    "bicubic": ("np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((x - 5) * x + 8) * x * -0.5 + 2)", 2),
}
_CLASSIFY = '''
def classify(path):
    """Class names and probabilities of a picture, the most probable first."""
    row = probabilities(read(path)[None])[0]
    return [(classes[label], float(row[label])) for label in np.argsort(-row, kind="stable")]
'''
_CLASSIFY_SET = '''
def classify(path):
    """The labels of a picture, which may be none, with their probabilities, the most probable first."""
    row = probabilities(read(path)[None])[0]
    order = np.argsort(-row, kind="stable")
    return [(classes[label], float(row[label])) for label in order if row[label] >= thresholds[label]]
'''
_NO_LABEL = """
        if not best:
            print("  no label")"""
_MAIN = """

if __name__ == "__main__":
    if len(sys.argv) < 2:
        print(f"usage: python {{sys.argv[0]}} PICTURE...", file=sys.stderr)
        sys.exit(2)
    failed = False
    for path in sys.argv[1:]:
        try:
            best = classify(path){most}
        except Exception as error:  # a file can be broken in many ways; the others are told of
            print(f"{{path}}: {{getattr(error, 'strerror', None) or error}}", file=sys.stderr)
            failed = True
            continue
        print(path)
        for name, probability in best:
            print(f"  {{probability:9.4%}}  {{name if name.isprintable() else ascii(name)}}"){none}
    sys.exit(failed)
"""


def program(subject: Subject, format: Format, file: str, module: str, twin: Twin | None = None) -> str:
    """The text of the program.

    Args:
        file: the name of the exported file, which lies beside it.
        module: the program's own name, without `.py`; told where it is a plain one.
        twin: of weights alone, the network that they go into.
    """
    is_set = subject.reading.thresholds is not None
    engine = "onnxruntime" if format is Format.onnx else "torch"
    packages = ["numpy", "pillow", engine, *(["safetensors", twin.library] if twin else [])]
    imports = [f"import {engine}", "from PIL import Image, ImageOps"]
    if twin:
        imports += ["from safetensors import safe_open", "from safetensors.torch import load_file", *twin.all_imports]
        last = f"{twin.last_line}\n" if twin.last_line else ""
        load = _WEIGHTS.format(file=file, network="\n".join(twin.lines), last=last)
    else:
        load = _LOADS[format].format(file=file, more_keys=', "thresholds": ""' if is_set else "")
    if is_set:
        load += "\n" + _THRESHOLDS.format(indent="    " if twin else "", facts=_FACTS.get(format, "extra"))
    head = _HEAD.format(
        mark=MARK.format(file=file),
        packages=" ".join(packages),
        module=module if module.isidentifier() else "PROGRAM",
        imports="\n".join(["import numpy as np", *imports]),
        load=load,
        more="\nimport warnings" if format is Format.torchscript else "",
    )
    main = _MAIN.format(most="" if is_set else "[:5]", none=_NO_LABEL if is_set else "")
    classify = _CLASSIFY_SET if is_set else _CLASSIFY
    return head + _probabilities(subject, format) + reading(subject.job.data) + classify + main


def _probabilities(subject: Subject, format: Format) -> str:
    data, temperature = subject.job.data, subject.job.temperature
    whole = subject.has_preprocessing
    inputs = "images" if whole else "np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))"
    ask = _ASK.get(format, _ASK_TORCH).format(input=subject.input_name, inputs=inputs)
    return (_WHOLE if whole else _PLAIN).format(
        size=data.eval_size,
        channels=data.channels,
        classes=len(data.classes),
        mean=list(data.mean),
        std=list(data.std),
        ask=ask,
        temperature="" if temperature == 1 else f" / np.float32({temperature!r})",
        behind=_SOFTMAX if subject.reading.thresholds is None else _SIGMOID,
    )


def reading(data: Data) -> str:
    """The functions that bring a file to pixels, to the bit as data/decode.py and data/view.py do."""
    view: View = data.view(data.eval_size)
    kernel, reach = _KERNELS[data.interpolation.value]
    gray = data.channels == 1
    values = {
        "size": view.size,
        "short": view.short_side,
        "channels": data.channels,
        "filter": data.interpolation.name.upper(),
        "plane": ".squeeze(2)" if gray else "",
        "fill": list(view.fill) if view.fill else 0,
        "mode": "L" if gray else "RGB",
        "draft": _DRAFT if gray else "",
        "kernel": kernel,
        "reach": reach,
    }
    resized = {CropMode.center: _CENTER, CropMode.squash: _SQUASH, CropMode.border: _BORDER}[data.crop_mode]
    fits = data.crop_mode is not CropMode.border and view.short_side >= view.size
    cut = (resized + (_CROP if fits else _CANVAS)).format(**values)
    resize = "" if data.crop_mode is CropMode.squash else _RESIZE.format(**values)
    return _READ.format(cut=cut, **values) + resize
