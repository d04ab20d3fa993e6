"""Draw `fashion-mnist-mini.npz` from Fashion-MNIST: `python -m benchmark.datasets.draw DATA_ROOT`.

600 training and 100 test images of each class, chosen and shuffled with seed 0. Fashion-MNIST is
Copyright (c) 2017 Zalando SE, MIT licence (see LICENSE-fashion-mnist beside this file).
"""

import sys
from pathlib import Path

import numpy as np
from torchvision.datasets import FashionMNIST

TRAIN_PER_CLASS, TEST_PER_CLASS = 600, 100


def draw(data_root: Path, target: Path) -> None:
    """Write the subset; pixels and labels are the same every time."""
    rng = np.random.default_rng(0)
    parts = []
    for train, count in ((True, TRAIN_PER_CLASS), (False, TEST_PER_CLASS)):
        full = FashionMNIST(data_root, train=train)
        images, labels = full.data.numpy(), full.targets.numpy()
        chosen = [rng.choice(np.flatnonzero(labels == c), count, replace=False) for c in range(10)]
        order = rng.permutation(np.concatenate(chosen))
        parts.append((images[order].reshape(len(order), -1), labels[order].astype(np.uint8)))
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    np.savez_compressed(target, x=x, y=y, train_samples=len(parts[0][1]))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(__file__).parent / "fashion-mnist-mini.npz")
