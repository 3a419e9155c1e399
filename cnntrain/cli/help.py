"""What `cnntrain COMMAND --help` prints: our words around its usage and its arguments.

(`cnntrain --help` itself lies in conf/hydra/help.)
"""

import string

from cnntrain.config.paths import conf_dir

# By command, what stands above its arguments and what below.
TEXTS = {
    "train": (
        """\
Train a network. The word may be left out: cnntrain model=resnet18 data=cifar10.
Groups and keys are listed by cnntrain --help and cnntrain --cfg job.
""",
        """\
  cnntrain train model=resnet18 data=cifar10 data.download=true
  cnntrain train data=imagefolder data.root=/data/photos out=runs/photos
  cnntrain train -m seed=0,1,2 optimizer=sgd,adamw
""",
    ),
    "check": (
        """\
Is the data sound, would this run work, what does it need, how long would it
take? Every image is looked at: damaged files, copies within and across splits
and classes, pictures that are nearly the same, classes without images, odd
sizes. Then model and data are built, and a few steps are trained on throw-away
weights. No run is left.
Of a trained network the images of its run are looked at, and those are told
whose label it does not believe; labels=true tells such without a trained one.
""",
        """\
  cnntrain check model=resnet18 data=cifar10
  cnntrain check model=resnet50 data=imagefolder data.root=/data/photos
  cnntrain check data=imagefolder data.root=/data/photos steps=0 out=look
  cnntrain check data=imagefolder data.root=/data/photos labels=true out=look
  cnntrain check RUN_DIR out=look              labels that look wrong, too
""",
    ),
    "resume": (
        """\
Go on with a run that was stopped, killed or is to train longer. The run's own
config is used; values can be changed, groups (model=, data=, ...) cannot.
""",
        """\
  cnntrain resume outputs/digits/lenet5/2026-01-31_12-00-00
  cnntrain resume outputs/digits/lenet5/2026-01-31_12-00-00 trainer.epochs=50
""",
    ),
    "compare": (
        """\
Trains every combination of the values that are listed, one run after the other,
and puts them into one table: accuracy, seconds, peak memory, parameters that
learn, and the epoch of the best score. The words are those of cnntrain train.
Words without a = are the folders of runs that exist, or folders in which runs
lie: nothing is trained then, and the table has the settings that differ.

Lists of seed and data.fold repeat a row of the table, which then has mean and
standard deviation (of the sample); data.folds=5 alone runs all five folds. The
accuracy is that of the test images where each run has some, else that of the
validation images in the best epoch. Time is that of training and validation.
The interval of 95 % is Student's of the mean over repeats; of a single run it
is Wilson's, of its accuracy on so many images.

Runs of the same seed and fold have the same split, the same order of images
and the same augmentation. Another seed also draws another validation split,
where that comes out of train; give data a val folder to hold it still.

Runs that are finished are not run again, and those that were stopped go on:
give the same command again, with more values if you like. A run belongs to its
whole config: another value of any key makes new runs beside the old ones.
""",
        """\
  cnntrain compare finetune=A,B,C model=resnet18 data=imagefolder \\
           data.root=photos seed=0,1,2
  cnntrain compare finetune=none,A,B,C ...     from scratch beside them
  cnntrain compare 'augment=[flip_crop,cutmix],none' optimizer.lr=0.1,0.03
  cnntrain compare data.folds=5 data=imagefolder data.root=photos
  cnntrain compare outputs/digits out=tables   runs that exist
""",
    ),
    "eval": (
        """\
What a trained network is worth on its validation and test images: scores with
their intervals, the hardest classes, which class is taken for which, the most
confident errors, whether its probabilities can be believed, and what a
threshold on them leaves. The checkpoint knows its classes, its preprocessing
and its config; values can be changed, groups (model=, data=, ...) cannot. Of a
run folder the best epoch is taken.
""",
        """\
  cnntrain eval outputs/digits/lenet5/2026-01-31_12-00-00
  cnntrain eval RUN_DIR out=RUN_DIR/eval       scores, charts, a row per image
  cnntrain eval RUN_DIR/checkpoints/last data.root=/data/photos out=scores.json
  cnntrain eval RUN_DIR calibrate=true robust=noise,jpeg
  cnntrain eval RUN_DIR 'tta=[hflip,crops]' out=confusion.pdf
""",
    ),
    "predict": (
        """\
The classes of pictures that nobody has labelled. The checkpoint is all that is
needed; of a run folder the best epoch is taken.
""",
        """\
  cnntrain predict RUN_DIR images=cat.jpg
  cnntrain predict RUN_DIR 'images=[a.jpg,b.png]' tta=hflip
  cnntrain predict RUN_DIR 'images=photos/*.jpg' out=classes.csv
  cnntrain predict RUN_DIR images=photos threshold=0.8 'out=[a.csv,sheet.png]'
""",
    ),
    "preview": (
        """\
What a config does to the images and to its run, before any training: a sheet
with the originals, the images after each stage, as the network gets them and
mixed with their label weights; the course of learning rate, drop rates and
image size over all steps; both for TensorBoard too.
""",
        """\
  cnntrain preview data=cifar10 'augment=[flip_crop,randaugment,cutmix]'
  cnntrain preview data=imagefolder data.root=/data/photos augment=mixup
""",
    ),
    "find_lr": (
        """\
Which learning rate suits this run? A range test (arXiv 1506.01186): throw-away
weights are trained with a rate that rises until the loss diverges, with the
run's own images, augmentation, optimizer and loss. The suggestion is half the
rate at which the loss was lowest, as optimizer.lr is to be typed; with
finetune=C each layer group has a test and a rate of its own.
""",
        """\
  cnntrain find_lr model=resnet18 data=cifar10
  cnntrain find_lr finetune=C data=imagefolder data.root=/data/photos steps=60
""",
    ),
    "bench": (
        """\
What does a step of this run cost, and what of it is not the network? In turn
are timed: the bare step (forward and backward pass, loss and optimizer) on one
batch that lies ready, which is the limit; the same with augmentation; with the
loader; and the real loop with its counting, log rows and bar. Saves are timed
by themselves. One sentence says what to change. Only FILE.json is kept.
""",
        """\
  cnntrain bench model=resnet18 data=cifar10
  cnntrain bench data=imagefolder data.root=/data/photos out=bench.json
""",
    ),
    "pack": (
        """\
A folder of photos as one file of smaller ones, which trains in its place: no
million small files to open, and a third of the time to decode. The folder is
read as it is for training, and stays as it is. Of data the words root, classes,
interpolation, on_bad_image and workers are read.
""",
        """\
  cnntrain pack data=imagefolder data.root=/data/photos out=/data/packed
  cnntrain train data=imagefolder data.root=/data/packed model=resnet18
""",
    ),
    "explain": (
        """\
Pictures of what a trained network sees, as PNG files in RUN_DIR/explain and in
TensorBoard. The images are those of the test split, else of the validation.
""",
        """\
Other words change the run's config, such as data.root=DIR.

  cnntrain explain outputs/digits/lenet5/2026-01-31_12-00-00
  cnntrain explain RUN_DIR what=gradcam 'images=[cat.jpg,dog.jpg]'
  cnntrain explain RUN_DIR what=features,excite layers=layer1.0.conv1,layer4
""",
    ),
    "play": (
        """\
A page on this machine in which a trained network answers while you draw, drop a
photo, move, turn or blur it with noise: classes, Grad-CAM, feature maps, first
filters. On a run that is training it shows each save, and the curves so far.
""",
        """\
  cnntrain play outputs/digits/lenet5/2026-01-31_12-00-00
  cnntrain play RUN_DIR port=8000              for ssh -L 8000:127.0.0.1:8000
""",
    ),
    "report": (
        """\
A run on one page, report.html: scores with intervals, curves, confusion, the
worst errors with Grad-CAM, augmentations, filters, config, and findings in
plain words with the figure behind each. It needs no network and no program but
a browser, and shows what the run folder knows where its images are gone.
""",
        """\
  cnntrain report outputs/digits/lenet5/2026-01-31_12-00-00
  cnntrain report RUN_DIR out=report.html
  cnntrain report RUN_DIR data.root=/data/photos
  cnntrain trainer.report=true                 the page of each run at its end
""",
    ),
    "export": (
        """\
A trained network as a file for other programs, with its classes and its
preprocessing in it. Before the file gets its name it is loaded, and its answers
are compared with those of the network; a program beside it shows its use. Of a
run folder the best epoch is taken, and the average of the weights where the run
kept one.
""",
        """\
Other words change the run's config, such as data.root=DIR.

  cnntrain export RUN_DIR
  cnntrain export RUN_DIR preprocessing=true latency=true out=photos.onnx
  cnntrain export RUN_DIR int8=true
  cnntrain export RUN_DIR format=safetensors
""",
    ),
    "models": (
        """\
The networks that model= knows: parameters, multiply-adds, image size, year and
paper. WORDs narrow the list, and describe what is left.
""",
        """\
  cnntrain models
  cnntrain models inception
  cnntrain models out=models.csv
""",
    ),
    "summary": (
        """\
A network layer by layer: kernel, stride, padding, output size, parameters,
multiply-adds, receptive field and activation memory. No data is needed: images
look as data= says, or as those that the network was made for.
""",
        """\
  cnntrain summary model=alexnet
  cnntrain summary model=resnet18 data=cifar10 out=resnet18.csv
  cnntrain summary model=lenet5 formulas=true
""",
    ),
    "filter": (
        """\
A classic filter on a picture, computed as the convolution of a network: the
kernel is laid over the image and not turned around first. Prints the kernel,
the sizes and the range of values; the picture has the original, the kernel and
the result side by side. Of a signal in one dimension a chart has both curves,
and a table the numbers.
""",
        """\
Edges have a sign: mid-grey is 0. Magnitudes begin at black. Other results are
images, and what lies outside 0 to 255 is cut off.

  cnntrain filter image=cat.jpg kernel=sobel_x
  cnntrain filter image=cat.jpg kernel=gaussian sigma=3 out=soft.png
  cnntrain filter image=cat.jpg kernel=gabor theta=45 wavelength=6 stride=2
  cnntrain filter image=cat.jpg 'kernel=[[0,1,0],[1,-4,1],[0,1,0]]'
  cnntrain filter 'signal=[1,2,4,2,1]' 'kernel=[1/3,1/3,1/3]'
  cnntrain filter signal=noisy.csv column=y kernel=gaussian sigma=2
""",
    ),
    "course": (
        """\
The pages of a course on convolutional networks: what it claims, the commands
that show it, and what they print. Without a NUMBER the pages are listed, with
their data and time. A page runs its commands in a folder and leaves its text
there, with tables, pictures and what came of each claim. Given again, it does
not run a finished comparison again.
""",
        """\
  cnntrain course
  cnntrain course 3
  cnntrain course 3 6 out=course
  cnntrain course all
""",
    ),
}


def overview() -> str:
    """The text of `cnntrain --help`. Hydra would print it too, but list all its groups first, which takes a second."""
    import yaml  # type: ignore[import-untyped]

    file = conf_dir() / "hydra" / "help" / "cnntrain.yaml"
    template = yaml.safe_load(file.read_text(encoding="utf-8"))["template"]
    return string.Template(template.rstrip()).substitute()


def command_help(command: str) -> str:
    """The text of `cnntrain COMMAND --help`."""
    from cnntrain.cli.argument_help import list_arguments, usage

    above, below = TEXTS[command]
    arguments = "\n".join(list_arguments(command))
    return "\n".join([*usage(command), "", above, *([f"{arguments}\n"] if arguments else []), below.rstrip()])
