"""model.json: what a package says about the model in it, and that it is all there."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from dinomed3d.inference.models.model_files import LARGEST_TEXT, MANIFEST, Holdings
from dinomed3d.inference.models.validate_plans import parse
from dinomed3d.runtime.errors import UserError

FORMAT = "dinomed3d model"
VERSION = 1
"""Of the manifest; another one is refused."""
TEXTS = ("plans.json", "dataset.json", "dataset_fingerprint.json", "LICENSE.txt")
"""Files that a package may hold beside the weights of its folds."""
WEIGHTS = re.compile(r"fold_(\d+|all)/checkpoint\.safetensors")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of model.json."""

    trainer: str
    """Name of nnU-Net's class."""
    configuration: str
    """Of the plan."""
    folds: list[str]
    checkpoint: str
    """Name of the file that the weights were taken from."""
    mirroring: list[int] | None
    """Axes along which training mirrored."""
    encoder: str | None
    """Name of a DINO-Med3D network's 2D encoder."""
    dinov3_derived: bool
    """Whether the weights come from DINOv3's, so that its licence goes with them."""
    licence: str | None
    """Name of the licence in LICENSE.txt."""
    label_volumes_ml: dict[str, list[float]] | None
    """Smallest and largest of each label in the training set."""
    versions: dict[str, str]
    """Of what packed it."""
    training: dict[str, Any]
    """What our trainer noted: version, recipe, spec."""
    weights: dict[str, str]
    """Fold -> digest of its tensors."""
    files: dict[str, dict[str, Any]]
    """Name -> sha256 and bytes."""

    @property
    def known(self) -> dict[str, Any]:
        """What a checkpoint of nnU-Net would say."""
        names = ("trainer", "configuration", "mirroring", "training")
        return {name: getattr(self, name) for name in names}

    def to_bytes(self) -> bytes:
        """As JSON."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


KINDS: dict[str, tuple[type, ...]] = {
    "trainer": (str,),
    "configuration": (str,),
    "folds": (list,),
    "checkpoint": (str,),
    "mirroring": (list, type(None)),
    "encoder": (str, type(None)),
    "dinov3_derived": (bool,),
    "licence": (str, type(None)),
    "label_volumes_ml": (dict, type(None)),
    "versions": (dict,),
    "training": (dict,),
    "weights": (dict,),
    "files": (dict,),
}


def read_manifest(holdings: Holdings, checkpoint: str | None = None) -> Manifest:
    """Read a package's manifest, and compare every file with it.

    Args:
        holdings: the package's files.
        checkpoint: that is asked for; None for the one that is there.

    Raises:
        UserError: made by another version; files that are missing, too many, or not as they were packed.
    """
    what = f"package {holdings.path}"
    content = parse(holdings.read(MANIFEST, largest=LARGEST_TEXT), f"{what}: {MANIFEST}")
    if content.pop("format", None) != FORMAT or content.get("version") != VERSION:
        raise UserError(
            f"{what}: {MANIFEST} is of version {content.get('version')!r}, this dinomed3d reads {VERSION}; install a "
            "newer dinomed3d, or package the model again"
        )
    del content["version"]
    damaged = UserError(
        f"{what}: {MANIFEST} is not as 'dinomed3d package' writes it; copy it again"
    )
    names = {f.name for f in fields(Manifest)}
    if content.keys() != names or any(not isinstance(content[n], KINDS[n]) for n in names):
        raise damaged
    manifest = Manifest(**content)
    folds = [match[1] for name in manifest.files if (match := WEIGHTS.fullmatch(name))]
    volumes = manifest.label_volumes_ml or {}
    if (
        not manifest.folds
        or any(not isinstance(text, str) for text in [*manifest.folds, *manifest.weights.values()])
        or not sorted(manifest.folds) == sorted(folds) == sorted(manifest.weights)
        or any(name not in TEXTS and not WEIGHTS.fullmatch(name) for name in manifest.files)
        or not all(_range(pair) for pair in volumes.values())
    ):
        raise damaged
    if checkpoint not in (None, manifest.checkpoint):
        raise UserError(f"{what}: holds {manifest.checkpoint}, not {checkpoint}")
    _check_files(holdings, manifest, what)
    return manifest


def _range(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(type(v) in (int, float) for v in pair)


def _check_files(holdings: Holdings, manifest: Manifest, what: str) -> None:
    """All that are named, as they were packed, and in a zip no others."""
    again = "copy or download the package again"
    if lacking := sorted(manifest.files.keys() - holdings.sizes.keys()):
        raise UserError(f"{what}: lacks {', '.join(lacking)}; {again}")
    more = sorted(holdings.sizes.keys() - manifest.files.keys() - {MANIFEST})
    if more and holdings.members is not None:
        raise UserError(
            f"{what}: holds {', '.join(more[:4])}, which {MANIFEST} does not name; {again}"
        )
    for name, said in manifest.files.items():
        size = holdings.sizes[name]
        if not isinstance(said, dict) or said.get("bytes") != size:
            raise UserError(f"{what}: {name} has {size} bytes and is not as it was packed; {again}")
        if holdings.sha256(name) != said.get("sha256"):
            raise UserError(f"{what}: {name} is not as it was packed (sha256 differs); {again}")
