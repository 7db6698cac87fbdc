"""Draw the sample video of the demo and the strip of its frames that the README shows.

python -m build.demo_checkpoint.draw_sample_video
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from build.demo_checkpoint.training.served import look_at
from build.demo_checkpoint.world.video import decode, write_video
from build.demo_checkpoint.world.world import HEIGHT, WIDTH, make_script

EXAMPLES = Path(__file__).parents[2] / "client" / "examples"
SEED = 41
SECONDS = 16.0
FRAMES_PER_ROW = 8
CAPTION_PIXELS = 14
FRAME_PIXELS = (WIDTH + 4, HEIGHT + CAPTION_PIXELS + 4)
"""With the caption and the gap to the next frame."""


def draw_strip(video: Path, picture: Path) -> None:
    """The first frame of each temporal patch that the served sampler looks at, under its timestamp."""
    file = video.read_bytes()
    seen = look_at(file)
    frames = decode(file)[seen.frames[:, 0]]
    rows = -(-len(frames) // FRAMES_PER_ROW)
    strip = Image.new("RGB", (FRAMES_PER_ROW * FRAME_PIXELS[0], rows * FRAME_PIXELS[1]), "white")
    pen = ImageDraw.Draw(strip)
    for index, (frame, timestamp) in enumerate(zip(frames, seen.timestamps, strict=True)):
        row, column = divmod(index, FRAMES_PER_ROW)
        left, top = column * FRAME_PIXELS[0], row * FRAME_PIXELS[1]
        pen.text((left, top), f"{timestamp} s", fill="black", font=ImageFont.load_default(11))
        strip.paste(Image.fromarray(frame), (left, top + CAPTION_PIXELS))
    strip.quantize(96).save(picture, optimize=True)


if __name__ == "__main__":
    write_video(EXAMPLES / "scenes.mp4", make_script(np.random.default_rng(SEED), duration=SECONDS))
    draw_strip(EXAMPLES / "scenes.mp4", EXAMPLES / "scenes.png")
