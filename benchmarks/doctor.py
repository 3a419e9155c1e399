"""What `cnntrain check` finds of what is planted, and what that takes.

    python benchmarks/doctor.py copies [images=50000] [cnntrain overrides]
    python benchmarks/doctor.py labels [seed=0] [cnntrain overrides]

copies: images of `data.root` are written as JPEG files of 128 pixels a side, of one in twenty a changed one in another
split: encoded anew, resized, mirrored, cut to 75 to 98 % of its area, or cut and mirrored. Printed are, of each change,
how many are found with the image that they are made of (or with one that is nearly the same as that in the data set
itself), and with another (false alarms), and the seconds of `check` by the clock and of processor time, of all threads.

labels: 5 % and 10 % of all labels are exchanged for others, or a quarter of one class (of two classes, a tenth) for one
other, and what `check labels=true` tells is compared with what is planted. Where cleanlab is installed, it is given the
same probabilities.
"""

import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cnntrain import cli
from cnntrain.config.compose import compose_settings
from cnntrain.inspect.doctor.cross_validation import judge
from cnntrain.inspect.doctor.features import encode, find_encoder
from cnntrain.inspect.doctor.labels import Opinions, doubted
from cnntrain.inspect.doctor.subject import Subject, find_subject
from cnntrain.report.run_report import Report

SIDE, EVERY = 128, 20  # pixels of a file; one image of so many has a copy
SHARES = {"5 %": 0.05, "10 %": 0.1}


def take_words(defaults: dict[str, int]) -> tuple[dict[str, int], list[str]]:
    """Our own numbers among the words after the first, and the overrides."""
    own, rest = dict(defaults), []
    for word in sys.argv[2:]:
        key, _, value = word.partition("=")
        if key in own:
            own[key] = int(value)
        else:
            rest.append(word)
    return own, rest


def subject_of(words: list[str]) -> Subject:
    """The images that a config names."""
    subject = find_subject(compose_settings(words).data)
    assert subject is not None
    return subject


# --- copies -----------------------------------------------------------------------------------------------------------


def change(image: Image.Image, kind: str, random: np.random.Generator) -> tuple[Image.Image, int]:
    """A changed picture, and the quality of its JPEG file."""
    if "cut" in kind:
        keep = np.sqrt(random.uniform(0.75, 0.98))
        left, top = (random.uniform(0, 1 - keep) for _ in range(2))
        image = image.crop(tuple(round(SIDE * place) for place in (left, top, left + keep, top + keep)))
    if "mirrored" in kind:
        image = ImageOps.mirror(image)
    if kind == "resized":
        image = image.resize((90, 90), Image.Resampling.BICUBIC)
    return image, 40 if kind == "encoded anew" else 85


KINDS = ("encoded anew", "resized", "mirrored", "cut", "cut and mirrored")


def write_files(subject: Subject, count: int, root: Path) -> None:
    """`train/CLASS/NUMBER.jpg`, and `val/CLASS/KIND.NUMBER.jpg` of one in twenty; `count` files in all."""
    random = np.random.default_rng(0)
    for place in range(count * EVERY // (EVERY + 1)):
        pixels = subject.picture(place).movedim(0, 2).numpy()
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        for split in ("train", "val"):
            (root / split / subject.label(place)).mkdir(parents=True, exist_ok=True)
        image.save(root / "train" / subject.label(place) / f"{place}.jpg", quality=90)
        if place % EVERY == 0:
            kind = KINDS[place // EVERY % len(KINDS)]
            changed, quality = change(image, kind, random)
            changed.save(root / "val" / subject.label(place) / f"{kind}.{place}.jpg", quality=quality)


def copies() -> None:
    """See above."""
    own, words = take_words({"images": 50_000})
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder, "photos"), Path(folder, "found.json")
        write_files(subject_of(words), own["images"], root)
        start, spent = time.perf_counter(), processor_seconds()
        check = ["check", "data=imagefolder", f"data.root={root}", "steps=0", f"out={out}"]
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main(check) == 0
        seconds, spent = time.perf_counter() - start, processor_seconds() - spent
        found = json.loads(out.read_text())["findings"]
        planted = Counter(path.name.partition(".")[0] for path in (root / "val").glob("*/*"))
    pairs = [
        (Path(image["file"]).stem, Path(image["other_file"]).stem)
        for finding in found
        for image in finding["images"]
        if image["other_file"] and finding["finding"] != "contradiction_alike"
    ]
    groups = Groups([(one, other) for one, other in pairs if "." not in one and "." not in other])
    right, wrong = Counter(), Counter()
    for one, other in pairs:
        if ("." in one) == ("." in other):
            continue
        copy, original = (one, other) if "." in one else (other, one)
        kind, _, source = copy.partition(".")
        (right if groups.of(source) == groups.of(original) else wrong)[kind] += 1
    print(f"{own['images']:,} files: {seconds:.0f} s by the clock, {spent:.0f} s of processor time")
    print(f"pairs of the data set's own: {sum('.' not in one and '.' not in other for one, other in pairs):,}")
    for kind in KINDS:
        print(f"{kind:16}  planted {planted[kind]:5}  found {right[kind]:5}  false alarms {wrong[kind]}")
    told = sum(right.values()) + sum(wrong.values())
    print(
        f"precision {sum(right.values()) / max(1, told):.2%}, recall {sum(right.values()) / sum(planted.values()):.2%}"
    )


class Groups:
    """Images that are nearly the same, one by another."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._up: dict[str, str] = {}
        for one, other in pairs:
            self._up[self.of(one)] = self.of(other)

    def of(self, name: str) -> str:
        """What stands for the group of an image."""
        while name in self._up and self._up[name] != name:
            name = self._up[name]
        return name


def processor_seconds() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# --- labels -----------------------------------------------------------------------------------------------------------


def plant(labels: NDArray[np.int64], classes: int, kind: str, seed: int) -> NDArray[np.int64]:
    """Labels of which some are wrong."""
    random, given = np.random.default_rng(seed), labels.copy()
    if kind in SHARES:
        places = random.choice(len(labels), round(SHARES[kind] * len(labels)), replace=False)
        given[places] = (labels[places] + random.integers(1, classes, len(places))) % classes
    elif kind == "a pair":
        one, other, part = (0, 1, 10) if classes == 2 else (3, 5, 4)
        members = np.flatnonzero(labels == one)
        given[random.choice(members, len(members) // part, replace=False)] = other
    return given


def labels() -> None:
    """See above."""
    own, words = take_words({"seed": 0})
    settings = compose_settings(words)
    subject = subject_of(words)
    rows, count = np.arange(len(subject)), len(subject.classes)
    report = Report(None, tensorboard=False)
    start = time.perf_counter()
    encoder = find_encoder(subject, rows, settings, report)
    features = encode(encoder, subject, rows, report)
    print(f"{len(rows):,} images, {features.shape[1]} {encoder.name}: {time.perf_counter() - start:.0f} s", flush=True)
    for kind in ("none", *SHARES, "a pair"):
        given = plant(subject.labels, count, kind, own["seed"])
        is_wrong, start = given != subject.labels, time.perf_counter()
        probabilities = judge(features, torch.from_numpy(given), count, own["seed"])
        opinions = Opinions.of(probabilities, torch.from_numpy(given))
        told = {"ours": doubted(opinions, torch.from_numpy(given), count).numpy()}
        confirmed = (opinions.seen.numpy() == given).mean()
        print(f"{kind}: {is_wrong.sum()} planted, {confirmed:.1%} confirmed, {time.perf_counter() - start:.0f} s")
        with contextlib.suppress(ImportError):
            from cleanlab.filter import find_label_issues  # type: ignore[import-not-found]

            for rule in ("prune_by_noise_rate", "confident_learning", "low_normalized_margin"):
                order = {"filter_by": rule, "return_indices_ranked_by": "self_confidence", "n_jobs": 1}
                told[f"cleanlab {rule}"] = find_label_issues(given, probabilities.double().numpy(), **order)
        for name, places in told.items():
            hits = is_wrong[places].sum()
            first = is_wrong[places[: is_wrong.sum() // 2]].mean() if is_wrong.any() and len(places) else 0
            precision, recall = hits / max(1, len(places)), hits / max(1, is_wrong.sum())
            scores = f"precision {precision:.2f}  recall {recall:.2f}  of the first half {first:.2f}"
            print(f"  {name:30} told {len(places):6}  {scores}")


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "80")
    {"copies": copies, "labels": labels}[sys.argv[1]]()
