"""The page in a headless Chromium, code for code against Python."""

import json
import math

import pytest
import torch

import qat
from qat.data import DigitsDataModule
from qat.integer.builder import ProgramBuilder
from qat.integer.images import ImageScaling
from qat.integer.values import Grid, Weight, WeightGrid, float32
from qat.models import DigitsCNN

COLORS = ImageScaling(mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616))


@pytest.fixture(scope="module")
def digits():
    """(program, uint8 test images) of digits."""
    data = DigitsDataModule(limit=300)
    data.setup("fit")
    data.setup("test")
    torch.manual_seed(0)
    images = torch.cat([images for images, _ in data.test_dataloader()])
    program = qat.quantize(DigitsCNN(width=8).eval(), [next(iter(data.train_dataloader()))[0]], quant="w4a8")
    return program, (images * 16).to(torch.uint8)


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """The page of the digits, whose network takes bytes."""
    path = tmp_path_factory.mktemp("page") / "web"
    qat.export(digits[0].with_image_input(largest=16), path, runtime="web", labels=[f"digit {n}" for n in range(10)])
    return path


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
    """(program, folder) of a network of normalized colors."""
    builder = ProgramBuilder()
    x = builder.input("image", (3, 6, 8), Grid(float32(0.02), 128, 0, 255))
    codes = torch.arange(81).remainder(4).sub(2).to(torch.int8).reshape(3, 3, 3, 3)
    weight = Weight(codes, WeightGrid(2, 64, 32), torch.full((3,), float32(0.004)))
    y = builder.conv("conv", x, weight, Grid(float32(0.05), 100, 0, 255), stride=(2, 2))
    builder.output("scores", builder.mean("mean", y, (2, 3), Grid(float32(0.01), 120, 0, 255)))
    program = builder.build()
    path = tmp_path_factory.mktemp("colors") / "web"
    qat.export(program, path, runtime="web", image_scaling=COLORS)
    return program, path


def scores_of(page, pictures):
    """What the page makes of uint8 (N, C, H, W) pictures."""
    given = json.dumps(pictures.flatten(1).tolist())
    return torch.tensor(page.run(f"Promise.all({given}.map(classify))"), dtype=torch.float64)


def test_every_test_image_gives_the_codes_of_python(browser, served, digits, folder):
    program, pictures = digits
    page = browser.open(served(folder))
    expected = program.with_image_input(largest=16)(pictures)
    assert torch.equal(scores_of(page, pictures), expected.double())
    assert torch.equal(expected, program(pictures / 16))


def test_nothing_but_the_folder_is_asked_for(browser, served, folder):
    address = served(folder)
    page = browser.open(address)
    asked = page.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    origin = address.removesuffix("index.html")
    names = {name.removeprefix("blob:").removeprefix(origin) for name in asked if not name.startswith("blob:")}
    assert names == {
        "style.css", "app.js", "model.json", "model.onnx", "ort/ort.wasm.min.js", "ort/ort-wasm-simd-threaded.mjs",
        "ort/ort-wasm-simd-threaded.wasm",
    }  # fmt: skip


def test_a_page_opened_from_disk_gives_the_same(browser, digits, folder):
    program, pictures = digits
    page = browser.open(folder.joinpath("index.html").as_uri())
    assert torch.equal(scores_of(page, pictures[:9]), program(pictures[:9] / 16).double())


def test_normalized_colors_give_the_codes_of_python(browser, served, colors):
    program, folder = colors
    page = browser.open(served(folder))
    pictures = torch.randint(0, 256, (40, 3, 6, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(scores_of(page, pictures), program(COLORS.normalize(pictures)).double())


@pytest.mark.parametrize(
    "scaling",
    [COLORS, ImageScaling(), ImageScaling(mean=0.1307, std=0.3081), ImageScaling(largest=16, mean=(0.1, 0.2, 0.3))],
)
def test_every_pixel_becomes_the_float32_of_python(browser, served, colors, scaling):
    page = browser.open(served(colors[1]))
    pixels = torch.arange(256, dtype=torch.uint8).expand(1, 3, 256)
    settings = dict(mean=scaling.mean, std=scaling.std, largest=scaling.largest)
    settings |= dict(channels=3, height=1, width=256, dtype="float32", channels_last=False)
    found = page.run(f"Array.from(inputOf({pixels.flatten().tolist()}, {json.dumps(settings)}))")
    assert torch.equal(torch.tensor(found), scaling.normalize(pixels).flatten())


def shrunk(picture, width, height):
    """The mean of what lies under each pixel of the middle of a picture, (H, W, 3) numbers; halves up."""
    high, wide = len(picture), len(picture[0])
    step = min(wide / width, high / height)
    left, top = (wide - step * width) / 2, (high - step * height) / 2
    result = torch.zeros(height, width, 3, dtype=torch.uint8)
    for y in range(height):
        for x in range(width):
            sums, total = [0.0] * 3, 0.0
            x0, x1, y0, y1 = left + x * step, left + (x + 1) * step, top + y * step, top + (y + 1) * step
            for row in range(math.floor(y0), min(math.ceil(y1), high)):
                for column in range(math.floor(x0), min(math.ceil(x1), wide)):
                    share = (min(row + 1, y1) - max(row, y0)) * (min(column + 1, x1) - max(column, x0))
                    sums = [sum + share * color for sum, color in zip(sums, picture[row][column], strict=True)]
                    total += share
            result[y, x] = torch.tensor([math.floor(one / total + 0.5) for one in sums])
    return result


def shown(page):
    """(label, title) of the entries of the list."""
    entries = "[...document.querySelectorAll('#scores li')]"
    return page.run(f"{entries}.map((entry) => [entry.querySelector('b').textContent, entry.title])")


def ranked(scores, labels):
    """What the page shows of scores."""
    order = sorted(range(len(labels)), key=lambda place: -scores[place])
    return [labels[place] for place in order]


@pytest.mark.parametrize("size", [(30, 47), (6, 8), (5, 5)])
def test_a_picture_from_a_file_is_brought_to_the_size_of_the_input(browser, served, colors, tmp_path, size):
    image = pytest.importorskip("PIL.Image")
    program, folder = colors
    picture = torch.randint(0, 256, (*size, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    image.fromarray(picture.numpy()).save(tmp_path / "picture.png")
    page = browser.open(served(folder))
    page.choose("#file", tmp_path / "picture.png")
    page.wait_for("li")
    small = shrunk(picture.tolist(), 8, 6)
    pixels = page.run("Array.from(pixelsOf(shrunk(picture, 8, 6), model.input))")
    assert torch.equal(torch.tensor(pixels, dtype=torch.uint8), small.permute(2, 0, 1).flatten())
    scores = program(COLORS.normalize(small.permute(2, 0, 1)[None]))[0].tolist()
    assert sorted(shown(page)) == sorted(
        [str(place), f"score {json.dumps(score)}"] for place, score in enumerate(scores)
    )


def test_what_is_drawn_is_classified(browser, served, digits, folder):
    page = browser.open(served(folder))
    assert page.run("document.title") == "Integer classifier"
    assert shown(page) == []
    page.stroke("#pad", [(0.3, 0.1), (0.7, 0.1), (0.6, 0.5), (0.45, 0.9)])
    seen = "shrunk(ink.getImageData(0, 0, pad.width, pad.height), 8, 8)"
    pixels = torch.tensor(page.run(f"Array.from(pixelsOf({seen}, model.input))"), dtype=torch.uint8)
    assert pixels.max() == 16 and pixels.min() == 0
    scores = digits[0](pixels.reshape(1, 1, 8, 8) / 16)[0].tolist()
    found = shown(page)
    assert [label for label, _ in found] == ranked(scores, [f"digit {n}" for n in range(10)])
    assert float(found[0][1].removeprefix("score ")) == max(scores)
    assert len(page.screenshot()) > 10_000
    page.run("document.getElementById('clear').click()")
    assert shown(page) == []


def test_a_camera_that_is_not_there_is_told(browser, served, folder):
    page = browser.open(served(folder))
    page.run("take()")
    assert "The camera is not available" in page.run("document.getElementById('state').textContent")
