"""Two stages of gpu.py: how many photos threads decode, and what batches cost that come from host memory."""

import os
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpu_tools import DATA, DEVICE, TINY, wait

BATCH = 128


def decode():
    """Images/s by decode threads, what keeps more threads from more of them, out of a pack too, and nvJPEG.

    Side by side, by threads: the whole road beside a launching thread; the same into memory that is not page-locked and
    with nothing launched; the JPEG decoder alone on files in memory, which holds no lock and so tells what the cores,
    or pairs of them, give.
    """
    import simplejpeg
    import torch

    from cnntrain.config.schema.data import OnBadImage
    from cnntrain.config.schema.pieces import ResizedCropSettings
    from cnntrain.data.decoder import Decoder
    from cnntrain.data.pack import find_images
    from cnntrain.data.pack_writer import Shrinker, write_pack
    from cnntrain.data.view import RandomView

    root = Path(DATA) / "imagenet-fullres" / "val"
    crop = RandomView(224, ResizedCropSettings(scale=[0.08, 1.0]))
    photos = find_images(root, None, None)
    files = [photos.scans["train"].paths.read(index) for index in range(len(photos.scans["train"].labels))]
    is_gpu, small = DEVICE != "cpu", torch.zeros(8, device=DEVICE)

    def decoder(found):
        part = found.scans["train"]
        return Decoder(part.paths, part.labels, channels=3, view=crop, seed=0, on_bad_image=OnBadImage.error)

    def rate(source, workers, images, *, beside):
        groups, waits = list((torch.arange(images) % len(source.labels)).split(BATCH)), []
        begin = time.perf_counter()
        for _ in source.batches(groups, 0, workers, is_gpu and beside):
            tick = time.perf_counter()
            for _ in range(200 if beside else 0):
                small.add_(1)
            waits.append((time.perf_counter() - tick) / 200 * 1e6)
        return round(images / (time.perf_counter() - begin)), round(statistics.median(waits), 1)

    def bare(workers, images):
        with ThreadPoolExecutor(workers) as pool:
            begin = time.perf_counter()
            list(pool.map(lambda index: simplejpeg.decode_jpeg(files[index % len(files)], "RGB"), range(images)))
            return round(images / (time.perf_counter() - begin))

    found = {"cores": _cores()}
    with tempfile.TemporaryDirectory() as home:
        write_pack(
            Path(home), photos, Shrinker(256, 90), workers=2, on_bad_image=OnBadImage.skip, advance=lambda count: None
        )
        folder, packed = decoder(photos), decoder(find_images(Path(home), None, None))
        rate(folder, 4, BATCH, beside=True)  # the first page-locked memory, and the first launch
        for workers in (1, 4, 8, 16, 24):
            images = BATCH if TINY else min(2048, 2 * BATCH * workers)
            speed, launch = rate(folder, workers, images, beside=True)
            found[f"threads {workers}"] = {
                "images/s": speed,
                "us per launch beside": launch,
                "alone": rate(folder, workers, images, beside=False)[0],
                "decoder alone": bare(workers, images),
                "out of a pack": rate(packed, workers, images, beside=True)[0],
            }
    return found | (_by_nvjpeg(files) if is_gpu else {})


def _cores():
    """Processors that this process may use, and how many of them share a core."""
    try:
        shared = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").read_text().strip()
    except OSError:
        shared = "not told"
    return {"processors": len(os.sched_getaffinity(0)), "siblings of the first": shared}


def _by_nvjpeg(files):
    import torch
    import torchvision.io as tio

    found, raw = {}, [torch.frombuffer(bytearray(content), dtype=torch.uint8) for content in files]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for size in (64, 256):
            batch = (raw * (size // len(raw) + 1))[:size]
            tio.decode_jpeg(batch, mode=tio.ImageReadMode.RGB, device=DEVICE)
            wait()
            begin = time.perf_counter()
            for _ in range(4):
                tio.decode_jpeg(batch, mode=tio.ImageReadMode.RGB, device=DEVICE)
            wait()
            found[f"nvJPEG, batches of {size}"] = {"images/s": round(4 * size / (time.perf_counter() - begin))}
    return found


def host():
    """Batches out of host memory: ms that the loop waits for each, gathered ahead and not, and buffers made anew."""
    import torch

    from cnntrain.data.loaders import MemoryLoader, gather
    from cnntrain.runtime.device import can_pin

    device, count, size = torch.device(DEVICE), (64 if TINY else 512), (32 if TINY else 224)
    images = torch.randint(0, 256, (4 * count, 3, size, size), dtype=torch.uint8)
    labels = torch.arange(4 * count) % 10
    loader = MemoryLoader(images, labels, batch_size=count, device=device, seed=0, train=True, resident=False)
    square = torch.randn(*((64, 64) if TINY else (8192, 8192)), device=device)

    def step():
        for _ in range(1 if TINY else 8):
            square @ square

    def taken(batches):
        waits = []
        for _ in batches:
            tick = time.perf_counter()
            step()
            wait()
            waits.append(time.perf_counter() - tick)
        return waits

    def by_hand():
        order = loader.sampler.order(0)
        store = loader._store.content()
        for part, _ in loader.sampler.parts():
            yield tuple(gather(source, order[part], device) for source in store)

    def seconds(make):
        wait()
        begin, steps = time.perf_counter(), 0.0
        for _ in range(5):
            steps += sum(taken(make()))
        return round((time.perf_counter() - begin - steps) / 20 * 1e3, 2)

    seconds(loader.batches)
    before = _pinned()
    found = {"ahead": {"ms of waiting for a batch": seconds(loader.batches)}, "buffers made anew": _pinned() - before}
    found["one after the other"] = {"ms of waiting for a batch": seconds(by_hand)}
    ours, plain = (batch.images for batch in loader.batches()), (pair[0] for pair in by_hand())
    found["same bytes"] = all(
        torch.equal(one, other.permute(0, 3, 1, 2)) for one, other in zip(ours, plain, strict=True)
    )
    return found | {"page-locked": can_pin(device)}


def _pinned():
    """How often page-locked memory was asked of the driver so far."""
    import torch

    return int(torch.cuda.host_memory_stats().get("num_host_alloc", 0)) if DEVICE != "cpu" else 0
