"""Reading of films: depth, colour, rotation, damage; and the crop's place in the film."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from cxr.files import InputError
from cxr.images import Crop, open_film
from cxr.pixels.tensors import read_square, resize, to_unit


def test_crop_of_a_landscape_and_a_portrait_film():
    assert Crop.centred(2828, 2320) == Crop(2828, 2320, left=254, top=0, side=2320)
    assert Crop.centred(5, 8) == Crop(5, 8, left=0, top=1, side=5)
    assert Crop.centred(5, 8).box == (0, 1, 5, 6)


def test_film_coordinates_of_a_crop_are_exact_at_the_corners():
    crop = Crop.centred(2828, 2320)
    assert crop.to_film(0, 0, 512) == (254, 0)
    assert crop.to_film(512, 512, 512) == (254 + 2320, 2320)
    assert crop.to_film(100.25, 7.5, 512) == pytest.approx((254 + 100.25 * 2320 / 512, 7.5 * 2320 / 512))


def test_sixteen_bit_is_scaled_and_eight_bit_is_kept(tmp_path):
    deep = np.array([[0, 65535], [257 * 128, 257]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    flat = np.array([[0, 255], [128, 1]], dtype=np.uint8)
    Image.fromarray(flat).save(tmp_path / "flat.png")
    expected = torch.from_numpy(flat)[None] / 255
    torch.testing.assert_close(to_unit(open_film(tmp_path / "flat.png")), expected, rtol=0, atol=0)
    torch.testing.assert_close(to_unit(open_film(tmp_path / "deep.png")), expected, rtol=0, atol=1e-6)


def test_colour_becomes_grey_and_alpha_is_dropped(tmp_path):
    Image.new("RGBA", (4, 3), (255, 0, 0, 10)).save(tmp_path / "c.png")
    film = open_film(tmp_path / "c.png")
    assert film.mode == "L"
    assert film.getpixel((0, 0)) == 76  # ITU-R 601-2 luma of pure red


def test_a_film_turned_by_exif_is_read_upright(tmp_path):
    pixels = np.zeros((4, 8), dtype=np.uint8)
    pixels[:, 4:] = 255  # right half bright as stored
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees clockwise
    image.save(tmp_path / "t.png", exif=exif)
    upright = np.asarray(open_film(tmp_path / "t.png"))
    assert upright.shape == (8, 4)
    assert (upright[:4] == 0).all()
    assert (upright[4:] == 255).all()


def test_colours_of_print_and_palettes_become_grey_without_a_warning(tmp_path, recwarn):
    grey = Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8))
    grey.convert("RGB").convert("CMYK").save(tmp_path / "print.jpg", quality=100, subsampling=0)
    grey.convert("P").save(tmp_path / "palette.png", transparency=bytes(range(256)))
    for name in ("print.jpg", "palette.png"):
        np.testing.assert_allclose(np.asarray(open_film(tmp_path / name)).astype(int), np.asarray(grey), atol=2)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("pages.tif", {"save_all": True, "append_images": [Image.new("L", (8, 8), 9)]}, "2 pages or frames; save the"),
        ("moving.gif", {"save_all": True, "append_images": [Image.new("L", (8, 8), 9)]}, "2 pages or frames; save the"),
        ("lab.tif", {}, "colours of the kind LAB; save it in grey or RGB"),
        ("undefined.tif", {}, "pixel values that are not finite numbers"),
    ],
)
def test_what_is_no_single_picture_of_known_grey_is_refused(tmp_path, name, options, told):
    pictures = {"lab.tif": Image.new("LAB", (8, 8)), "undefined.tif": Image.new("F", (8, 8), float("nan"))}
    pictures.get(name, Image.new("L", (8, 8))).save(tmp_path / name, **options)
    with pytest.raises(InputError) as caught:
        open_film(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: {told}")


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "missing"])
def test_damage_is_an_error_that_names_the_film(tmp_path, damage):
    path = tmp_path / "film.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    content = {"truncated": path.read_bytes()[:1500], "empty": b"", "text": b"Path,No Finding\n"}
    path.unlink() if damage == "missing" else path.write_bytes(content[damage])
    with pytest.raises(InputError) as caught:
        open_film(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_square_and_resize_follow_the_published_preprocessing(sample):
    path = sample / "valid/patient64541/study1/view1_frontal.jpg"
    square, crop = read_square(path)
    assert square.shape == (1, 2320, 2320)
    with Image.open(path) as film:
        published = film.convert("L").crop((254, 0, 254 + 2320, 2320))
    expected = v2.Resize(size=(512, 512), antialias=True)(v2.functional.pil_to_tensor(published) / 255)
    torch.testing.assert_close(resize(square, 512), expected, rtol=0, atol=1e-6)
    assert crop.side == 2320


def test_a_tiff_with_damaged_tags_is_refused_in_silence(tmp_path, recwarn):
    """The tag of its width claims more values than the file holds, and 7 bits are no depth that Pillow knows."""
    entries = [(256, 4, 10**6, 8), (257, 3, 1, 8), (258, 3, 1, 7)]
    content = b"II*\0" + struct.pack("<IH", 8, len(entries))
    content += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match="a TIFF of 7 bits .* that is not supported"):
        open_film(tmp_path / "a.tif")
    assert not recwarn.list
