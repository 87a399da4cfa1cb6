"""Which licence must go with a model: that of DINOv3 with everything derived from it."""

from __future__ import annotations

import json
from pathlib import Path

from dinomed3d.inference.models.model import Model
from dinomed3d.inference.models.model_files import open_model_files
from dinomed3d.runtime.errors import UserError

LICENCE = "LICENSE.txt"
LARGEST_LICENCE = 1 << 20
"""Bytes."""
DINOV3_LICENCE = "DINOv3 License"


def encoder_name(model: Model) -> str | None:
    """The 2D encoder of a DINO-Med3D network, from the checkpoint or the plans; None for others."""
    if model.manifest is not None:
        return model.manifest.encoder
    spec = model.training.get("spec")
    if not isinstance(spec, dict):
        spec = (model.settings.get("architecture") or {}).get("arch_kwargs", {})
    if "encoder" not in spec.get("components", spec.get("parts", ["encoder"])):
        return None
    name = spec.get("encoder")
    return name if isinstance(name, str) else None


def is_dinov3(model: Model) -> bool:
    """Whether weights are derived from DINOv3; yes if in doubt.

    Our trainer notes what the encoder started from. With other trainers "dinov3" in the architecture or
    in the name of the trainer decides.
    """
    if model.manifest is not None:
        return model.manifest.dinov3_derived
    recipe = model.training.get("recipe")
    if isinstance(recipe, dict) and "weights" in recipe:
        return "dinov3" in (encoder_name(model) or "") and recipe["weights"] != "none"
    named = json.dumps(model.settings.get("architecture", "")) + model.trainer
    return "dinov3" in named.lower()


def licence_text(model: Model, licence: Path | None) -> bytes | None:
    """The text of the licence: from the given file, or from the model if that is a package."""
    if licence is None:
        if model.licence is not None:
            return open_model_files(model.source, root=model.root).read(LICENCE)
        if is_dinov3(model):
            raise UserError(
                f"model {model.source}: its encoder is derived from DINOv3, whose licence must be included; give "
                "--licence FILE with the text that you received with those weights"
            )
        return None
    try:
        content = Path(licence).read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--licence {licence}: cannot be read as text ({error})") from error
    if not text.strip() or len(content) > LARGEST_LICENCE or "\0" in text:
        raise UserError(f"--licence {licence}: is empty or not the text of a licence")
    if is_dinov3(model) and "dinov3" not in text.lower():
        raise UserError(
            f"--licence {licence}: does not mention DINOv3, from which the encoder is derived; give the text that you "
            "received with those weights (others may be added to the same file)"
        )
    return content


def licence_name(model: Model, text: bytes) -> str:
    """The name of DINOv3's licence, or the first line of the text."""
    first = next(line.strip() for line in text.decode("utf-8-sig").splitlines() if line.strip())
    return DINOV3_LICENCE if is_dinov3(model) else first[:100]
