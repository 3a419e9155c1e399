"""Features for TensorBoard's page PROJECTOR: points that can be turned, each with its image and what is known of it."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnntrain.storage.atomic import need_own_folder, write_atomic
from cnntrain.storage.run_folder import PROJECTOR
from cnntrain.text import printable

FOLDER = "projector"  # of what the file that TensorBoard looks for refers to
SIDE = 32  # pixels of a thumbnail
MOST_COMPONENTS = 64


def write_projector(
    folder: Path, name: str, features: Tensor, images: Tensor, facts: Mapping[str, Sequence[str]]
) -> None:
    """Write points into a run folder, in place of those that are there.

    Args:
        name: of the points.
        features: float32 (N, D); of more than 64 the principal components.
        images: uint8 (N, C, S, S) with S up to 32.
        facts: columns of N texts.
    """
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    home = need_own_folder(folder / FOLDER)
    home.mkdir(exist_ok=True)
    rows = [[f"{value:.4g}" for value in row] for row in principal_components(features).tolist()]
    table = [list(facts), *zip(*facts.values(), strict=True)]
    files: dict[str, str | bytes] = {
        "features.tsv": _tsv(rows),
        "images.tsv": _tsv(table),
        "images.jpg": _sprite(images),
    }
    for file, content in files.items():
        write_atomic(home / file, content)
    config = ProjectorConfig()
    points = config.embeddings.add(tensor_name=name, tensor_shape=[len(rows), len(rows[0])])
    points.tensor_path, points.metadata_path, points.sprite.image_path = (f"{FOLDER}/{file}" for file in files)
    points.sprite.single_image_dim.extend([images.shape[3], images.shape[2]])
    write_atomic(folder / PROJECTOR, str(config))


def principal_components(features: Tensor) -> Tensor:
    """The first 64 principal components of features (N, D), which keep distances best; fewer as they are."""
    if features.shape[1] <= MOST_COMPONENTS:
        return features
    centered = features - features.mean(0)
    values, vectors = torch.linalg.eigh(centered @ centered.T)
    return (vectors * values.clamp_min(0).sqrt()).flip(1)[:, :MOST_COMPONENTS]


def _tsv(rows: Sequence[Sequence[str]]) -> str:
    return "".join("\t".join(map(printable, row)) + "\n" for row in rows)


def _sprite(images: Tensor) -> bytes:
    """All thumbnails in the lines of a square, as JPEG."""
    count, _, height, width = images.shape
    columns = math.ceil(math.sqrt(count))
    pixels = images.expand(count, 3, height, width).permute(0, 2, 3, 1).numpy()
    square = np.zeros((columns * columns, height, width, 3), dtype=np.uint8)
    square[:count] = pixels
    lines = square.reshape(columns, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    content = io.BytesIO()
    Image.fromarray(lines.reshape(columns * height, columns * width, 3)).save(content, "JPEG", quality=90)
    return content.getvalue()
