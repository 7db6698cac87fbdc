"""One peer reading one video, run by the peers' own Python (peers.py): prints what it took as one line of JSON.

python -m perf.support.peer ssim|torchcodec|decord|torchvision VIDEO FRAMES
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

SSIM_THRESHOLD = 0.1
MODEL_PATCH_PIXELS = 16


Read = Callable[[str, int], Sequence[float]]
"""Reads so many frames of a video, all at once, resized; gives their times in seconds as the peer knows them."""


def qwen_vl_utils(backend: str) -> Read:
    """The function that a user of the reference calls."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from qwen_vl_utils import vision_process

    # fetch_video answers a backend's failure with another backend: this one or none.
    reader = vision_process.VIDEO_READER_BACKENDS[backend]
    vision_process.VIDEO_READER_BACKENDS = dict.fromkeys(vision_process.VIDEO_READER_BACKENDS, reader)
    vision_process.logger.setLevel("ERROR")

    def read(video: str, frames: int) -> Sequence[float]:
        _, metadata = vision_process.fetch_video(
            {"video": video, "nframes": frames}, image_patch_size=MODEL_PATCH_PIXELS, return_video_metadata=True
        )
        return [float(index) / metadata["fps"] for index in metadata["frames_indices"]]

    return read


def ssim() -> Read:
    """The loop that articles show: a frame is compared with the last one kept. Of too many, some are taken evenly."""
    import cv2
    from skimage.metrics import structural_similarity

    def read(video: str, frames: int) -> Sequence[float]:
        capture = cv2.VideoCapture(video)
        fps = capture.get(cv2.CAP_PROP_FPS)
        kept: list[float] = []
        last = None
        index = 0
        while True:
            there, picture = capture.read()
            if not there:
                break
            grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
            if last is None or 1 - structural_similarity(last, grey) > SSIM_THRESHOLD:
                last = grey
                kept.append(index / fps)
                cv2.resize(picture, (448, 256), interpolation=cv2.INTER_CUBIC)
            index += 1
        if len(kept) <= frames:
            return kept
        return [kept[place] for place in np.linspace(0, len(kept) - 1, frames).round().astype(int)]

    return read


def main() -> None:
    peer, video, frames = sys.argv[1], sys.argv[2], int(sys.argv[3])
    read = ssim() if peer == "ssim" else qwen_vl_utils(peer)
    # Imports are not counted: a server has made them long ago.
    started = time.perf_counter()
    times = read(video, frames)
    seconds = time.perf_counter() - started
    # Since exec: the peak that getrusage tells begins with the size of the process that started this one.
    status = Path("/proc/self/status").read_text().splitlines()
    peak_mb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "times": times}))


if __name__ == "__main__":
    main()
