"""Training that starts from a trained model of ours: the whole network, with other labels and channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinomed3d.networks import NetworkSpec, build_network
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.checkpoints.checkpoint import read_checkpoint
from dinomed3d.training.settings.environment import spec_from
from dinomed3d.training.settings.nnunet_plan import spec_difference
from dinomed3d.training.settings.recipe import Recipe
from dinomed3d.training.start.input_channels import channel_matrix, describe_channels, with_channels

CHECKPOINT = "checkpoint_final.pth"
"""The checkpoint that is taken from a folder."""
HEADS = "seg_layers."
"""In the names of layers whose outputs are the labels; nnU-Net looks for the same."""
SETTING = "DINOMED3D_START_FROM (recipe field 'start_from')"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A checkpoint of DinoMed3DTrainer, as far as another training can start from it."""

    path: Path
    """Of the checkpoint."""
    spec: NetworkSpec
    """Its network."""
    weights: Mapping[str, Tensor]
    """Tensors of the whole network by name, on the CPU."""
    encoder_weights: str
    """What its encoder started from, as in `Recipe.weights`: a licence may depend on it."""
    dataset: Mapping[str, Any]
    """nnU-Net's dataset.json that it was trained with."""
    progress: str
    """How long it was trained, for the log."""

    @property
    def channels(self) -> list[str]:
        """Names of the images' channels, in order."""
        return channel_names(self.dataset)


def channel_names(dataset: Mapping[str, Any]) -> list[str]:
    """Names of the channels of a dataset.json, in order."""
    return [
        str(name) for name in dataset.get("channel_names", dataset.get("modality", {})).values()
    ]


def find_model(source: str) -> Path:
    """The checkpoint that a setting names.

    Args:
        source: a checkpoint; or the folder of a fold, or of a model with one fold.

    Raises:
        UserError: there is none, or a model has several folds.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(
            f"{SETTING}: must name a checkpoint of DinoMed3DTrainer or a folder with one, and there is no {source!r}"
        )
    found = [path / CHECKPOINT, *sorted(path.glob(f"fold_*/{CHECKPOINT}"))]
    found = [file for file in found if file.is_file()]
    if len(found) != 1:
        names = ", ".join(str(file.relative_to(path)) for file in found) or "none"
        raise UserError(
            f"{SETTING}: {source!r} must have one {CHECKPOINT}, in itself or in one fold, found {names}; name the "
            "checkpoint itself"
        )
    return found[0]


def model_of(recipe: Recipe, *, optional: bool) -> TrainedModel | None:
    """The model that a recipe starts from, if it does.

    Args:
        recipe: of a new training.
        optional: leave out a model that cannot be read.

    Raises:
        UserError: as `read_model`.
    """
    if recipe.start_from == "none":
        return None
    try:
        return read_model(recipe.start_from)
    except UserError:
        if optional:
            return None
        raise


def read_model(source: str) -> TrainedModel:
    """Read a trained model, without running code from it.

    Args:
        source: as in `find_model`.

    Raises:
        UserError: there is none; it cannot be read; or it is of another trainer or version.
    """
    path = find_model(source)
    content = read_checkpoint(path)
    own, arguments = content["dinomed3d"], content.get("init_args", {})
    dataset = arguments.get("dataset_json", {})
    if not channel_names(dataset) or "labels" not in dataset:
        raise UserError(
            f"checkpoint {path}: does not say which channels and labels it was trained with ('init_args'), so no "
            "training can start from it; name another checkpoint"
        )
    name = arguments.get("plans", {}).get("dataset_name", "unknown dataset")
    return TrainedModel(
        path=path,
        spec=NetworkSpec.from_arch_kwargs(own["spec"]),
        weights=content["network_weights"],
        encoder_weights=own["recipe"].get("weights", "unknown"),
        dataset=dataset,
        progress=f"{name}, {arguments.get('configuration')}, {content['current_epoch']} epochs, "
        f"stage {own['stage']}",
    )


def spec_of_model(
    model: TrainedModel, planned: NetworkSpec, *, is_stock: bool, environ: Mapping[str, str]
) -> NetworkSpec:
    """The network of a training that starts from a model: the model's, with the cascade of the plan.

    Args:
        model: to start from.
        planned: the plan's network, with its cascade.
        is_stock: whether the plan is nnU-Net's own and so leaves the network to us.
        environ: the process's environment.

    Raises:
        UserError: plan or environment name another network than the model has.
    """
    ours = replace(model.spec, cascade_channels=planned.cascade_channels)
    asked = spec_from(ours if is_stock else planned, environ)
    if asked != ours:
        raise UserError(
            f"{SETTING}: {model.path} holds another network than {'the environment sets' if is_stock else 'the plan'} "
            f"({spec_difference(ours, asked)}); unset the DINOMED3D_ variables that differ, and train with the model's "
            "plan (nnUNetv2_move_plans_between_datasets), or with nnU-Net's own plan, whose network would be the "
            "model's"
        )
    return ours


def load_model(network: nn.Module, model: TrainedModel, dataset: Mapping[str, Any]) -> str:
    """Fill a network with a trained model's weights.

    Layers that depend on the labels keep their random start if the labels differ; layers that read
    the channels are adapted if those differ (`channel_matrix`). Every other tensor is the model's.

    Args:
        network: a DinoMed3D of the model's spec, perhaps with another cascade; changed in place.
        model: to start from.
        dataset: nnU-Net's dataset.json of the data to train on.

    Returns:
        A line for the log.

    Raises:
        UserError: the model's tensors are not those of its spec: it is of another version.
    """
    same_labels = _labels(model.dataset) == _labels(dataset)
    own, state = network.state_dict(), dict(model.weights)
    slices = _slices_of_input_layers(model)
    target = channel_names(dataset)
    matrix = channel_matrix(model.channels, target)
    for key, count in slices.items():
        before = state[key].shape[1] - count * len(model.channels)
        after = own[key].shape[1] - count * len(target)
        # labels of a previous configuration that the model does not know begin without influence
        cascade = (
            torch.eye(before) if same_labels and before == after else torch.zeros(after, before)
        )
        state[key] = with_channels(state[key], matrix, slices=count, cascade=cascade)
    if not same_labels:
        state = {key: own[key] if HEADS in key else tensor for key, tensor in state.items()}
    _check_names(state, own, model)
    network.load_state_dict(state)
    channels = describe_channels(model.channels, target)
    return "; ".join(
        [
            f"the whole network starts from {model.path} ({model.progress})",
            "segmentation heads are the model's"
            if same_labels
            else "segmentation heads are new, because the labels differ",
            *([channels] if channels else []),
        ]
    )


def _labels(dataset: Mapping[str, Any]) -> tuple[Any, Any]:
    """What the outputs of a network mean."""
    return dataset["labels"], dataset.get("regions_class_order")


def _slices_of_input_layers(model: TrainedModel) -> dict[str, int]:
    """Kernels that read the images' channels, by name, and how many slices each reads as channels.

    They are found by building the network for one more channel, whatever its layers are called.

    Raises:
        UserError: the model's tensors are not those of its spec.
    """
    count = len(model.channels) + model.spec.cascade_channels
    with torch.device("meta"):
        built, wider = (
            build_network(n, 2, **model.spec.to_arch_kwargs()).state_dict()
            for n in (count, count + 1)
        )
    _check_names(model.weights, built, model)
    return {
        key: wider[key].shape[1] - built[key].shape[1]
        for key in built
        if built[key].shape != wider[key].shape
    }


def _check_names(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], model: TrainedModel
) -> None:
    """Compare tensors with those of a network in name and shape, but for the shape of heads."""
    wrong = sorted(found.keys() ^ wanted.keys()) or [
        key for key in wanted if HEADS not in key and found[key].shape != wanted[key].shape
    ]
    if wrong:
        raise UserError(
            f"checkpoint {model.path}: does not fit the network that it names, in {len(wrong)} tensors such as "
            f"{wrong[0]}; it was written by another version of dinomed3d: train from that version's weights with it, "
            "or name another checkpoint"
        )
