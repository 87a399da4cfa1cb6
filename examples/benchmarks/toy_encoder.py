"""A small image encoder in place of a pretrained foundation model, trained in minutes on separate images.

Some patches of its input are blank. For every patch it predicts a description of the brightness (the spectrum,
which does not depend on where in the patch a texture begins) and, if there are labels, the share that each
class covers. Its images are not among those that the 3D networks are trained on.

Source: masked prediction of patch descriptors as in Wei 2022, arXiv:2112.09133. Differs: spectra instead of
histograms of gradients; visible patches count, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from dinomed3d.lifting import DinoEncoder, build_encoder
from dinomed3d.lifting.dino import LVD_MEAN, LVD_STD

NAME = "vit_small_patch16_dinov3"
CONFIG: dict[str, Any] = {
    "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2, "mlp_ratio": 4, "init_values": 1.0,
}  # fmt: skip
PATCH = CONFIG["patch_size"]
AROUND = 16
"""Side of the described square around a patch, pixels."""
BATCH, BLANK, LR = 8, 0.3, 2e-3
CROP = (15, 20)
"""Height and width of the training crops in patches; every fourth batch has whole images."""
TARGETS = 40
"""Number of principal components of the descriptions that are predicted."""


def describe(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, D) descriptions of the squares around the patches: spectrum, contrast and skewness of the brightness."""
    edge = (AROUND - PATCH) // 2
    wide = np.pad(image.astype(np.float32).mean(2), edge, mode="reflect")
    squares = np.lib.stride_tricks.sliding_window_view(wide, (AROUND, AROUND))
    grey = squares[::PATCH, ::PATCH].reshape(-1, AROUND, AROUND)
    contrast = grey / (grey.mean((1, 2), keepdims=True) + 5) - 1
    window = np.hanning(AROUND + 2)[1:-1]
    waves = np.abs(np.fft.rfft2(contrast * np.outer(window, window)))
    steps = [np.abs(np.diff(contrast, axis=axis)).mean((1, 2)) for axis in (1, 2)]
    uneven = np.log(np.stack([contrast.std((1, 2)), *steps], 1) + 0.02)
    lopsided = np.cbrt((contrast**3).mean((1, 2)))[:, None]
    rows = [np.log(waves + 0.3).reshape(len(grey), -1), uneven, lopsided]
    return np.concatenate(rows, 1).astype(np.float32)


class Targets:
    """Whitened principal components of the descriptions."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        rows = np.concatenate([describe(image) for image in images])
        self.mean, self.scale = rows.mean(0), rows.std(0) + 1e-6
        self.scale[-4:] /= (
            4  # the four statistics count as much as the hundred values of the spectrum
        )
        self.axes = np.linalg.svd(self.of(rows), full_matrices=False)[2][:TARGETS].T
        self.sizes = np.sqrt((self.of(rows) @ self.axes).std(0))

    def of(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return (rows - self.mean) / self.scale

    def __call__(self, image: NDArray[np.uint8]) -> Tensor:
        """(n, TARGETS) float32."""
        found = self.of(describe(image)) @ self.axes / self.sizes
        return torch.from_numpy(found.astype(np.float32))


def new_encoder(weights: str | Path = "none") -> DinoEncoder:
    """An encoder that gives the last block's patch tokens after the final norm, as pointseg reads them."""
    return build_encoder(NAME, weights=weights, frozen=False, taps=(CONFIG["depth"] - 1,), **CONFIG)


def pretrain(
    images: NDArray[np.uint8],
    segments: NDArray[np.int32] | None,
    *,
    steps: int,
    seed: int,
    log: Callable[[str], None],
) -> DinoEncoder:
    """Train an encoder on images.

    Args:
        images: (M, H, W, 3).
        segments: (M, H, W) classes, -1 for none; None trains without labels.
        steps: of BATCH crops each.
        seed: of weights and crops.
        log: called with the progress.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    targets_of = Targets(images[:: max(1, len(images) // 40)])
    grid = tuple(side // PATCH for side in images.shape[1:3])
    targets = torch.stack([targets_of(image) for image in images]).unflatten(1, grid)
    shares = targets[..., :0]
    if segments is not None:
        shares = torch.stack([class_shares(s, segments.max() + 1) for s in segments]).unflatten(
            1, grid
        )
    rarity = 1 / (shares.mean((0, 1, 2)) + 1e-3).sqrt()
    encoder, head = new_encoder(), nn.Linear(CONFIG["embed_dim"], TARGETS + shares.shape[3])
    _start(encoder)
    weights = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, LR, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=0.1)
    losses = []
    for step in range(steps):
        crops = _crops(rng, len(images), grid, whole=step % 4 == 0)
        shown = torch.stack([_normalised(_pixels(images, crop), rng) for crop in crops])
        target, truth = (
            torch.stack([values[crop] for crop in crops]) for values in (targets, shares)
        )
        keep = torch.from_numpy(rng.random((len(crops), 1, *target.shape[1:3])) > BLANK)
        shown = shown * keep.float().repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)
        predicted, classes = head(_tokens(encoder, shown)).split([TARGETS, shares.shape[3]], -1)
        loss = F.mse_loss(predicted, target.flatten(1, 2))
        if segments is not None:
            weighted = truth.flatten(1, 2) * rarity
            loss = loss - (weighted * classes.log_softmax(-1)).sum() / weighted.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if (step + 1) % max(1, steps // 5) == 0:
            log(f"encoder: step {step + 1} of {steps}, loss {np.mean(losses[-50:]):.3f}")
    encoder.freeze()
    return encoder


def class_shares(segment: NDArray[np.int32], classes: int) -> Tensor:
    """(n, classes) the share of each patch that each class covers."""
    height, width = (side // PATCH for side in segment.shape)
    inner = segment[: height * PATCH, : width * PATCH].reshape(height, PATCH, width, PATCH)
    rows = torch.from_numpy(inner.swapaxes(1, 2).reshape(-1, PATCH * PATCH))
    return torch.stack([(rows == label).float().mean(1) for label in range(classes)], 1)


def save(encoder: DinoEncoder, path: Path) -> None:
    """Write weights that ``build_encoder`` reads."""
    state = {name: values.contiguous() for name, values in encoder.vit.state_dict().items()}
    save_file(state, path)


def labelled_patches(
    encoder: DinoEncoder, images: NDArray[np.uint8], segments: NDArray[np.int32]
) -> tuple[Tensor, Tensor]:
    """(n, C) features and (n,) classes of the patches of which one class covers at least half."""
    features, labels = [], []
    for image, segment in zip(images, segments, strict=True):
        with torch.inference_mode():
            features.append(_tokens(encoder, _normalised(image)[None])[0])
        share, most = class_shares(segment, segments.max() + 1).max(1)
        labels.append(torch.where(share >= 0.5, most, -1))
    found, classes = torch.cat(features).clone(), torch.cat(labels)
    return found[classes >= 0], classes[classes >= 0]


def linear_probe(
    learn: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, classes: int, seed: int = 0
) -> float:
    """Accuracy of a linear layer that is trained on frozen features."""
    torch.manual_seed(seed)
    mean, scale = learn[0].mean(0), learn[0].std(0) + 1e-6
    layer = nn.Linear(learn[0].shape[1], classes)
    optimizer = torch.optim.AdamW(layer.parameters(), 1e-2)
    for _ in range(300):
        rows = torch.randint(len(learn[0]), (4096,))
        loss = F.cross_entropy(layer((learn[0][rows] - mean) / scale), learn[1][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        right = layer((test[0] - mean) / scale).argmax(1) == test[1]
    return float(right.float().mean())


def _start(encoder: DinoEncoder) -> None:
    """Initial weights for so small a network: Gabor-like patch embedding, larger weights in the blocks."""
    with torch.no_grad():
        encoder.vit.patch_embed.proj.weight.copy_(_waves(CONFIG["embed_dim"]))
    for layer in encoder.vit.blocks.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)


def _waves(count: int) -> Tensor:
    """(count, 3, P, P) grey waves of six directions and several lengths as sine and cosine, and plain colours."""
    y, x = (np.mgrid[:PATCH, :PATCH] + 0.5) - PATCH / 2
    window = np.sqrt(np.outer(np.hanning(PATCH + 2)[1:-1], np.hanning(PATCH + 2)[1:-1]))
    found = []
    lengths = np.geomspace(2.5, 9.0, (count - 4) // 12)
    for angle in np.arange(6) * np.pi / 6:
        for length in lengths:
            phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length
            for wave in (np.cos(phase) * window, np.sin(phase) * window):
                wave = wave - wave.mean()
                found.append(np.tile(wave / np.linalg.norm(wave) / 3, (3, 1, 1)))
    while len(found) < count:
        flat = np.zeros((3, PATCH, PATCH))
        flat[len(found) % 3] = 0.1 / PATCH
        found.append(flat)
    return torch.from_numpy(np.stack(found)).float()


def _normalised(image: NDArray[np.uint8], rng: np.random.Generator | None = None) -> Tensor:
    """(3, H, W) normalised image; with ``rng`` in random colours."""
    shown = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)
    if rng is not None:
        gain = torch.from_numpy(rng.uniform(0.7, 1.3, (3, 1, 1))).float()
        shown = (shown[torch.from_numpy(rng.permutation(3))] * gain).clamp(0, 1)
        shown = shown ** float(rng.uniform(0.7, 1.4))
    return (shown - torch.tensor(LVD_MEAN)[:, None, None]) / torch.tensor(LVD_STD)[:, None, None]


def _tokens(encoder: DinoEncoder, images: Tensor) -> Tensor:
    """(V, h * w, C)"""
    return encoder.maps(images)[0].flatten(2).transpose(1, 2)


Crop = tuple[int, slice, slice]
"""Index of an image, and rows and columns of its patches."""


def _crops(
    rng: np.random.Generator, images: int, grid: tuple[int, ...], *, whole: bool
) -> list[Crop]:
    """Two whole images, or BATCH crops."""
    height, width = grid if whole else np.minimum(CROP, grid).tolist()
    found = []
    for row in rng.integers(images, size=2 if whole else BATCH).tolist():
        top, left = (
            int(rng.integers(a - b + 1)) for a, b in zip(grid, (height, width), strict=True)
        )
        found.append((row, slice(top, top + height), slice(left, left + width)))
    return found


def _pixels(images: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    row, down, across = crop
    down, across = (slice(s.start * PATCH, s.stop * PATCH) for s in (down, across))
    return images[row, down, across]
