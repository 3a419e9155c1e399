"""The commands, and what `cnntrain COMMAND --help` prints. (`cnntrain --help` itself lies in conf/hydra/help.)"""

COMMANDS = (
    *("train", "resume", "compare", "eval", "predict", "explain"),
    *("preview", "check", "summary", "models", "filter"),
)
HELP = {
    "resume": """\
usage: cnntrain resume RUN_DIR [KEY=VALUE ...]

Go on with a run that was stopped, killed or is to train longer. The run's own
config is used; values can be changed, groups (model=, data=, ...) cannot.

  cnntrain resume outputs/digits/lenet5/2026-01-31_12-00-00
  cnntrain resume outputs/digits/lenet5/2026-01-31_12-00-00 trainer.epochs=50
""",
    "compare": """\
usage: cnntrain compare [GROUP=OPTION,OPTION,...] [KEY=VALUE,VALUE,...]
                        [out=DIR]

Trains every combination of the values that are listed, one run after the other,
and puts them into one table: accuracy, seconds, peak memory, parameters that
learn, and the epoch of the best score. The words are those of cnntrain train.

Lists of seed and data.fold repeat a row of the table, which then has mean and
standard deviation (of the sample); data.folds=5 alone runs all five folds. The
accuracy is that of the test images where each run has some, else that of the
validation images in the best epoch. Time is that of training and validation.

Runs of the same seed and fold have the same split, the same order of images
and the same augmentation. Another seed also draws another validation split,
where that comes out of train; give data a val folder to hold it still.

Runs that are finished are not run again, and those that were stopped go on:
give the same command again, with more values if you like. A run belongs to its
whole config: another value of any key makes new runs beside the old ones.

  out      the folder of the runs, with compare.csv, .json, .png and .svg
           and pages for TensorBoard; outputs/compare/DATA_MODEL. Comparisons
           of other keys share its runs, and have a folder in it for tables

  cnntrain compare finetune=A,B,C model=resnet18 data=imagefolder \\
           data.root=photos seed=0,1,2
  cnntrain compare finetune=none,A,B,C ...     from scratch beside them
  cnntrain compare 'augment=[flip_crop,cutmix],none' optimizer.lr=0.1,0.03
  cnntrain compare data.folds=5 data=imagefolder data.root=photos
""",
    "eval": """\
usage: cnntrain eval RUN_DIR_OR_CHECKPOINT [KEY=VALUE ...] [tta=VIEWS]
                     [out=FILE]

Score a trained network on its validation and test images. The checkpoint knows
its classes, its preprocessing and its config; values can be changed, groups
(model=, data=, ...) cannot. Of a run folder the best epoch is taken.

  tta   several views of each image, their probabilities averaged: hflip,
        vflip, shift (moved by a sixteenth in four directions), crops (corners
        and centre of a picture a seventh larger; small sets: mirrored border)
  out   FILE.json: the scores; FILE.png, .svg or .pdf: the confusion matrix of
        the test images, or of the validation images where there are no others

  cnntrain eval outputs/digits/lenet5/2026-01-31_12-00-00
  cnntrain eval RUN_DIR/checkpoints/last data.root=/data/photos out=scores.json
  cnntrain eval RUN_DIR 'tta=[hflip,crops]' out=confusion.pdf
""",
    "predict": """\
usage: cnntrain predict RUN_DIR_OR_CHECKPOINT images=PATH [top=5] [tta=VIEWS]
                        [out=FILE.csv] [KEY=VALUE ...]

The classes of pictures that nobody has labelled. The checkpoint is all that is
needed; of a run folder the best epoch is taken.

  images   a file, several, a folder (searched at any depth), or a pattern;
           data.on_bad_image=skip leaves bad ones out
  top      classes of each image in the file, the most probable first
  tta      several views of each image, as in cnntrain eval
  out      FILE.csv or FILE.json: every image with its classes

  cnntrain predict RUN_DIR images=cat.jpg
  cnntrain predict RUN_DIR 'images=[a.jpg,b.png]' tta=hflip
  cnntrain predict RUN_DIR 'images=photos/*.jpg' out=classes.csv
""",
    "preview": """\
usage: cnntrain preview [GROUP=OPTION ...] [KEY=VALUE ...] [images=8] [out=DIR]

What a config does to the images and to its run, before any training: a sheet
with the originals, the images after each stage, as the network gets them and
mixed with their label weights; the course of learning rate, drop rates and
image size over all steps; both for TensorBoard too.

  images   how many images the sheet shows, 1 to 12
  out      where to write; a new folder in outputs/preview

  cnntrain preview data=cifar10 'augment=[flip_crop,randaugment,cutmix]'
  cnntrain preview data=imagefolder data.root=/data/photos augment=mixup
""",
    "explain": """\
usage: cnntrain explain RUN_DIR_OR_CHECKPOINT [KEY=VALUE ...]

Pictures of what a trained network sees, as PNG files in RUN_DIR/explain and in
TensorBoard. The images are those of the test split, else of the validation.

  what=...     of filters, features, excite, gradcam, shift; default: all
               filters   the first layer's weights
               features  the maps of some layers for some images
               excite    the images that excite a filter most, and what it saw
               gradcam   where the evidence for a class lies (arXiv 1610.02391)
               shift     what moving the image by a few pixels changes
  layers=...   names, patterns, or first, last, stages; default: stages.
               `cnntrain summary` lists the names
  images=8     how many, spread over the classes; or files of your own
  filters=16   how many filters of each layer
  out=DIR      where to write

Other words change the run's config, such as data.root=DIR.

  cnntrain explain outputs/digits/lenet5/2026-01-31_12-00-00
  cnntrain explain RUN_DIR what=gradcam 'images=[cat.jpg,dog.jpg]'
  cnntrain explain RUN_DIR what=features,excite layers=layer1.0.conv1,layer4
""",
    "models": """\
usage: cnntrain models [WORD ...] [out=FILE.csv]

The networks that model= knows: parameters, multiply-adds, image size, year and
paper. WORDs narrow the list, and describe what is left.

  cnntrain models
  cnntrain models inception
  cnntrain models out=models.csv
""",
    "summary": """\
usage: cnntrain summary [GROUP=OPTION ...] [KEY=VALUE ...] [formulas=true]
                        [out=FILE.csv]

A network layer by layer: kernel, stride, padding, output size, parameters,
multiply-adds, receptive field and activation memory. No data is needed: images
look as data= says, or as those that the network was made for.

  cnntrain summary model=alexnet
  cnntrain summary model=resnet18 data=cifar10 out=resnet18.csv
  cnntrain summary model=lenet5 formulas=true   with the sums behind a number
""",
    "filter": """\
usage: cnntrain filter image=FILE kernel=NAME [KEY=VALUE ...] [out=FILE.png]

A classic filter on a picture, computed as the convolution of a network: the
kernel is laid over the image and not turned around first. Prints the kernel,
the sizes and the range of values; the picture has the original, the kernel and
the result side by side.

  kernel        sobel_x sobel_y sobel (their magnitude) edge sharpen box
                gaussian gabor identity, or weights in rows
  size          box, gaussian, gabor: rows and columns, 1 to 101
  sigma         gaussian, gabor: spread in pixels
  theta, wavelength, gamma, phase
                gabor: turn in degrees, pixels of a wave, height of the bell by
                its width, shift in degrees
  padding       same (default), valid, or a number of pixels
  padding_mode  zeros (default) reflect replicate circular
  stride, dilation
                whole numbers, 1 by default
  gray          true or false; by default edges are looked for in gray
  out           the picture to write; IMAGE_KERNEL.png in the current folder

Edges have a sign: mid-grey is 0. Magnitudes begin at black. Other results are
images, and what lies outside 0 to 255 is cut off.

  cnntrain filter image=cat.jpg kernel=sobel_x
  cnntrain filter image=cat.jpg kernel=gaussian sigma=3 out=soft.png
  cnntrain filter image=cat.jpg kernel=gabor theta=45 wavelength=6 stride=2
  cnntrain filter image=cat.jpg 'kernel=[[0,1,0],[1,-4,1],[0,1,0]]'
""",
}
