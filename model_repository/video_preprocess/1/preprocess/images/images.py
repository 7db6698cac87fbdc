"""Images: their size and their pixels, turned upright; how they are opened, and what decoding them takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from preprocess.errors import InvalidArgumentError
from preprocess.images.jpeg_scans import MAX_SCANNED_PIXELS, MAX_SCANS, count_scans
from preprocess.images.webp import HEAD_BYTES, webp_size
from preprocess.media.attachment import Attachment
from preprocess.media.frames import Picture
from preprocess.media.library import OWN_BYTES, Library, path_of
from preprocess.media.size import Size

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_OF_SCANS = ("JPEG", "MPO")
"""The formats, as Pillow names them, of images that begin as a JPEG file does."""
_PIXELS_AT_ONCE = 1 << 20
# Memory for each pixel: decoded (4), upright RGB (3), shared with the stage (3), resized (1), and a little. While a
# progressive JPEG is read, its coefficients take as much as what comes after. A WebP has two pictures more of 4.
_PIXEL_BYTES = 12
_WEBP_PIXEL_BYTES = 20
# The bound is ours (Library.max_frame_pixels), and checked with a message that names the picture.
Image.MAX_IMAGE_PIXELS = None


@contextmanager
def open_image(library: Library, attachment: Attachment) -> Iterator[Image.Image]:
    """Reads an image's header; raises InvalidArgumentError if it is none or too large."""
    with library.open_file(attachment) as file:
        if size := webp_size(os.pread(file, HEAD_BYTES, 0)):
            _check(library, size, "WEBP", attachment.name)
        try:
            image = Image.open(path_of(file), formats=FORMATS)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise InvalidArgumentError(
                f"{attachment.name} is not a readable image; {', '.join(FORMATS)} are accepted"
            ) from error
        with image:
            size = Size(image.height, image.width)
            if image.format in _OF_SCANS:
                _check_scans(file, size, attachment.name)
            _check(library, size, image.format, attachment.name)
            yield image


def image_bytes(size: Size, format_: str | None) -> int:
    """The memory that it takes to decode an image of a format, as Pillow names it, and to hand it to the stage."""
    return OWN_BYTES + size.height * size.width * (_WEBP_PIXEL_BYTES if format_ == "WEBP" else _PIXEL_BYTES)


def _check(library: Library, size: Size, format_: str | None, name: str) -> None:
    library.check_size(size, name)
    library.demand(image_bytes(size, format_))


def _check_scans(file: int, size: Size, name: str) -> None:
    most = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(size.height * size.width, 1))
    if count_scans(file) > most:
        raise InvalidArgumentError(
            f"{name} has more than {most} scans, the most accepted in a JPEG image of {size.width}x{size.height} pixels"
        )


def read_image_size(library: Library, attachment: Attachment) -> Size:
    """The size once the camera's orientation (EXIF) is applied. Raises InvalidArgumentError where that is damaged."""
    with open_image(library, attachment) as image:
        try:
            orientation = image.getexif().get(0x0112)
        except (OSError, SyntaxError, ValueError) as error:
            # A PNG may have it behind its pixels, which are decoded on the way.
            raise InvalidArgumentError(f"{attachment.name}: cannot be decoded: {error}") from error
        if orientation in (5, 6, 7, 8):
            return Size(image.width, image.height)
        return Size(image.height, image.width)


def decode_image(library: Library, attachment: Attachment) -> Picture:
    with open_image(library, attachment) as image:
        try:
            return _upright_rgb(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise InvalidArgumentError(f"{attachment.name} cannot be decoded: {error}") from error


def _upright_rgb(image: Image.Image) -> Picture:
    """Decodes and turns an image upright, and converts it row by row: several copies of it would be large."""
    ImageOps.exif_transpose(image, in_place=True)
    image.load()
    picture = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(_PIXELS_AT_ONCE // image.width, 1)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        picture[top : top + rows] = np.asarray(_on_white(strip))
    return picture


def _on_white(image: Image.Image) -> Image.Image:
    """In RGB; transparency is laid on white, as transformers' image processors do."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return image.convert("RGB")
