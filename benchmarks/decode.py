"""What a photo costs from its file to a random box of 224 pixels, per core: ours, torchvision's transforms, SPDL.

    python benchmarks/decode.py root=DIR [rounds=5] [images=300]

`root` holds class folders of photos. Each side makes uint8 batches of 32 in one thread, in turn in each round. Printed
are the medians of processor time an image, and the medians of the rounds' ratios to torchvision:

- torchvision: ImageFolder, v2.RandomResizedCrop and PILToTensor in a DataLoader that works in the calling process, as
  its reference scripts do; a worker process would add the sending of batches.
- torchvision tensors: the same with its own decoder, and the transform on tensors.
- SPDL: its own FFmpeg decoder, crop and scale (bilinear) as one filter, batches by one copy; where it is installed
  (`pip install spdl`, which wants FFmpeg's libraries).
- ours: what a run does for each batch; and out of a pack of size 256 (`cnntrain pack`).

`around` is what of ours is neither JPEG decoder nor resize, both of which let go of the interpreter's lock: the same
work with both taken out. At most 1 / around images/s can leave one process, whatever its cores.
"""

import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import simplejpeg
import torch
from torch.utils.data import DataLoader
from torchvision import datasets, io
from torchvision.transforms import v2

from cnntrain.config.schema.data import OnBadImage
from cnntrain.config.schema.pieces import ResizedCropSettings
from cnntrain.data import view
from cnntrain.data.decoder import Decoder
from cnntrain.data.pack import find_images
from cnntrain.data.pack_writer import Shrinker, write_pack

SIZE, BATCH = 224, 32
CROP = view.RandomView(SIZE, ResizedCropSettings(scale=[0.08, 1.0]))
Work = Callable[[], object]


def ours(root: Path, images: int) -> Work:
    """Batches as StreamLoader takes them, by the calling thread."""
    part = find_images(root, None, None).scans["train"]
    decoder = Decoder(part.paths, part.labels, channels=3, view=CROP, seed=0, on_bad_image=OnBadImage.error)
    groups = list((torch.arange(images) % len(part.labels)).split(BATCH))
    return lambda: [None for _ in decoder.batches(groups, 0, 0, False)]


def packed(root: Path, home: Path) -> Path:
    """A pack of the photos."""
    found = find_images(root, None, None)
    write_pack(home, found, Shrinker(256, 90), workers=0, on_bad_image=OnBadImage.error, advance=lambda count: None)
    return home


def around(work: Work) -> Callable[[], None]:
    """The same work, where decoder and resize give what they gave before."""
    known: dict[int, object] = {}
    decode = simplejpeg.decode_jpeg

    def remembered(content: bytes, *options: object) -> object:
        key = len(content)
        if key not in known:
            known[key] = decode(content, *options)
        return known[key]

    def run() -> None:
        nothing = dict.fromkeys(view._WITH_ANTIALIAS, lambda *args, **options: None)
        with (
            mock.patch.object(simplejpeg, "decode_jpeg", remembered),
            mock.patch.object(view, "_WITH_ANTIALIAS", nothing),
        ):
            work()

    run()
    return run


def by_torchvision(root: Path, images: int, *, tensors: bool) -> Work:
    """The same of torchvision."""
    crop = v2.RandomResizedCrop(SIZE, antialias=True)
    if tensors:
        read = lambda path: io.decode_jpeg(io.read_file(path), mode=io.ImageReadMode.RGB)  # noqa: E731
        data = datasets.ImageFolder(root, crop, loader=read)
    else:
        data = datasets.ImageFolder(root, v2.Compose([crop, v2.PILToTensor()]))
    order = [index % len(data) for index in range(images)]
    return lambda: [None for _ in DataLoader(data, BATCH, sampler=order)]


def by_spdl(files: Sequence[str], images: int) -> Work | None:
    """The same of SPDL; None where it is not here."""
    try:
        import spdl.io  # type: ignore[import-not-found]

        spdl.io.demux_image(files[0])
    except (ImportError, RuntimeError) as error:
        print(f"no SPDL: {str(error)[:200]}")
        return None
    draw = random.Random(0)

    def image(file: str) -> Any:
        packets = spdl.io.demux_image(file)
        top, left, height, width = CROP.box(packets.height, packets.width, draw)
        words = f"crop={width}:{height}:{left}:{top},scale={SIZE}:{SIZE}:flags=bilinear"
        return spdl.io.decode_packets(packets, spdl.io.get_video_filter_desc(filter_desc=words, pix_fmt="rgb24"))

    def work() -> None:
        order = [files[index % len(files)] for index in range(images)]
        for start in range(0, images, BATCH):
            spdl.io.to_torch(spdl.io.convert_frames([image(file) for file in order[start : start + BATCH]]))

    return work


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    root, rounds, images = Path(words["root"]), int(words.get("rounds", 5)), int(words.get("images", 300))
    with tempfile.TemporaryDirectory() as home:
        files = [str(file) for file in sorted(root.glob("*/*"))]
        sides: dict[str, Work | None] = {
            "torchvision": by_torchvision(root, images, tensors=False),
            "torchvision tensors": by_torchvision(root, images, tensors=True),
            "SPDL": by_spdl(files, images),
            "ours": ours(root, images),
            "ours, packed": ours(packed(root, Path(home)), images),
        }
        sides["around"] = around(ours(root, images))
        sides["around, packed"] = around(ours(Path(home), images))
        seconds: dict[str, list[float]] = {name: [] for name, work in sides.items() if work}
        for _ in range(rounds):
            for name, row in seconds.items():
                work = sides[name]
                assert work
                start = time.process_time()
                work()
                row.append((time.process_time() - start) / images)
    for name, row in seconds.items():
        ratio = statistics.median(peer / own for peer, own in zip(seconds["torchvision"], row, strict=True))
        print(f"{name:20} {statistics.median(row) * 1e6:8,.0f} us an image   {ratio:5.2f} times torchvision")


if __name__ == "__main__":
    main()
