"""What a new network starts from, between its construction and its first epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from dinomed3d.lifting import WeightsError
from dinomed3d.networks import DinoMed3D, load_pretrained_encoder
from dinomed3d.networks.embedding import colours_of
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.settings.environment import recipe_from
from dinomed3d.training.settings.recipe import Recipe
from dinomed3d.training.start.pretrained import read_pretrained_encoder
from dinomed3d.training.start.start_from_model import (
    TrainedModel,
    channel_names,
    load_model,
    model_of,
)

LOADED = "-pretrained_weights"
"""What a recipe says of a network into which nnU-Net has loaded a file; its name is not known."""


def load_start(
    network: DinoMed3D, model: TrainedModel | None, *, recipe: Recipe, dataset: Mapping[str, Any]
) -> str:
    """Load what a new network starts from.

    Args:
        network: with random weights, changed in place.
        model: that the recipe starts from, if it has been read already.
        recipe: of the training.
        dataset: nnU-Net's dataset.json.

    Returns:
        A line for the log.

    Raises:
        UserError: the model to start from cannot be read or does not fit.
        WeightsError: weights of the encoder are missing or do not fit.
    """
    model = model or model_of(recipe, optional=False)
    if model is not None:
        return f"{load_model(network, model, dataset)}; {stage_one_note(recipe)}"
    if "encoder" not in network.spec.components:
        return "the network starts from random weights; it has no encoder"
    pretrained = read_pretrained_encoder(network.spec, recipe.weights)
    if pretrained is None:
        return "WARNING: the encoder has RANDOM weights (DINOMED3D_WEIGHTS=none), for tests and demonstrations only"
    channels = channel_names(dataset)
    load_pretrained_encoder(network, pretrained, channels=channels)
    line = f"encoder {network.spec.encoder}: weights from {recipe.weights}"
    if network.spec.slices == 1 and colours_of(channels) is not None:
        line += f"; channels {', '.join(channels)} are read as its colours"
    return line


def stage_one_note(recipe: Recipe) -> str:
    """What becomes of stage I where the whole network is trained already, for the log."""
    if recipe.stage1_epochs:
        return f"stage I lasts {recipe.stage1_epochs} epochs, as DINOMED3D_STAGE1_EPOCHS says"
    return "stage I is left out (DINOMED3D_STAGE1_EPOCHS asks for it)"


def recipe_for_loaded(
    recipe: Recipe, planned: Mapping[str, Any], environ: Mapping[str, str]
) -> Recipe:
    """The recipe of a network into which a file was loaded after `load_start`: as from a trained model.

    Args:
        recipe: of the training so far.
        planned: recipe of the plan's configuration.
        environ: the process's environment.

    Raises:
        UserError: the network was to start from another model.
    """
    if recipe.start_from != "none":
        raise UserError(
            f"DinoMed3DTrainer: the network started from {recipe.start_from!r} (DINOMED3D_START_FROM), and then "
            "another file was loaded over it (nnU-Net's -pretrained_weights); give one of the two"
        )
    started = recipe_from(planned, {**environ, "DINOMED3D_START_FROM": LOADED})
    return replace(started, weights=LOADED)


class NetworkStart:
    """Weights are loaded as soon as there is a network, but may be replaced until training begins.

    nnU-Net's `-pretrained_weights` has the trainer build its network, and then loads a file into it;
    nothing tells the trainer beforehand. So pretrained weights that are missing are an error only
    when training begins, or the network is run, and nothing has been loaded since.
    """

    def __init__(self, network: nn.Module, load: Callable[[], str]) -> None:
        """Load the weights, and watch what is loaded afterwards.

        Args:
            network: that is about to be trained.
            load: fills it, and returns a line for the log.
        """
        self.replaced = False
        self._line = ""
        self._missing: WeightsError | None = None
        try:
            self._line = load()
        except WeightsError as error:
            self._missing = error
        self._hooks = [
            network.register_load_state_dict_post_hook(self._note_loading),
            network.register_forward_pre_hook(self._refuse_to_run),
        ]

    def _note_loading(self, network: nn.Module, keys: Any) -> None:
        self.replaced = True

    def _refuse_to_run(self, network: nn.Module, arguments: Any) -> None:
        if self._missing is not None and not self.replaced:
            raise self._missing

    def close(self) -> str:
        """Training begins: stop watching.

        Returns:
            A line for the log.

        Raises:
            WeightsError: weights are missing, and nothing has been loaded since.
        """
        for hook in self._hooks:
            hook.remove()
        if self.replaced:
            return (
                "the network starts from a file that was loaded into it (-pretrained_weights); segmentation heads "
                "are new"
            )
        if self._missing is not None:
            raise self._missing
        return self._line
