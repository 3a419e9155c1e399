"""Where the images come from and how they are split, sized and batched."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from cnntrain.config.schema.limits import AUTO, number, whole_number
from cnntrain.config.schema.titles import title_faults, title_of
from cnntrain.registry import Entry, Registry
from cnntrain.text import printable


class LoaderKind(enum.Enum):
    auto = "auto"
    memory = "memory"
    stream = "stream"


class Sampling(enum.Enum):
    natural = "natural"
    balanced = "balanced"  # every class equally often


class Interpolation(enum.Enum):
    bilinear = "bilinear"
    bicubic = "bicubic"


class CropMode(enum.Enum):
    center = "center"  # the short side is resized, and the central square is seen
    squash = "squash"  # both sides are resized alike, whatever the shape of the picture
    border = "border"  # the long side is resized, and the mean colour lies around the picture


class OnBadImage(enum.Enum):
    error = "error"
    skip = "skip"


@dataclass
class ColumnSettings:
    file: Optional[str] = None  # the image: a path, a name, or an id
    label: Any = None  # its class or classes; of data.multi_label also a list of columns, [cat,dog], that hold 1 or 0
    separator: Optional[str] = None  # of data.multi_label, what parts the labels of a cell; null: found
    split: Optional[str] = None  # train, val or test
    group: Optional[str] = None  # of patients or cameras: all images of one are in the same split or fold
    weight: Optional[str] = None  # how often a training image is shown: twice as often as one of half its weight

    def faults(self) -> list[tuple[str, Any, str]]:
        """See DataSettings."""
        rule = "the name of a column, or null for one of a usual name"
        faults: list[tuple[str, Any, str]] = []
        faults += [(key, "nothing", rule) for key in ("file", "label") if getattr(self, key) == ""]
        if isinstance(self.label, list):
            if not self.label or not all(isinstance(name, str) and name for name in self.label):
                faults.append(("label", self.label, "the name of a column, or a list of such names"))
        elif self.label is not None:
            self.label = str(self.label)
        if self.separator == "":
            faults.append(("separator", "nothing", "a sign, such as '|', or null for one that is found"))
        return faults


@dataclass
class DataSettings:
    name: str = "???"  # an entry of DATASETS, or my_pkg.data:load
    title: str = ""  # what heads the runs, and the folder that they lie in: of files, the name of their folder
    # keyword arguments of a function of yours, data=own data.name=my_pkg.data:load, the variant of a named data set, or
    # of the Hugging Face hub config, revision, and its names of train, val and test
    args: dict[str, Any] = field(default_factory=dict)
    # the folder of the data; for imagefolder the one that holds train/, for arrays the .npz file, for table the table,
    # for webdataset the shards, SHARDS/{000..099}.tar, for hf OWNER/NAME of the Hugging Face hub or its files
    root: str = "???"
    images: Optional[str] = None  # of a table, the folder of its images; null: found beside it
    # of a table, the names of its columns; null: one of a usual name, empty: none; of hf file (the image) and label
    columns: ColumnSettings = field(default_factory=ColumnSettings)
    split_file: Optional[str] = None  # a table of names and splits, such as the splits.csv of a run, which decides them
    # of webdataset, images of the shuffle buffer, which the shards go through in random order; null: all
    buffer: Optional[int] = number(None, ge=2)
    download: bool = False  # fetch a missing data set
    # images of one batch; auto: as many as fit into memory; null: 4 to 64, so that an epoch has about 16 of them
    batch_size: Union[int, str, None] = number(64, ge=1, most=1_000_000, words=(AUTO,))
    # pixels a side; null: the data set's own, of files 128 or that of pretrained weights
    image_size: Optional[int] = number(None, ge=4, most=16_384)
    # pixels a side in validation and test; null: image_size; larger than in training pays (arXiv 1906.06423)
    eval_size: Optional[int] = number(None, ge=4, most=16_384)
    channels: Optional[int] = number(None, ge=1)  # 1 or 3; null: that of the pretrained weights, else the data set's
    interpolation: Optional[Interpolation] = None  # null: that of the pretrained weights, else bilinear
    # of files, the part of the short side that validation sees; above 1, black lies around; null: 0.875, or that of
    # pretrained weights
    crop: Optional[float] = number(None, ge=0.1, le=1.5)
    crop_mode: Optional[CropMode] = None  # squash: no cut, another shape; null: center, or that of pretrained weights
    workers: Optional[int] = number(None, ge=0, most=1024)  # decode threads of the stream loader; null: by cores
    loader: LoaderKind = LoaderKind.auto
    limit: Union[int, float, None] = number(None, gt=0)  # train on a stratified part: 500 images, or the fraction 0.1
    per_class: Optional[int] = number(
        None, ge=1
    )  # train on so many images of each class at most, whatever `limit` says
    classes: Optional[list[str]] = None  # [cat,dog]: these alone, in this order; null: all, by name
    sampling: Sampling = Sampling.natural  # balanced: every class equally often
    # taken out of train where the data set has no val split: a fraction, or a count; 0: all images train, and the last
    # epoch counts as the best
    val: Union[int, float] = number(0.1, ge=0)
    folds: Optional[int] = number(None, ge=2)  # val is one of so many stratified parts of train, whatever `val` says
    fold: int = number(0, ge=0)  # which of them, from 0
    multi_label: bool = False  # each image may have several labels, or none: it needs loss=bce, focal or asymmetric
    on_bad_image: OnBadImage = OnBadImage.error
    mean: Optional[list[float]] = None  # per channel, in 0..1; null: those of the weights, else the data set's
    std: Optional[list[float]] = None

    def __post_init__(self) -> None:
        self.batch_size = whole_number(self.batch_size)
        if self.classes:  # as those of the data are written, under every locale
            self.classes = [printable(name) for name in self.classes]

    @property
    def has_files(self) -> bool:
        """Whether the images are files, each decoded, cut and resized by itself."""
        return DATASETS.entry(self.name).has_files

    @property
    def is_table(self) -> bool:
        """Whether data.root is a table of the files."""
        return DATASETS.entry(self.name).is_table

    @property
    def is_shards(self) -> bool:
        """Whether data.root names shards of the webdataset format."""
        return DATASETS.entry(self.name).is_shards

    @property
    def is_hub(self) -> bool:
        """Whether data.root names a data set of the Hugging Face hub, or a folder of its files."""
        return DATASETS.entry(self.name).is_hub

    @property
    def is_users(self) -> bool:
        """Whether the images are the user's own, and head the runs."""
        return DATASETS.entry(self.name).is_users

    @property
    def heading(self) -> str:
        """What heads a run: the title; runs of older versions have none, or the name of the loader."""
        is_older = self.title in ("", self.name, DATASETS.user.name)
        return title_of(self.name, self.root, is_users=self.is_users) if is_older else self.title

    def faults(self) -> list[tuple[str, Any, str]]:
        """Broken rules that a single limit cannot state, as (key, value, rule)."""
        faults = title_faults(self.title)
        if isinstance(self.limit, float) and self.limit > 1:
            faults.append(("limit", self.limit, "a fraction up to 1.0, or a whole number of images (500) from 2 up"))
        if isinstance(self.limit, int) and self.limit < 2:
            faults.append(
                ("limit", self.limit, "a whole number of images from 2 up, or a fraction with a point (0.1, 1.0)")
            )
        if isinstance(self.val, float) and self.val >= 1:
            faults.append(("val", self.val, "a fraction below 1.0, or a whole number of images (5000)"))
        if self.folds is not None and not self.val:
            faults.append(("val", self.val, f"above 0 with data.folds ({self.folds}), one of which is for validation"))
        if self.folds is None and self.fold:
            faults.append(("fold", self.fold, "0 without data.folds, which says how many there are"))
        if self.folds is not None and self.fold >= self.folds:
            faults.append(("fold", self.fold, f"below data.folds, from 0 to {self.folds - 1}"))
        if self.classes is not None and (len(self.classes) < 2 or len(set(self.classes)) < len(self.classes)):
            faults.append(("classes", self.classes, "two names or more, each of them once, or null for all"))
        if self.channels not in (None, 1, 3):
            faults.append(("channels", self.channels, "1 or 3, or null for the data set's own"))
        faults += self._argument_faults()
        for key in ("mean", "std"):
            values = getattr(self, key)
            if values is not None and len(values) not in (1, 3):
                faults.append((key, values, "one number per channel (1 or 3 of them), or null for the data set's own"))
        if self.std is not None and min(self.std, default=1) <= 0:
            faults.append(("std", self.std, "above 0 in each channel"))
        return faults

    def _argument_faults(self) -> list[tuple[str, Any, str]]:
        """What is wrong with the arguments of a data set of ours; see faults."""
        entry = DATASETS.get(self.name)
        if not entry or not (entry.option or entry.words):
            return []
        faults: list[tuple[str, Any, str]] = []
        for key, value in self.args.items():
            if entry.words:
                if key not in entry.words:
                    faults.append((f"args.{key}", value, f"one of data.args.{{{','.join(entry.words)}}}"))
                elif not isinstance(value, (str, int)) or value == "":
                    faults.append((f"args.{key}", value, "a name, as the data set has it"))
            elif key != entry.option:
                faults.append((f"args.{key}", value, f"left out: of {self.name} data.args takes {entry.option} alone"))
            elif not any(type(value) is type(one) and value == one for one in entry.options):
                faults.append((f"args.{key}", value, f"one of {', '.join(map(str, entry.options))}"))
        return faults


@dataclass(frozen=True)
class DataEntry(Entry):
    """A data set; its builder takes a Request (data/common.py) and gives a TensorSet (data/datasets.py), or the Data.

    Attributes:
        classes: how many.
        channels: 1 or 3.
        image_size: pixels a side that training gets, if not told otherwise; None: those of the images.
        home: the folder below data.root that holds it; empty: data.root itself.
        mean: of the training images, per channel, in 0..1; empty: computed.
        std: the same.
        has_files: each image is a file.
        is_table: a table names the files, their labels and more.
        is_shards: the files lie in tar files, with their labels.
        is_hub: data.root names a data set of the Hugging Face hub.
        downloads: data.download=true fetches it.
        is_embedded: it comes with a library, and reads no folder.
        like: the data set whose recipes it takes, where it has no file of its own in conf/recipe and so on.
        kind: torchvision's class of it, which fetches it.
        option: an argument of that class, for data.args, which chooses a variant.
        options: what it can be, the usual one first, and how many classes there are then.
        words: arguments, for data.args, that take any text.
    """

    classes: int = 1000
    channels: int = 3
    image_size: Optional[int] = None
    home: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    has_files: bool = False
    takes_sets: bool = False
    is_table: bool = False
    is_shards: bool = False
    is_hub: bool = False
    downloads: bool = False
    is_embedded: bool = False
    like: str = ""
    kind: str = ""
    option: str = ""
    options: Mapping[Any, int] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    def arguments(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of `kind`, of which some stand in data.args."""
        return {self.option: next(iter(self.options)), **args} if self.option else {}

    def class_count(self, args: Mapping[str, Any]) -> int:
        """How many classes the variant has that data.args chooses."""
        return self.options[self.arguments(args)[self.option]] if self.option else self.classes

    @property
    def is_users(self) -> bool:
        """Whether data.root names images that the user chooses."""
        return self.is_hub or not (self.downloads or self.is_embedded)


def _tensors(
    name: str, kind: str, classes: int, channels: int, image_size: int, home: str, known: Any = ((), ()), **more: Any
) -> DataEntry:
    """A data set that torchvision reads into memory, with its mean and standard deviation where they are known."""
    builder, (mean, std) = "cnntrain.data.public_tensors:tensors", known
    more |= {"mean": mean, "std": std, "kind": kind, "downloads": True}
    return DataEntry(name, DataSettings, builder, classes, channels, image_size, home, **more)


def _files(name: str, kind: str, classes: int, home: str, image_size: int = 128, **more: Any) -> DataEntry:
    """A data set of image files that torchvision fetches."""
    facts = (classes, 3, image_size, home)
    more |= {"like": "imagefolder", "has_files": True, "downloads": True}
    return DataEntry(name, DataSettings, "cnntrain.data.public_files:files", *facts, kind=kind, **more)


# Mean and standard deviation of the training part, as they are well known; where there are none, they are computed.
MNIST = ((0.1307,), (0.3081,))
FASHION = ((0.2860,), (0.3530,))
SVHN = ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
EMNIST = {"balanced": 47, "letters": 26, "digits": 10, "mnist": 10, "byclass": 62, "bymerge": 47}
IMAGENETTE = {"160px": 10, "320px": 10}
AIRCRAFT = {"variant": 100, "family": 70, "manufacturer": 30}
DATASETS = Registry(
    "data",
    (
        # Digits of 8 pixels are resized: every small network takes 32.
        DataEntry("digits", DataSettings, "cnntrain.data.datasets:digits", 10, 1, 32, is_embedded=True),
        _tensors("mnist", "MNIST", 10, 1, 28, "MNIST/raw", MNIST),
        _tensors("fashion_mnist", "FashionMNIST", 10, 1, 28, "FashionMNIST/raw", FASHION, like="mnist"),
        _tensors("kmnist", "KMNIST", 10, 1, 28, "KMNIST/raw", like="mnist"),
        _tensors("qmnist", "QMNIST", 10, 1, 28, "QMNIST/raw", MNIST, like="mnist"),
        _tensors("emnist", "EMNIST", 47, 1, 28, "EMNIST/raw", like="mnist", option="split", options=EMNIST),
        _tensors("usps", "USPS", 10, 1, 28, "usps", like="mnist"),  # 16 pixels, resized as the digits are
        _tensors("cifar10", "CIFAR10", 10, 3, 32, "cifar-10-batches-py", CIFAR10),
        _tensors("cifar100", "CIFAR100", 100, 3, 32, "cifar-100-python", CIFAR100),
        _tensors("svhn", "SVHN", 10, 3, 32, "svhn", SVHN, like="cifar10"),
        _tensors("stl10", "STL10", 10, 3, 96, "stl10_binary", like="cifar10"),
        _files("imagenette", "Imagenette", 10, "imagenette2-{size:.3}", option="size", options=IMAGENETTE),
        _files("flowers102", "Flowers102", 102, "flowers-102"),
        _files("pets", "OxfordIIITPet", 37, "oxford-iiit-pet"),
        _files("dtd", "DTD", 47, "dtd/dtd", option="partition", options=dict.fromkeys(range(1, 11), 47)),
        _files("food101", "Food101", 101, "food-101"),
        _files("eurosat", "EuroSAT", 10, "eurosat/2750", 64),
        _files("gtsrb", "GTSRB", 43, "gtsrb", 48),
        _files(
            "fgvc_aircraft", "FGVCAircraft", 100, "fgvc-aircraft-2013b", option="annotation_level", options=AIRCRAFT
        ),
        _files("caltech101", "Caltech101", 101, "caltech101/101_ObjectCategories"),
        _files("caltech256", "Caltech256", 257, "caltech256/256_ObjectCategories"),
        _files("country211", "Country211", 211, "country211"),
        _files("sun397", "SUN397", 397, "SUN397"),
        _files("rendered_sst2", "RenderedSST2", 2, "rendered-sst2", 224),
        DataEntry("imagefolder", DataSettings, "cnntrain.data.build_folder:image_folder", 1000, 3, 128, has_files=True),
        DataEntry(
            "table",
            DataSettings,
            "cnntrain.data.build_table:image_table",
            image_size=128,
            has_files=True,
            is_table=True,
            takes_sets=True,
            like="imagefolder",
        ),
        DataEntry(
            "webdataset",
            DataSettings,
            "cnntrain.data.build_shards:image_shards",
            image_size=128,
            has_files=True,
            is_shards=True,
            like="imagefolder",
        ),
        DataEntry("arrays", DataSettings, "cnntrain.data.arrays:arrays", 10, 3, like="imagefolder", takes_sets=True),
        DataEntry(
            "hf",
            DataSettings,
            "cnntrain.data.build_table:image_table",
            image_size=128,
            has_files=True,
            is_hub=True,
            takes_sets=True,
            downloads=True,
            like="imagefolder",
            words=("config", "revision", "train", "val", "test"),
        ),
    ),
    user=DataEntry("own", DataSettings, "cnntrain.data.user_data:user_data", downloads=True, takes_sets=True),
)
