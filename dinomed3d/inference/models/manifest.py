"""model.json: what a package says about its model, and the checksums of its files."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from dinomed3d.inference.models.model_files import LARGEST_TEXT, MANIFEST, ModelFiles
from dinomed3d.inference.models.validate_plans import parse
from dinomed3d.runtime.errors import UserError

FORMAT = "dinomed3d model"
VERSION = 1
"""Version of the manifest; others are refused."""
TEXTS = (
    "plans.json",
    "dataset.json",
    "dataset_fingerprint.json",
    "postprocessing.json",
    "LICENSE.txt",
)
"""Files that a package may contain in addition to the weights of its folds."""
OPTIONAL = ("previous_stage", "validation")
"""Entries that are left out where there is nothing to say."""
WEIGHTS = re.compile(r"fold_(\d+|all)/checkpoint\.safetensors")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of model.json."""

    trainer: str
    """Name of the trainer class."""
    configuration: str
    """Name of the configuration in the plans."""
    folds: list[str]
    """Packaged folds."""
    checkpoint: str
    """Name of the file that the weights are from."""
    mirroring: list[int] | None
    """Axes of mirroring in training."""
    encoder: str | None
    """Name of the 2D encoder of a DINO-Med3D network."""
    dinov3_derived: bool
    """Whether the weights are derived from DINOv3, so that its licence must be included."""
    licence: str | None
    """Name of the licence in LICENSE.txt."""
    label_volumes_ml: dict[str, list[float]] | None
    """Label -> smallest and largest volume in the training set."""
    versions: dict[str, str]
    """Versions of the packages that wrote it."""
    training: dict[str, Any]
    """Notes of our trainer: version, recipe, spec."""
    weights: dict[str, str]
    """Fold -> digest of its tensors."""
    files: dict[str, dict[str, Any]]
    """Name -> sha256 and bytes."""
    previous_stage: str | None = None
    """Hash of the first model of a cascade, which the package holds as well."""
    validation: dict[str, Any] | None = None
    """Scores of nnU-Net's validation: its `folds`, number of `cases`, and mean `dice` of each label."""

    @property
    def known(self) -> dict[str, Any]:
        """The entries that a checkpoint of nnU-Net has too."""
        names = ("trainer", "configuration", "mirroring", "training")
        return {name: getattr(self, name) for name in names}

    def to_bytes(self) -> bytes:
        """The content of model.json."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        for name in OPTIONAL:  # as packages without them always were
            if content[name] is None:
                del content[name]
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _fits(value: object, annotation: Any) -> bool:
    """Whether a value has the type of a field, as far as its outermost type."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return isinstance(value, tuple(get_origin(kind) or kind for kind in kinds))


def read_manifest(files: ModelFiles, checkpoint: str | None = None) -> Manifest:
    """Read the manifest of a package, and compare every file with it.

    Args:
        files: of the package.
        checkpoint: the requested one; None for that of the package.

    Raises:
        UserError: of another version; files that are missing, unknown, or not as they were packaged.
    """
    what = f"package {files.path}"
    content = parse(files.read(MANIFEST, largest=LARGEST_TEXT), f"{what}: {MANIFEST}")
    if content.pop("format", None) != FORMAT or content.get("version") != VERSION:
        raise UserError(
            f"{what}: {MANIFEST} is of version {content.get('version')!r}, this dinomed3d reads {VERSION}; install a "
            "newer dinomed3d, or package the model again"
        )
    del content["version"]
    for name in OPTIONAL:
        content.setdefault(name, None)
    types = get_type_hints(Manifest)
    valid = content.keys() == types.keys() and all(_fits(content[n], t) for n, t in types.items())
    if not valid or not _is_consistent(manifest := Manifest(**content)):
        raise UserError(
            f"{what}: {MANIFEST} is not as 'dinomed3d package' writes it; copy it again"
        )
    if checkpoint not in (None, manifest.checkpoint):
        raise UserError(f"{what}: contains {manifest.checkpoint}, not {checkpoint}")
    _check_files(files, manifest, what)
    return manifest


def _is_consistent(manifest: Manifest) -> bool:
    """Whether folds, weights and files belong together."""
    folds = [match[1] for name in manifest.files if (match := WEIGHTS.fullmatch(name))]
    volumes = (manifest.label_volumes_ml or {}).values()
    return (
        bool(manifest.folds)
        and all(isinstance(text, str) for text in [*manifest.folds, *manifest.weights.values()])
        and sorted(manifest.folds) == sorted(folds) == sorted(manifest.weights)
        and all(name in TEXTS or WEIGHTS.fullmatch(name) for name in manifest.files)
        and all(isinstance(v, list) and len(v) == 2 for v in volumes)
        and all(type(ml) in (int, float) for pair in volumes for ml in pair)
        and _is_validation(manifest.validation)
    )


def _is_validation(scores: dict[str, Any] | None) -> bool:
    """Whether scores are as `validation_scores` makes them."""
    if scores is None:
        return True
    folds, cases, dice = (scores.get(name) for name in ("folds", "cases", "dice"))
    return (
        scores.keys() == {"folds", "cases", "dice"}
        and isinstance(folds, list)
        and all(isinstance(fold, str) for fold in folds)
        and type(cases) is int
        and isinstance(dice, dict)
        and all(type(value) in (int, float) for value in dice.values())
    )


def _check_files(files: ModelFiles, manifest: Manifest, what: str) -> None:
    """Check that all named files are as they were packaged, and that a zip has no others."""
    again = "copy or download the package again"
    if lacking := sorted(manifest.files.keys() - files.sizes.keys()):
        raise UserError(f"{what}: lacks {', '.join(lacking)}; {again}")
    more = sorted(files.sizes.keys() - manifest.files.keys() - {MANIFEST})
    if more and files.members is not None:
        raise UserError(
            f"{what}: contains {', '.join(more[:4])}, which {MANIFEST} does not name; {again}"
        )
    for name, said in manifest.files.items():
        size = files.sizes[name]
        if not isinstance(said, dict) or said.get("bytes") != size:
            raise UserError(
                f"{what}: {name} has {size} bytes and is not as it was packaged; {again}"
            )
        if files.sha256(name) != said.get("sha256"):
            raise UserError(f"{what}: {name} is not as it was packaged (sha256 differs); {again}")
