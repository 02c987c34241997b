"""Ground-truth masks: however a tool encodes them, the same pixels come back, in one way for the whole set."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from defectflow.annotations.ground_truth import Ambiguous, choose, profile, read
from defectflow.core.files import UserError
from defectflow.images.read_write import write_png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

SIZE = (96, 128)


def blobs(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A mask with one to three defects, thick enough for a JPEG to keep them."""
    rng, mask = np.random.default_rng(seed), np.zeros(size, np.uint8)
    for _ in range(rng.integers(1, 4)):
        centre = (int(rng.integers(15, size[1] - 15)), int(rng.integers(15, size[0] - 15)))
        axes = (int(rng.integers(6, 13)), int(rng.integers(6, 13)))
        cv2.ellipse(mask, centre, axes, int(rng.integers(180)), 0, 360, 1, -1)
    return mask > 0


def two(background, defect, dtype=np.uint8):
    def encode(mask: np.ndarray, path: Path) -> None:
        Image.fromarray(np.where(mask, defect, background).astype(dtype)).save(path)

    return encode


def labels(*values, dtype=np.uint8, background=0):
    """Each defect gets another of the values."""

    def encode(mask: np.ndarray, path: Path) -> None:
        count, component = cv2.connectedComponents(mask.astype(np.uint8))
        table = np.array([background, *(values[k % len(values)] for k in range(count - 1))])
        Image.fromarray(table[component].astype(dtype)).save(path)

    return encode


def palette(colours: list[int], background: int = 0):
    def encode(mask: np.ndarray, path: Path) -> None:
        image = Image.fromarray(np.where(mask, 1 - background, background).astype(np.uint8))
        image.putpalette(colours)
        image.save(path)

    return encode


def rgb(background, defect, **options):
    def encode(mask: np.ndarray, path: Path) -> None:
        pixels = np.where(mask[..., None], defect, background).astype(np.uint8)
        Image.fromarray(pixels).save(path, **options)

    return encode


def rgba(background, defect):
    return rgb(background, defect)


def grey_jpeg(quality: int, high: int = 255, low: int = 0):
    def encode(mask: np.ndarray, path: Path) -> None:
        Image.fromarray(np.where(mask, high, low).astype(np.uint8)).save(path, "JPEG", quality=quality)

    return encode


def jpeg_in_png(mask: np.ndarray, path: Path) -> None:
    coded = cv2.imencode(".jpg", mask.astype(np.uint8) * 255, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    cv2.imwrite(str(path), cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))


def smooth(mask: np.ndarray, path: Path) -> None:
    """Drawn four times as large and scaled down, so that edges are grey."""
    large = cv2.resize(mask.astype(np.uint8) * 255, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(
        str(path), cv2.resize(cv2.GaussianBlur(large, (0, 0), 3), mask.shape[::-1], interpolation=cv2.INTER_AREA)
    )


def grey_alpha(mask: np.ndarray, path: Path) -> None:
    Image.fromarray(np.dstack([np.full(SIZE, 255, np.uint8), mask.astype(np.uint8) * 255]), "LA").save(path)


def transparent_palette(mask: np.ndarray, path: Path) -> None:
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([255, 255, 255, 255, 255, 255])
    image.save(path, transparency=0)


def one_bit(mask: np.ndarray, path: Path) -> None:
    Image.fromarray(mask).save(path)


EXACT = {
    "0 1": two(0, 1),
    "0 255": two(0, 255),
    "0 7": two(0, 7),
    "1 2": two(1, 2),
    "one bit": one_bit,
    "16 bits": two(0, 65535, np.uint16),
    "16-bit labels": labels(1, 300, 1001, dtype=np.uint16),
    "32-bit labels": labels(1, 70000, dtype=np.int32),
    "labels": labels(1, 2, 3),
    "labels and ignore": labels(1, 255),
    "grey labels": labels(80, 160, 255),
    "labels on 5": labels(1, 2, 3, background=5),
    "floats": two(0, 1, np.float32),
    "palette": palette([0, 0, 0, 128, 0, 0]),
    "faint palette": palette([0, 0, 0, 0, 0, 4]),
    "palette of one colour": palette([9, 9, 9, 9, 9, 9]),
    "white palette": palette([255, 255, 255, 200, 0, 0]),
    "palette with background 1": palette([255, 255, 255, 0, 0, 0], background=1),
    "palette with red 0": palette([255, 0, 0, 255, 255, 255], background=1),
    "red on black": rgb((0, 0, 0), (255, 0, 0)),
    "red on white": rgb((255, 255, 255), (255, 0, 0)),
    "faint blue": rgb((0, 0, 0), (0, 0, 4)),
    "white on black": rgb((0, 0, 0), (255, 255, 255)),
    "alpha, white": rgba((255, 255, 255, 0), (255, 255, 255, 255)),
    "alpha, black": rgba((0, 0, 0, 0), (0, 0, 0, 255)),
    "alpha, white on black": rgba((0, 0, 0, 0), (255, 255, 255, 255)),
    "alpha, red on white": rgba((255, 255, 255, 0), (255, 0, 0, 255)),
    "alpha, grey": grey_alpha,
    "alpha of a palette": transparent_palette,
    "alpha, half": rgba((0, 0, 0, 0), (255, 0, 0, 128)),
    "opaque, white on black": rgba((0, 0, 0, 255), (255, 255, 255, 255)),
    "opaque, red on black": rgba((0, 0, 0, 255), (255, 0, 0, 255)),
    "opaque, red on white": rgba((255, 255, 255, 255), (255, 0, 0, 255)),
    "all transparent": rgba((0, 0, 0, 0), (255, 255, 255, 0)),
}
CLOSE = {
    "jpeg 95": grey_jpeg(95),
    "jpeg 75": grey_jpeg(75),
    "jpeg of 0 and 128": grey_jpeg(75, 128),
    "jpeg of 60 and 200": grey_jpeg(90, 200, 60),
    "jpeg in png": jpeg_in_png,
    "smooth": smooth,
    "red jpeg": rgb((0, 0, 0), (255, 0, 0), format="JPEG", quality=95, subsampling=0),
    "red jpeg on white": rgb((255, 255, 255), (255, 0, 0), format="JPEG", quality=95, subsampling=0),
}


def read_back(folder: Path, encode, masks: list[np.ndarray]) -> tuple[list[np.ndarray], str]:
    paths = [folder / f"{number}.{'tif' if encode is EXACT['floats'] else 'png'}" for number in range(len(masks))]
    if encode is EXACT["32-bit labels"]:
        paths = [path.with_suffix(".tif") for path in paths]
    for mask, path in zip(masks, paths, strict=True):
        encode(mask, path)
    reading = choose(profile(path) for path in paths)
    return [read(path, reading) for path in paths], reading.text


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


many = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4)


@pytest.mark.parametrize("name", EXACT)
@many
@given(seeds=seeds)
def test_a_mask_comes_back_as_it_was_encoded(name, seeds, tmp_path):
    masks = [blobs(seed) for seed in seeds]
    found, _ = read_back(tmp_path, EXACT[name], masks)
    for mask, again in zip(masks, found, strict=True):
        assert again.dtype == bool and (again == mask).all()


@pytest.mark.parametrize("name", CLOSE)
@many
@given(seeds=seeds)
def test_soft_edges_are_cut_at_half(name, seeds, tmp_path):
    masks = [blobs(seed) for seed in seeds]
    found, text = read_back(tmp_path, CLOSE[name], masks)
    for mask, again in zip(masks, found, strict=True):
        assert iou(mask, again) > 0.95
    assert "half" in text


def test_masks_without_a_defect_are_read_as_the_others_are(tmp_path):
    masks = [blobs(1), np.zeros(SIZE, bool)]
    for name, encode in (EXACT | CLOSE).items():
        if name not in ("palette of one colour", "1 2", "labels on 5"):  # an empty one has no second value to tell
            assert not read_back(tmp_path, encode, masks)[0][1].any(), name


def test_only_what_is_not_plain_is_told(tmp_path):
    for name in ("0 1", "0 255", "0 7", "one bit", "white on black", "opaque, white on black"):
        assert read_back(tmp_path, EXACT[name], [blobs(1)])[1] == "", name
    assert read_back(tmp_path, EXACT["1 2"], [blobs(1)])[1] == (
        "two values: 1 is background, the most frequent value, 2 mark defects"
    )
    assert "transparent" in read_back(tmp_path, EXACT["alpha, white"], [blobs(1)])[1]
    assert read_back(tmp_path, EXACT["red on white"], [blobs(1)])[1] == (
        "colours: white is background, #ff0000 mark defects"
    )


def test_thin_scratches_of_a_label_map_stay(tmp_path):
    pixels = np.zeros(SIZE, np.uint8)
    pixels[20, 10:60], pixels[40, 10:60], pixels[60, 10:60] = 60, 120, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png", choose([profile(tmp_path / "a.png")])) == (pixels > 0)).all()


def test_a_mask_is_turned_as_its_photograph_is(tmp_path):
    mask = blobs(3)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.rot90(mask).astype(np.uint8) * 255).save(tmp_path / "a.jpg", quality=95, exif=exif)
    assert iou(read(tmp_path / "a.jpg", choose([profile(tmp_path / "a.jpg")])), mask) > 0.95


def photograph(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.GaussianBlur(rng.integers(0, 256, (*SIZE, 3), np.uint8), (0, 0), 2) * 2


def on_photograph(mask: np.ndarray, path: Path) -> None:
    Image.fromarray(np.where(mask[..., None], (255, 0, 0), photograph()).astype(np.uint8)).save(path)


def part_in_alpha(mask: np.ndarray, path: Path) -> None:
    """The defect white on black, the part in the alpha channel."""
    alpha = np.zeros(SIZE, np.uint8)
    alpha[5:-5, 5:-5] = 255
    Image.fromarray(np.dstack([mask.astype(np.uint8) * 255] * 3 + [alpha])).save(path)


def cut_out(mask: np.ndarray, path: Path) -> None:
    """The defect itself, on black."""
    noise = np.random.default_rng(1).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    Image.fromarray(np.where(mask[..., None], cv2.GaussianBlur(noise, (0, 0), 1), 0).astype(np.uint8)).save(path)


def grey_cut_out(mask: np.ndarray, path: Path) -> None:
    noise = np.random.default_rng(2).integers(20, 256, mask.shape)
    Image.fromarray(np.where(mask, noise, 0).astype(np.uint8)).save(path)


def grey_photograph(mask: np.ndarray, path: Path) -> None:
    ramp = np.linspace(0, 255, SIZE[1]).astype(np.uint8) * np.ones((SIZE[0], 1), np.uint8)
    Image.fromarray(ramp).save(path, "JPEG")


def faint_jpeg(mask: np.ndarray, path: Path) -> None:
    Image.fromarray(mask.astype(np.uint8) * 20).save(path, "JPEG", quality=60)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (on_photograph, "no colour that is most of the picture"),
        (cut_out, "many colours, as a photograph"),
        (part_in_alpha, "alpha channel marks one thing"),
        (grey_photograph, "all values, as a photograph"),
        (faint_jpeg, "soft and between"),
    ],
)
def test_what_can_mean_two_things_is_not_read(encode, message, tmp_path):
    with pytest.raises(Ambiguous, match=message):
        read_back(tmp_path, encode, [blobs(1), blobs(2)])


def test_a_mask_without_the_channel_of_the_others_is_refused(tmp_path):
    EXACT["alpha, white"](blobs(1), tmp_path / "a.png")
    write_png(tmp_path / "b.png", blobs(2))
    reading = choose(profile(tmp_path / f"{name}.png") for name in "ab")
    with pytest.raises(UserError, match="no alpha channel"):
        read(tmp_path / "b.png", reading)


def test_a_grey_cut_out_of_the_defect_is_never_cut_at_half(tmp_path):
    masks = [blobs(1), blobs(2)]
    try:
        found, _ = read_back(tmp_path, grey_cut_out, masks)
    except Ambiguous:
        return
    assert all((again == mask).all() for again, mask in zip(found, masks, strict=True))
