"""Segment one scan with an exported network: onnxruntime, numpy and SimpleITK, without torch and nnU-Net.

    dinomed3d export model.zip -f 0 -o model.onnx
    python predict_onnx.py model.onnx.json scan.nii.gz mask.nii.gz

A model of several channels takes as many scans, in the order of "channels". Every number comes from model.onnx.json.
"""

import argparse
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import onnxruntime
import SimpleITK as sitk


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("description", type=Path, metavar="MODEL.onnx.json")
    parser.add_argument("scans", nargs="+", metavar="SCAN", help="one file for each channel")
    parser.add_argument("mask", metavar="MASK", help="the file to write")
    given = parser.parse_args()
    if not given.description.is_file():
        parser.error(f"MODEL.onnx.json: {given.description} is not there; export writes it")
    model = json.loads(given.description.read_text(encoding="utf-8"))
    networks = [load(given.description.parent, entry) for entry in model["networks"]]
    images = [sitk.ReadImage(path) for path in given.scans]
    mask = segment(model, networks, images)
    sitk.WriteImage(mask, given.mask, useCompression=True)
    found = np.unique(sitk.GetArrayViewFromImage(mask)).tolist()
    print(f"{given.mask}: labels {', '.join(map(str, found))}")


def load(folder: Path, entry: dict) -> onnxruntime.InferenceSession:
    """One network, if its files are those of the description."""
    for file in (entry, *entry["external_data"]):
        digest = hashlib.sha256((folder / file["file"]).read_bytes()).hexdigest()
        if digest != file["sha256"]:
            raise SystemExit(f"{folder / file['file']}: is not as it was exported (sha256 differs)")
    there = onnxruntime.get_available_providers()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return onnxruntime.InferenceSession(
        folder / entry["file"], providers=[name for name in wanted if name in there]
    )


def segment(model: dict, networks: list, images: list) -> sitk.Image:
    """The mask of a scan, on its own grid."""
    if len(images) != len(model["channels"]):
        names = ", ".join(channel["name"] for channel in model["channels"])
        raise SystemExit(f"the model needs a scan for each of {names}; got {len(images)}")
    if (
        len({(image.GetDimension(), image.GetSize()) for image in images}) > 1
        or images[0].GetDimension() != 3
    ):
        raise SystemExit("the scans must be volumes of the same size")
    stored = images[0]
    if model["orientation"] is not None:
        images = [sitk.DICOMOrient(image, model["orientation"]) for image in images]
    axes = model["transpose"]
    volumes = [np.transpose(sitk.GetArrayFromImage(image), axes) for image in images]
    spacing = [images[0].GetSpacing()[::-1][axis] for axis in axes]
    # crop
    box = nonzero_box(np.any([volume != 0 for volume in volumes], axis=0))
    crops = [volume[box].astype(np.float32) for volume in volumes]
    shape = crops[0].shape
    # normalise, then resample to the network's grid
    target = [*spacing[: 3 - len(model["spacing_mm"])], *model["spacing_mm"]]
    grid = [round(old / new * n) for n, old, new in zip(shape, spacing, target, strict=True)]
    inside = None
    if any(channel["only_nonzero"] for channel in model["channels"]):
        inside = without_holes(np.any([crop != 0 for crop in crops], axis=0))
    rule = model["resampling"]["images"]
    data = np.stack(
        [
            resample(normalise(crop, channel, inside), grid, rule, spacing, target)
            for crop, channel in zip(crops, model["channels"], strict=True)
        ]
    )
    # predict, resample each class back to the scan's grid, and decide
    logits = predict(data, model, networks)
    rule = model["resampling"]["logits"]
    largest = max(entry["value"] for entry in model["classes"])
    labels = np.zeros(volumes[0].shape, np.uint8 if largest < 256 else np.uint16)
    best = np.zeros(shape) if model["activation"] == "sigmoid" else np.full(shape, -np.inf)
    for own, entry in zip(logits, model["classes"], strict=True):
        fine = resample(own, shape, rule, target, spacing).astype(np.float16)
        wins = fine > best
        labels[box][wins] = entry["value"]
        if model["activation"] == "softmax":  # the largest logit; sigmoids only need to be above 0
            best = np.maximum(best, fine)
    mask = sitk.GetImageFromArray(np.transpose(labels, np.argsort(axes)))
    mask.CopyInformation(images[0])
    if model["orientation"] is not None:
        letters = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(
            stored.GetDirection()
        )
        mask = sitk.DICOMOrient(mask, letters)
    return mask


def nonzero_box(seen: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around what is True; everything if nothing is."""
    spans = []
    for axis in range(3):
        places = np.flatnonzero(seen.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(places):
            return (slice(None),) * 3
        spans.append(slice(places[0], places[-1] + 1))
    return tuple(spans)


def without_holes(inside: np.ndarray) -> np.ndarray:
    """A mask with its holes filled."""
    filled = sitk.BinaryFillhole(sitk.GetImageFromArray(inside.astype(np.uint8)))
    return sitk.GetArrayFromImage(filled) > 0


def normalise(volume: np.ndarray, channel: dict, inside: np.ndarray | None) -> np.ndarray:
    """Intensities as the network was trained with."""
    scheme = channel["normalization"]
    if scheme == "NoNormalization":
        return volume
    if scheme == "RGBTo01Normalization":
        return volume / np.float32(255)
    if scheme == "RescaleTo01Normalization":
        low, high = volume.min(), volume.max()
        return (volume - low) / max(high - low, 1e-8)
    if scheme == "CTNormalization":
        clipped = volume.clip(channel["percentile_00_5"], channel["percentile_99_5"])
        return (clipped - channel["mean"]) / max(channel["std"], 1e-8)
    assert scheme == "ZScoreNormalization", scheme
    part = np.ones(volume.shape, bool) if inside is None or not channel["only_nonzero"] else inside
    values = volume[part].astype(np.float64)
    change = (volume - np.float32(values.mean())) / np.float32(max(values.std(), 1e-8))
    return np.where(part, change, volume)


def resample(volume, shape, rule, spacing, new_spacing) -> np.ndarray:
    """A volume on a grid of another shape with the same ends, by splines along one axis after the other."""
    if rule is None or volume.shape == tuple(shape):
        return volume
    across = separate_axis(rule, spacing, new_spacing)
    planes = [axis for axis in range(3) if axis != across]
    low, high = volume.min(tuple(planes), keepdims=True), volume.max(tuple(planes), keepdims=True)
    for axis in planes:
        volume = along(volume, axis, spline(volume.shape[axis], shape[axis], rule["order"]))
    if rule["clip"]:
        volume = volume.clip(low, high)
    if across is not None:
        matrix = spline(volume.shape[across], shape[across], rule["order_across"])
        volume = along(volume, across, matrix)
    return volume


def separate_axis(rule: dict, spacing, new_spacing) -> int | None:
    """The axis across which planes lie so far apart that each is resampled alone."""
    if rule["separate"] is False:
        return None
    for own in (spacing, new_spacing):
        if rule["separate"] or max(own) / min(own) > rule["separate_above"]:
            coarsest = [axis for axis in range(3) if own[axis] == max(own)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def along(volume: np.ndarray, axis: int, matrix: np.ndarray | None) -> np.ndarray:
    """A matrix times one axis of a volume."""
    if matrix is None:
        return volume
    return np.moveaxis(np.tensordot(matrix, volume, (1, axis)), 0, axis)


def spline(size: int, new_size: int, order: int) -> np.ndarray | None:
    """(new_size, size): spline interpolation between two grids with the same ends; None for the same grid."""
    if size == new_size:
        return None
    centres = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
    if order == 0:
        nearest = np.floor(centres + 0.5).astype(int).clip(0, size - 1)
        return np.eye(size, dtype=np.float32)[nearest]
    if order == 1:
        distance = np.abs(centres.clip(0, size - 1)[:, None] - np.arange(size))
        return (1 - distance).clip(0).astype(np.float32)
    assert order == 3, order
    more = 12  # the ends are repeated this often before the spline is fitted
    padded = np.pad(np.eye(size), ((more, more), (0, 0)), mode="edge")
    fit = np.diag(np.full(size + 2 * more, 4.0))
    fit += np.diag(np.ones(size + 2 * more - 1), 1) + np.diag(np.ones(size + 2 * more - 1), -1)
    fit[0, 0] = fit[-1, -1] = 5  # mirrored beyond that
    t = np.abs(centres[:, None] + more - np.arange(size + 2 * more))
    inner, outer = 2 / 3 - t**2 + t**3 / 2, (2 - t).clip(0) ** 3 / 6
    return (np.where(t < 1, inner, outer) @ np.linalg.solve(fit / 6, padded)).astype(np.float32)


def predict(data: np.ndarray, model: dict, networks: list) -> np.ndarray:
    """Logits (classes, Z, Y, X) of the whole grid: weighted means of overlapping windows."""
    windows = model["windows"]
    flat = len(windows["patch"]) == 2  # a 2D network: windows of one plane
    patch = [1, *windows["patch"]] if flat else windows["patch"]
    mirrored = [axis + 2 for axis in windows["mirrored_axes"]]
    flips = [f for n in range(len(mirrored) + 1) for f in itertools.combinations(mirrored, n)]
    # zeros up to the size of a window; then the neighbours that windows read at their ends
    missing = [max(0, side - n) for side, n in zip(patch, data.shape[1:], strict=True)]
    sides = [(m // 2, m - m // 2) for m in missing]
    data = np.pad(data, [(0, 0), *sides])
    size = data.shape[1:]
    halo = windows["halo"]
    data = np.pad(data, [(0, 0), (halo, halo), (0, 0), (0, 0)], mode="edge")
    weight = gaussian(windows["patch"], windows["gaussian_sigma"]).reshape(patch)
    sums = np.zeros((len(model["classes"]), *size), np.float16)  # as nnU-Net adds them
    total = np.zeros(size, np.float16)
    steps = [starts(n, side, windows["step"]) for n, side in zip(size, patch, strict=True)]
    for z, y, x in itertools.product(*steps):
        place = (slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
        window = data[None, :, z : z + patch[0] + 2 * halo, place[1], place[2]]
        window = window[:, :, 0] if flat else window
        mean = np.zeros((1, len(sums), *windows["patch"]), np.float32)
        for network, flip in itertools.product(networks, flips):
            given = np.ascontiguousarray(np.flip(window, flip))
            (logits,) = network.run(["logits"], {"volume": given})
            mean += np.flip(logits, flip)
        sums[(slice(None), *place)] += weight * (mean / (len(networks) * len(flips))).reshape(
            len(sums), *patch
        )
        total[place] += weight
    kept = tuple(slice(before, n - after) for (before, after), n in zip(sides, size, strict=True))
    mean = [(own.astype(np.float32) / total).astype(np.float16)[kept] for own in sums]
    return np.stack(mean).astype(np.float32)


def starts(size: int, side: int, step: float) -> list[int]:
    """Where windows begin along one axis: evenly spread, at most `step` of their side apart."""
    count = int(np.ceil((size - side) / (side * step))) + 1
    return np.round(np.linspace(0, size - side, count)).astype(int).tolist()


def gaussian(patch: list[int], sigma: float) -> np.ndarray:
    """Weight of each voxel of a window: 10 in the centre, never 0."""
    weight = np.full((), 10.0)
    for side in patch:
        distance = np.abs(np.arange(side) - side // 2)
        own = np.exp(-0.5 * (distance / (side * sigma)) ** 2)
        own[distance > int(4 * side * sigma + 0.5)] = 0
        weight = weight[..., None] * own
    weight = weight.astype(np.float16)
    return np.where(weight == 0, weight[weight > 0].min(), weight).astype(np.float32)


if __name__ == "__main__":
    main()
