"""`cnntrain filter`: the same numbers as scipy.ndimage, and faults that are told before torch is imported."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from cnntrain import cli
from cnntrain.cli.arguments import read_arguments
from cnntrain.commands.filter import fit
from cnntrain.config.schema.commands import FilterArgs
from cnntrain.config.schema.filter import (
    KERNELS,
    Box,
    Gabor,
    Gaussian,
    OwnKernel,
    PaddingMode,
    Sobel,
    read_matrix,
)
from cnntrain.inspect import convolve as convolve_module
from cnntrain.inspect.convolve import as_picture, convolve
from cnntrain.plots.filter_result import beside

MODES = {"zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}  # ours -> scipy's
SIZED = [Box(size=size) for size in (1, 2, 4, 7)] + [Gaussian(size=4), Gaussian(sigma=1.5), Gabor(theta=30, size=9)]
OWN = [OwnKernel([[1, 2, 3]]), OwnKernel([[1.0], [-4.0]]), OwnKernel([[0, 1, 2], [3, 4, 5]])]
ALL = [kind() for name, kind in KERNELS.items() if name != "gabor"] + SIZED + OWN
IMAGE = torch.rand(3, 29, 34, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 255


def filtered(kernel, image=IMAGE, **settings) -> np.ndarray:
    chosen = FilterArgs(image=Path("cat.png"), kernel=kernel, **settings)
    matrices = kernel.matrices()
    window = fit(chosen, matrices[0], tuple(image.shape[1:]))
    result = convolve(image[None], matrices, window, chosen.padding_mode.name)[0]
    assert result.shape[1:] == window.output(tuple(image.shape[1:]))
    return result.numpy()


def spread(matrix, dilation: int) -> np.ndarray:
    """A dilated kernel, its gaps filled with zeros."""
    weights = np.array(matrix, dtype=float)
    wide = np.zeros([dilation * (side - 1) + 1 for side in weights.shape])
    wide[::dilation, ::dilation] = weights
    return wide


def by_scipy(kernel, mode: str, dilation: int = 1) -> np.ndarray:
    results = []
    for matrix in kernel.matrices():
        wide = spread(matrix, dilation)
        origin = [-1 if side % 2 == 0 else 0 for side in wide.shape]  # of an even kernel, where the middle lies
        results.append(
            np.stack([ndimage.correlate(channel, wide, mode=mode, origin=origin) for channel in IMAGE.numpy()])
        )
    return results[0] if len(results) == 1 else np.hypot(*results)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", ALL, ids=lambda kernel: type(kernel).__name__)
def test_every_kernel_border_and_dilation_equals_scipy(kernel, mode: str) -> None:
    for dilation in (1, 3):
        ours = filtered(kernel, padding_mode=PaddingMode[mode], dilation=dilation)
        np.testing.assert_allclose(ours, by_scipy(kernel, MODES[mode], dilation), atol=1e-9)


@pytest.mark.parametrize("stride", [2, 3, 50])
@pytest.mark.parametrize("kernel", ALL, ids=lambda kernel: type(kernel).__name__)
def test_strides_and_paddings_are_parts_of_what_scipy_gives(kernel, stride: int) -> None:
    whole = by_scipy(kernel, "constant")
    np.testing.assert_allclose(filtered(kernel, stride=stride), whole[:, ::stride, ::stride], atol=1e-9)
    rows, columns = (side - 1 for side in spread(kernel.matrices()[0], 1).shape)
    height, width = whole.shape[1:]
    valid = whole[:, rows // 2 : height - (rows - rows // 2), columns // 2 : width - (columns - columns // 2)]
    np.testing.assert_allclose(filtered(kernel, padding="valid"), valid, atol=1e-9)
    wide = filtered(kernel, padding="20", stride=stride)
    inner = filtered(kernel, image=torch.nn.functional.pad(IMAGE, (20,) * 4), padding="valid", stride=stride)
    np.testing.assert_allclose(wide, inner, atol=1e-9)


@pytest.mark.parametrize(("mode", "name"), MODES.items())
def test_named_filters_equal_those_of_scipy(mode: str, name: str) -> None:
    grey = IMAGE[:1]
    border = {"padding_mode": PaddingMode[mode]}
    x, y = (ndimage.sobel(grey[0].numpy(), axis=axis, mode=name) for axis in (1, 0))
    for kernel, expected in (
        (KERNELS["sobel_x"](), x),
        (KERNELS["sobel_y"](), y),
        (Sobel(), ndimage.generic_gradient_magnitude(grey[0].numpy(), ndimage.sobel, mode=name)),
        (Box(size=5), ndimage.uniform_filter(grey[0].numpy(), 5, mode=name)),
        (Gaussian(sigma=2), ndimage.gaussian_filter(grey[0].numpy(), 2, mode=name, radius=6)),
        (OwnKernel([[0, 1, 0], [1, -4, 1], [0, 1, 0]]), ndimage.laplace(grey[0].numpy(), mode=name)),
    ):
        np.testing.assert_allclose(filtered(kernel, grey, **border)[0], expected, atol=1e-9)


def test_float32_as_the_command_takes_it_stays_within_a_thousandth_of_a_grey_level() -> None:
    for kernel in ALL:
        exact = filtered(kernel)
        np.testing.assert_allclose(filtered(kernel, IMAGE.float()), exact, atol=1e-3)


def test_sobel_is_positive_where_it_grows_brighter_to_the_right_and_downwards() -> None:
    ramp = torch.arange(8.0).expand(1, 8, 8)
    assert (filtered(KERNELS["sobel_x"](), ramp, padding="valid") == 8).all()
    assert (filtered(KERNELS["sobel_y"](), ramp.mT, padding="valid") == 8).all()


@pytest.mark.parametrize("theta", [0, 30, 90, 135])
def test_gabor_answers_most_to_stripes_of_its_own_direction_and_wavelength(theta: int) -> None:
    y, x = np.mgrid[:64, :64]
    angle = np.radians(theta)
    stripes = torch.tensor(np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / 8))[None]
    strength = {
        (turn, wave): np.abs(filtered(Gabor(theta=turn, wavelength=wave), stripes, padding="valid")).max()
        for turn in (0, 30, 90, 135)
        for wave in (5, 8, 12)
    }
    assert max(strength, key=lambda grid: strength[grid]) == (theta, 8)


def test_gabor_turned_a_quarter_is_transposed_and_a_phase_of_90_makes_it_odd() -> None:
    straight, turned = (np.array(Gabor(theta=theta).matrices()[0]) for theta in (0, 90))
    np.testing.assert_allclose(turned, straight.T, atol=1e-12)
    odd = np.array(Gabor(phase=90).matrices()[0])
    np.testing.assert_allclose(odd, -odd[:, ::-1], atol=1e-12)
    assert np.abs(straight).sum() == pytest.approx(1)


def test_of_size_and_sigma_one_follows_from_the_other() -> None:
    assert Gaussian().parameters() == {"size": 7, "sigma": 1.0}
    assert Gaussian(sigma=2.5).parameters()["size"] == 17
    assert Gaussian(size=9).parameters()["sigma"] == pytest.approx(1.7)
    assert len(Gaussian(size=9).matrices()[0]) == 9
    assert np.sum(Gaussian(sigma=50).matrices()[0]) == pytest.approx(1)


def test_own_weights_are_read_with_fractions() -> None:
    assert read_matrix("[[1/4, -1/2],\n [2e-1, 3]]") == [[0.25, -0.5], [0.2, 3.0]]
    assert read_matrix("[1/3, 1/3,1/3]") == [[1 / 3] * 3]
    for wrong in (
        "[1 2]",
        "[[1 2]]",
        "[[1,2],[3]]",
        "[[1,]]",
        "[[]]",
        "[[a]]",
        "[[inf]]",
        "[[1/0]]",
        "1",
        "",
        f"[[{'1,' * 101}1]]",
    ):
        assert read_matrix(wrong) is None


# --- pictures --------------------------------------------------------------------------------------------------------


def test_edges_lie_around_mid_grey_magnitudes_begin_at_black_and_images_are_cut_off() -> None:
    result = torch.tensor([-400.0, 0.0, 200.0, 400.0]).repeat(1, 5, 1)
    signed, rule = as_picture(result, KERNELS["sobel_x"](), result)
    assert signed[0, :, 0].tolist() == [0, 128, 191, 255]
    assert rule == "black <= -400, mid-grey 0, white >= 400"
    magnitude, rule = as_picture(result.abs(), Sobel(), result)
    assert magnitude[0, :, 0].tolist() == [255, 0, 128, 255]
    assert rule == "black 0, white >= 400"
    cut, rule = as_picture(result, Box(), result)
    assert cut[0, :, 0].tolist() == [0, 0, 200, 255]
    assert rule == "black 0, white 255; 50 % lie outside"
    assert (as_picture(torch.zeros(1, 4, 4), Sobel(), torch.zeros(1, 4, 4))[0] == 0).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 6), (375, 500), (300, 2600), (1, 1500)])
def test_pictures_have_a_size_that_can_be_looked_at(height: int, width: int) -> None:
    image = np.full((height, width, 3), 7, dtype=np.uint8)
    picture = beside(image, [[[1.0, -1.0]]], image[:, :, :1], [["photo"], ["kernel"], ["result", "second line"]])
    assert 400 < picture.shape[1] < 2400
    assert picture.shape[0] < 1100


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a colour photo of 20 rows and 30 columns."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save("cat.png")
    return tmp_path


def run(line: str) -> int:
    return cli.main(["filter", *line.split()])


def test_the_command_tells_kernel_formula_sizes_and_range_and_writes_a_picture(folder: Path, capsys) -> None:
    before = Path("cat.png").read_bytes()
    assert run("image=cat.png kernel=sobel_x stride=2 padding=valid dilation=3") == 0
    told = capsys.readouterr().out
    with Image.open("cat.png") as photo:
        grey = np.asarray(photo.convert("L"), dtype=float)
    values = ndimage.correlate(grey, spread([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], 3))[3:-3:2, 3:-3:2]
    for part in (
        "  -2  0  2\n",
        "cat.png, 20 x 30, grey",
        "floor((20 + 0 - 3*2 - 1)/2) + 1 = 7",
        "floor((30 + 0 - 3*2 - 1)/2) + 1 = 12",
        f"7 x 12, values {values.min():.4g} to {values.max():.4g}",
        "written  cat_sobel_x.png",
    ):
        assert part in told
    assert max(map(len, told.splitlines())) <= 80
    with Image.open("cat_sobel_x.png") as picture:
        assert picture.mode == "RGB"
    assert Path("cat.png").read_bytes() == before
    assert sorted(file.name for file in folder.iterdir()) == ["cat.png", "cat_sobel_x.png"]


@pytest.mark.parametrize(
    ("words", "colors"),
    [
        ("kernel=box", "colour"),
        ("kernel=box gray=true", "grey"),
        ("kernel=gabor", "grey"),
        ("kernel=edge gray=false", "colour"),
        ("kernel=[[0,1,0],[1,-4,1],[0,1,0]]", "grey"),
        ("kernel=[[1/3,1/3,1/3]]", "colour"),
    ],
)
def test_edges_are_looked_for_in_grey_unless_told_otherwise(folder: Path, capsys, words: str, colors: str) -> None:
    assert run(f"image=cat.png {words} out=out.png") == 0
    assert f"20 x 30, {colors}, values" in capsys.readouterr().out


def test_a_turned_photo_is_filtered_upright_and_cmyk_and_16_bit_are_read(folder: Path, capsys) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    with Image.open("cat.png") as photo:
        photo.save("turned.jpg", exif=exif)
        photo.convert("CMYK").save("cmyk.jpg")
    Image.fromarray(np.full((20, 30), 65535, dtype=np.uint16)).save("deep.png")
    assert run("image=turned.jpg kernel=sobel") == 0
    assert "30 x 20, grey" in capsys.readouterr().out
    assert run("image=cmyk.jpg kernel=sharpen") == 0
    assert run("image=deep.png kernel=identity") == 0
    assert "values 255 to 255" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "code", "parts"),
    [
        ("", 2, ["image: missing", "kernel: missing"]),
        ("image=cat.png kernel=sobel_z", 2, ["no kernel sobel_z; did you mean sobel_y?"]),
        ("image=cat.png kernel=gausian sigma=2", 2, ["did you mean gaussian?"]),
        (
            "image=cat.png kernel=sobel sigma=2",
            2,
            ["sigma: this kernel has no sigma (given 2); gaussian and gabor have"],
        ),
        ("image=cat.png kernel=gaussian sgima=2", 2, ["did you mean sigma?"]),
        (
            "image=cat.png kernel=gaussian sigma=nan",
            2,
            ["sigma: must be a number >= 0.1 and <= 50 (given nan)"],
        ),
        ("image=cat.png kernel=box size=0 stride=x", 2, ["size: must be a whole number >= 1", "stride: must be"]),
        ("image=cat.png kernel=box padding=sme", 2, ["padding: must be same, valid or", "did you mean same?"]),
        ("image=cat.png kernel=box padding_mode=wrap", 2, ["padding_mode: must be one of zeros, reflect"]),
        ("image=cat.png kernel=[[1,2],[3]]", 2, ["kernel: must be rows of as many numbers"]),
        ("image=cat.png kernel=[[1e39]]", 2, ["none beyond 1,000,000"]),
        ("image=cat.png kernel=box out=.", 2, ["out: must end in .png"]),
        ("image=cat.png kernel=box out=~no-such-user/x.png", 6, ["out: ~no-such-user is no folder"]),
        ("cat.png kernel=box --fast", 2, ["did you mean image=cat.png?", "--fast: no flag of filter"]),
        ("image=cat.png kernel=box out=x.jpg", 2, ["out: must end in .png"]),
        ("image=cat.png kernel=box out=cat.png", 2, ["out: cat.png is the image itself"]),
        ("image=cat.png kernel=box out=no/x.png", 6, ["out: no is no folder"]),
        ("image=dog.png kernel=bax", 2, ["kernel: no kernel bax", "image: dog.png is not there"]),
        ("image=dog.png kernel=box", 3, ["image: dog.png is not there"]),
        ("image=. kernel=box", 3, ["image: . is a folder"]),
    ],
)
def test_faults_are_told_all_at_once(folder: Path, capsys, line: str, code: int, parts: list[str]) -> None:
    assert run(line) == code
    told = capsys.readouterr().err
    assert all(part in told for part in parts), told
    assert [file.name for file in folder.iterdir()] == ["cat.png"]


@pytest.mark.parametrize("words", ["", "padding=1000"])
def test_more_pixels_than_the_memory_holds_are_refused(folder: Path, monkeypatch, capsys, words: str) -> None:
    monkeypatch.setattr(convolve_module, "free_memory", lambda device: 50_000_000 if words else 90_000)
    assert run(f"image=cat.png kernel=box {words} out=out.png") == 7
    assert "image: cat.png takes " in capsys.readouterr().err
    assert not Path("out.png").exists()


@pytest.mark.parametrize("weight", ["-999999.5", "1e-300", "0.1234567", "123.456"])
def test_kernels_of_any_weights_are_printed_in_80_columns(folder: Path, capsys, weight: str) -> None:
    assert run(f"image=cat.png kernel=[[{','.join([weight] * 9)}]]") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_broken_image_names_itself(folder: Path, capsys) -> None:
    Path("cut.png").write_bytes(Path("cat.png").read_bytes()[:900])
    assert run("image=cut.png kernel=box") == 3
    assert "image: cut.png: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("kernel=box size=21 padding=valid", "floor((20 + 0 - 1*20 - 1)/1) + 1 = 0"),
        ("kernel=box size=41 padding_mode=reflect", "reflect adds 20 pixels and needs a map of 21"),
        ("kernel=box padding=21 padding_mode=circular", "circular adds 21 pixels and needs a map of 21"),
    ],
)
def test_a_kernel_that_does_not_fit_is_told_with_the_numbers(folder: Path, capsys, words: str, part: str) -> None:
    assert run(f"image=cat.png {words}") == 2
    assert part in capsys.readouterr().err


def test_faults_are_found_without_torch(folder: Path) -> None:
    code = "import sys; from cnntrain.cli import main; main(['filter', 'kernel=x']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0


def test_read_gives_typed_settings(folder: Path) -> None:
    line = ["image=cat.png", "kernel=gabor", "theta=45", "size=null", "gray=null", "padding=3"]
    args = read_arguments(FilterArgs, line)
    assert (args.gray, args.padding) == (None, "3")
    assert args.kernel == Gabor(theta=45.0)
