"""Draw the sample video of the demo and the strip of its frames that the README shows.

python build/draw_sample_video.py
"""

from pathlib import Path

import numpy as np
from demo_checkpoint.served import look_at
from demo_checkpoint.video import decode, write_video
from demo_checkpoint.world import HEIGHT, WIDTH, make_script
from PIL import Image, ImageDraw, ImageFont

EXAMPLES = Path(__file__).parents[1] / "client" / "examples"
SEED = 0
SECONDS = 12.0
CAPTION_PIXELS = 14
GAP_PIXELS = 4


def draw_strip(video: Path, picture: Path) -> None:
    """The first frame of each temporal patch that the served sampler looks at, under its timestamp."""
    file = video.read_bytes()
    seen = look_at(file)
    frames = decode(file)[seen.frames[:, 0]]
    strip = Image.new("RGB", (len(frames) * (WIDTH + GAP_PIXELS) - GAP_PIXELS, HEIGHT + CAPTION_PIXELS), "white")
    pen = ImageDraw.Draw(strip)
    for index, (frame, timestamp) in enumerate(zip(frames, seen.timestamps, strict=True)):
        left = index * (WIDTH + GAP_PIXELS)
        pen.text((left, 0), f"{timestamp} s", fill="black", font=ImageFont.load_default(11))
        strip.paste(Image.fromarray(frame), (left, CAPTION_PIXELS))
    strip.save(picture, optimize=True)


if __name__ == "__main__":
    write_video(EXAMPLES / "scenes.mp4", make_script(np.random.default_rng(SEED), duration=SECONDS))
    draw_strip(EXAMPLES / "scenes.mp4", EXAMPLES / "scenes.png")
