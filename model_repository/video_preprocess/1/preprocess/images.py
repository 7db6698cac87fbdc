"""Images: their size and their pixels, turned upright."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from preprocess.errors import InvalidArgumentError
from preprocess.frames import Picture
from preprocess.media import Library
from preprocess.messages import Attachment
from preprocess.size import Size


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
            return np.asarray(_upright_rgb(image))
        except (OSError, SyntaxError, ValueError) as error:
            raise InvalidArgumentError(f"{attachment.name} cannot be decoded: {error}") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Decodes and turns an image upright; transparency is laid on white, as transformers' image processors do."""
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return image.convert("RGB")
