"""Make `resnet.onnx`: a residual network of 8 layers that reads handwritten digits of 16×16, in two minutes on a core.

    python examples/ensemble/train_resnet.py

The digits are scikit-learn's without those of `../digits_held_out.npz`, drawn as the pictures that clients send. The
network is that of K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", section 4.2, with
n = 1 and half of the maps. Needs torch, scikit-learn, Pillow and onnx.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from training.export.graph import strip

HELD_OUT = Path(__file__).parents[1] / "digits_held_out.npz"
RESNET = Path(__file__).with_name("resnet.onnx")
SIDE = 16
MEAN, STD = 0.3, 0.35
"""Of ink in these pictures, roughly; the model `digit_pixels` of the ensemble subtracts and divides."""
EPOCHS = 25
BATCH = 64


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut, (N, D, H, W) → (N, width, H/stride, W/stride)."""

    def __init__(self, depth: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(depth, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(depth, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def resnet() -> nn.Sequential:
    """(N, 1, 16, 16) → (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Block(8, 8, 1),
        Block(8, 16, 2),
        Block(16, 32, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def pixels(images: np.ndarray, upscale: np.ndarray) -> Tensor:
    """8×8 digits of 0..16 as the network reads them: drawn dark on light at 32×32, and made smaller as servers do."""
    ink = upscale @ images.astype(np.float32) @ upscale.T / 16
    drawn = np.rint(255 * (1 - ink)).clip(0, 255).astype(np.uint8)
    small = [np.asarray(Image.fromarray(each).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for each in drawn]
    return (1 - torch.from_numpy(np.stack(small)).float().unsqueeze(1) / 255 - MEAN) / STD


def moved(batch: Tensor) -> Tensor:
    """Each picture turned, scaled and shifted a little."""
    count = len(batch)
    angle, scale = (torch.rand(count) - 0.5) * 0.4, 1 + (torch.rand(count) - 0.5) * 0.2
    shift = (torch.rand(count, 2) - 0.5) * 0.2
    rows = [
        torch.stack([torch.cos(angle) * scale, -torch.sin(angle) * scale, shift[:, 0]], 1),
        torch.stack([torch.sin(angle) * scale, torch.cos(angle) * scale, shift[:, 1]], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(batch.shape), align_corners=False)
    return functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)


def main() -> None:
    torch.manual_seed(0)
    held_out, digits = np.load(HELD_OUT), load_digits()
    known = {image.tobytes() for image in held_out["images"]}
    images = digits.images.astype(np.uint8)
    kept = [n for n, image in enumerate(images) if image.tobytes() not in known]
    x, y = pixels(images[kept], held_out["upscale"]), torch.from_numpy(digits.target[kept]).long()
    network = resnet()
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    for epoch in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]:
            loss = functional.cross_entropy(network(moved(x[chosen])), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
    network.eval()
    with torch.no_grad():
        answers = network(pixels(held_out["images"], held_out["upscale"])).argmax(1).numpy()
    print(
        f"held-out accuracy {np.mean(answers == held_out['labels']):.4f} on {len(answers)} digits, {len(x)} trained on"
    )
    program = torch.onnx.export(
        network,
        (x[:2],),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"input": {0: torch.export.Dim("rows")}},
        dynamo=True,
    )
    assert program is not None, "that is what dynamo=True returns"
    model = program.model_proto
    strip(model)
    RESNET.write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
