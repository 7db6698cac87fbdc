"""The size of a WebP image, known before it is opened."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from preprocess.images.webp import HEAD_BYTES, webp_size
from preprocess.media.size import Size
from tests.support import media


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"mode": "RGBA"}, {"save_all": True}])
def test_the_size_of_a_webp_is_known_from_its_first_bytes(options: dict[str, Any]) -> None:
    image = Image.new(options.pop("mode", "RGB"), (321, 45), (1, 2, 3))
    target = io.BytesIO()
    if options.get("save_all"):
        options["append_images"] = [Image.new("RGB", image.size, (9, 8, 7))]
    image.save(target, "WEBP", **options)
    assert webp_size(target.getvalue()[:HEAD_BYTES]) == Size(45, 321)
    assert webp_size(target.getvalue()[: HEAD_BYTES - 1]) is None
    assert webp_size(media.make_image()[:HEAD_BYTES]) is None
