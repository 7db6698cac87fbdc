"""Images: their size and their pixels, turned upright."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from preprocess.errors import InvalidArgumentError
from preprocess.media.frames import Picture
from preprocess.media.library import Library
from preprocess.media.size import Size
from preprocess.request.messages import Attachment

_PIXELS_AT_ONCE = 1 << 20


def read_image_size(library: Library, attachment: Attachment) -> Size:
    """The size once the camera's orientation (EXIF) is applied. Raises InvalidArgumentError where that is damaged."""
    with library.open_image(attachment) as image:
        try:
            orientation = image.getexif().get(0x0112)
        except (OSError, SyntaxError, ValueError) as error:
            # A PNG may have it behind its pixels, which are decoded on the way.
            raise InvalidArgumentError(f"{attachment.name}: cannot be decoded: {error}") from error
        if orientation in (5, 6, 7, 8):
            return Size(image.width, image.height)
        return Size(image.height, image.width)


def decode_image(library: Library, attachment: Attachment) -> Picture:
    with library.open_image(attachment) as image:
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
