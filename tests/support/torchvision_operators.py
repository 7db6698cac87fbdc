"""Lets torchvision be imported beside a CPU build of PyTorch.

The reference processor needs torchvision, which has no CPU build. Its ordinary wheel imports once the two operators
that its compiled part would have registered are declared; what the processor uses of it is plain PyTorch.
"""

import torch

_OPERATORS = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
