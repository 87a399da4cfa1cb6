"""Training and testing with images, from posed views to scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dinomed3d.runtime.errors import UserError
from pointseg.config.serialization import read_recipe
from pointseg.evaluation.evaluate import evaluate
from pointseg.evaluation.robustness import Corruption
from pointseg.evaluation.spec import EvaluationSpec
from pointseg.images.features.encoder import open_encoder
from pointseg.images.readers.frame import Frame
from pointseg.loading import scene_images
from pointseg.loading.build_feature_cache import CacheSpec, cache_features
from pointseg.loading.samples import Samples
from pointseg.loading.scene_images import ImageLoader, SceneImageLoader
from pointseg.models.checkpoint import read_checkpoint
from pointseg.models.image_encoder import open_image_features, trained_with
from pointseg.models.trained_model import load_model
from pointseg.training.train import TrainResult, train
from tests.pointseg.painted import IMAGES, SEEING, SIZE, Painted, above, spec
from tests.pointseg.tiny import Boxes


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(spec(tmp_path_factory.mktemp("seeing")))


def scored(run: TrainResult, out: Path, **changes: object) -> dict[str, object]:
    made = EvaluationSpec(
        model=run.best, dataset=Painted(), out=out, pictures=0, encoder=trained_with("none")
    )
    return evaluate(replace(made, **changes)).metrics  # type: ignore[arg-type]


def test_what_only_images_show_is_learned(seeing: TrainResult, tmp_path: Path) -> None:
    assert seeing.score > 0.8
    blind = replace(SEEING, images=None)
    without = train(replace(spec(tmp_path), recipe=blind, task=None))
    assert without.score < 0.6


def test_the_checkpoint_says_what_it_reads_and_holds_no_encoder(seeing: TrainResult) -> None:
    content = read_checkpoint(seeing.best)
    images = read_recipe(content["recipe"]).images
    assert images is not None and images.channels == 24 and images.stride == 16
    assert len(images.weights_sha256) == 64
    assert not [key for key in content["model"] if "vit" in key or "encoder" in key]


def test_it_is_scored_by_visibility(seeing: TrainResult, tmp_path: Path) -> None:
    metrics = scored(seeing, tmp_path)
    assert metrics["test_point_miou"] > 0.8  # type: ignore[operator]
    by_visibility = metrics["test_point_miou_by_visibility"]
    assert by_visibility["visible"]["points"] == 1200  # type: ignore[index]
    assert by_visibility["not_visible"]["points"] == 0  # type: ignore[index]
    assert by_visibility["not_visible"]["miou_present"] is None  # type: ignore[index]


def test_each_image_is_encoded_once_for_all_passes(
    seeing: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pointseg.ditr import PointImages

    encoded, encode = [], PointImages.encode
    monkeypatch.setattr(
        PointImages,
        "encode",
        lambda self, images: (encoded.append(len(images)), encode(self, images))[1],
    )
    many = scored(
        seeing,
        tmp_path,
        test_changes={"tta": "semantickitti", "max_points": 400},
    )
    assert encoded == [2, 2]  # two scenes of two views
    assert many["test_point_miou"] > 0.8  # type: ignore[operator]


def test_lost_cameras_and_bad_calibration_cost(seeing: TrainResult, tmp_path: Path) -> None:
    whole = scored(seeing, tmp_path / "a")["test_point_miou"]
    lost = scored(seeing, tmp_path / "b", corruption=Corruption(drop_views=1.0))
    assert lost["test_point_miou_by_visibility"]["visible"]["points"] == 0  # type: ignore[index]
    off = scored(seeing, tmp_path / "c", corruption=Corruption(pixel_noise=20.0))
    turned = scored(seeing, tmp_path / "d", corruption=Corruption(angle_noise_deg=10.0))
    grey = scored(seeing, tmp_path / "e", corruption=Corruption(drop_color=True))
    assert (
        max(lost["test_point_miou"], off["test_point_miou"], turned["test_point_miou"])
        < whole - 0.1
    )  # type: ignore[operator, type-var]
    assert grey["test_point_miou"] != whole
    again = scored(seeing, tmp_path / "c2", corruption=Corruption(pixel_noise=20.0))
    assert again["test_point_miou"] == off["test_point_miou"]


def test_each_scene_fails_in_its_own_way_and_always_the_same() -> None:
    frames = Painted(views=1).frames("val", "val0")
    shaken = Corruption(pixel_noise=3.0, angle_noise_deg=2.0)
    one, two = (shaken.corrupt_frames(scene, frames)[0].camera for scene in ("val/a", "val/b"))
    assert not torch.equal(one.intrinsics, two.intrinsics)
    assert not torch.equal(one.world_to_camera, two.world_to_camera)
    again = shaken.corrupt_frames("val/a", frames)[0].camera
    assert torch.equal(one.intrinsics, again.intrinsics)
    half = Corruption(drop_views=0.5)
    left = [len(half.corrupt_frames(f"val/{number}", frames)) for number in range(200)]
    assert 70 < sum(left) < 130  # of one camera each
    assert [len(half.corrupt_frames(f"val/{n}", frames * 4)) for n in range(9)] == [2] * 9
    assert not Corruption(drop_views=1.0).corrupt_frames("val/a", frames)
    assert len(Corruption().corrupt_frames("val/a", frames * 4)) == 4


def test_an_unlucky_draw_of_views_is_no_error() -> None:
    class Turned(Painted):
        """Five cameras look away; those that are evenly spread over all do not all."""

        def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
            (good,) = Painted(views=1).frames(split, scene)
            away = good.camera.world_to_camera.clone()
            away[:3, 3] = torch.tensor([100.0, 0, 2])
            bad = replace(good, camera=replace(good.camera, world_to_camera=away))
            return (good, *(bad,) * 5)

    assert SEEING.images is not None
    showing = ImageLoader(replace(SEEING.images, views=1))
    dataset = Turned()
    scene = dataset.load("train", "train0")
    for seed in range(5):
        drawn = np.random.default_rng(seed)
        seen, _ = showing.load("x", scene, dataset.frames("train", "train0"), drawn)
        assert seen["image_mask"].any()
    with pytest.raises(UserError, match="scene"):
        showing.load("x", scene, dataset.frames("train", "train0")[1:], np.random.default_rng(0))


def test_views_are_chosen_from_what_a_cache_holds(tmp_path: Path) -> None:
    class Turned(Painted):
        """The first four cameras of nine look away."""

        def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
            frames = [above(f"{scene}-{k}", 7 + k) for k in range(9)]
            away = frames[0].camera.world_to_camera.clone()
            away[:3, 3] = torch.tensor([100.0, 0, 2])
            blind = [replace(f, camera=replace(f.camera, world_to_camera=away)) for f in frames[:4]]
            return (*blind, *frames[4:])

    assert SEEING.images is not None
    data, recipe = Turned(), SEEING.images
    encoder = open_encoder(recipe.encoder, "none", recipe.encoder_config)
    cache_features(
        CacheSpec(
            dataset=data, encoder=encoder, name=recipe.encoder, size=(SIZE, SIZE), out=tmp_path,
            max_views=3, splits=("val",), log=lambda line: None,
        )
    )  # fmt: skip
    for views, rng in ((2, None), (2, np.random.default_rng(0)), (10, None), (None, None)):
        known = open_image_features(replace(recipe, views=views), weights=None, cache=tmp_path)
        scene, found = SceneImageLoader(data, ImageLoader(known.config, known.cache)).load(
            "val", "val0", data.load("val", "val0"), rng
        )
        assert scene["image_mask"].all() and found.maps is not None
        assert len(found.maps) == min(views or 3, 3)


def test_a_model_trained_with_its_encoder_is_tested_with_a_smaller_cache(
    seeing: TrainResult, tmp_path: Path
) -> None:
    data = Painted(views=3)
    encoder = open_encoder(IMAGES.encoder, "none", IMAGES.encoder_config)
    cache_features(
        CacheSpec(
            dataset=data, encoder=encoder, name=IMAGES.encoder, size=(SIZE, SIZE), max_views=1,
            out=tmp_path / "cache", splits=("val",), log=lambda line: None,
        )
    )  # fmt: skip
    given = {"dataset": data, "encoder": None, "image_cache": tmp_path / "cache"}
    assert scored(seeing, tmp_path / "a", **given)["test_point_miou"] > 0.8  # type: ignore[operator]
    with pytest.raises(UserError, match="--max-views 3: the cache .* holds 1 images"):
        scored(seeing, tmp_path / "b", **given, image_changes={"views": 3})


def test_more_views_than_the_memory_has_room_for_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Painted()
    name = data.scenes("val")[0]
    scene = data.load("val", name)
    size = SEEING.images.size
    once, each = 9 * len(scene), 3 * size[0] * size[1]
    images = SceneImageLoader(data, ImageLoader(replace(SEEING.images, channels=24, stride=16)))
    monkeypatch.setattr(scene_images, "free_bytes", lambda: once + 2 * each - 1)
    images.load("val", name, scene)  # so little is never refused
    monkeypatch.setattr(scene_images, "ALWAYS_FREE", 0)
    with pytest.raises(UserError, match="600 points and 2 images .* use 1 images or fewer"):
        images.load("val", name, scene)
    monkeypatch.setattr(scene_images, "free_bytes", lambda: once + 2 * each)
    images.load("val", name, scene)


def test_corruptions_of_other_sizes_are_refused() -> None:
    for wrong in ({"drop_views": 1.5}, {"pixel_noise": -1.0}, {"angle_noise_deg": float("inf")}):
        with pytest.raises(UserError, match="--"):
            Corruption(**wrong)


def test_resumed_it_is_the_same_run(seeing: TrainResult, tmp_path: Path) -> None:
    from pointseg.training import loop

    class Stopped(Exception):
        pass

    step = loop.TrainingLoop._step

    def until(run: object, batches: object) -> dict[str, float]:
        if run.step == 20:  # type: ignore[attr-defined]
            run.save(loop.LAST)  # type: ignore[attr-defined]
            raise Stopped
        return step(run, batches)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.TrainingLoop, "_step", until)
        with pytest.raises(Stopped):
            train(spec(tmp_path))
    resumed = train(spec(tmp_path, resume=True))
    one, two = (read_checkpoint(run.last)["model"] for run in (seeing, resumed))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_other_weights_are_refused(seeing: TrainResult, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from pointseg.images.features.encoder import open_encoder

    other = open_encoder(IMAGES.encoder, "none", IMAGES.encoder_config)
    state = {key.removeprefix("vit."): 2 * value for key, value in other.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="are not the weights of vit_small_patch16_dinov3 that"):
        scored(seeing, tmp_path, encoder=trained_with(str(tmp_path / "other.safetensors")))
    with pytest.raises(UserError, match="give the weights it was trained with"):
        scored(seeing, tmp_path, encoder=None)


def test_cameras_cannot_fail_where_there_are_none(tmp_path: Path) -> None:
    from tests.pointseg.tiny import spec as boxes

    run = train(boxes(tmp_path / "run"))
    with pytest.raises(UserError, match="reads no images"):
        evaluate(
            EvaluationSpec(
                model=run.best,
                dataset=Boxes(),
                out=tmp_path,
                corruption=Corruption(drop_views=0.5),
            )
        )
    grey = EvaluationSpec(
        model=run.best, dataset=Boxes(), out=tmp_path, corruption=Corruption(drop_color=True)
    )
    assert evaluate(grey).metrics["labelled_points"] > 0


def test_scenes_without_images_are_refused_or_unseen(tmp_path: Path) -> None:
    dataset = Painted(blind=("train1",))
    with pytest.raises(UserError, match="train1: has no images; leave it out, or allow"):
        train(spec(tmp_path / "refused", dataset=dataset))
    assert SEEING.images is not None
    allowed = replace(SEEING, epochs=1, images=replace(SEEING.images, allow_missing_images=True))
    train(spec(tmp_path / "allowed", dataset=dataset, recipe=allowed))


def test_views_are_padded_to_the_most(tmp_path: Path) -> None:
    from pointseg.loading.samples import join

    samples = [
        Samples(Painted(views=views), SEEING, training=False, seed=0)[0, 0] for views in (1, 3)
    ]
    both = join(samples)
    assert not isinstance(both, UserError)
    assert both.images is not None and both.images.shape == (2, 2, 3, 64, 64)  # at most two
    assert both.image_mask is not None and both.images[0, 1].sum() == 0
    assert both.image_mask.shape == (len(both), 1) and both.image_mask.all()
    assert both.image_view is not None
    assert set(both.image_view[: int(both.offset[0])].tolist()) == {0}
    assert set(both.image_view[int(both.offset[0]) :].tolist()) == {1}  # the last one


def test_a_dataset_without_images_is_refused() -> None:
    with pytest.raises(UserError, match="the dataset boxes has no images"):
        SceneImageLoader(Boxes(), ImageLoader(IMAGES))


def test_validation_sees_the_same_views_each_time() -> None:
    samples = Samples(Painted(views=5), SEEING, training=False, seed=0)
    one, two = samples[0, 0], samples[5, 0]
    assert not isinstance(one, UserError) and not isinstance(two, UserError)
    assert torch.equal(one.images, two.images) and torch.equal(one.image_coord, two.image_coord)  # type: ignore[arg-type]


def test_a_model_can_be_loaded_without_its_encoder(seeing: TrainResult) -> None:
    model, trained = load_model(seeing.best, "cpu")
    assert trained.recipe.images is not None and model.images is not None
    assert model.images.encoder is None
