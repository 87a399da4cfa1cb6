"""The table: input, command, exit code, and what must be said. Other tests hold the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DONE, SOME_FAILED, REFUSED = 0, 1, 2


@dataclass(frozen=True)
class Row:
    """One input of the table."""

    folder: str
    """Below the folder of cases."""
    command: str
    """``{here}`` is the input, ``{cases}`` the root of all, ``{out}`` an empty folder, ``{models}`` that of models."""
    code: int
    """Its exit code."""
    said: Sequence[str] = ()
    """Patterns of what it must say, on the terminal or in its records: files, and what became of them."""
    unsaid: Sequence[str] = ()
    """Patterns of what it must not say."""
    copied: tuple[str, ...] = ()
    """Names of the folder that are copied to ``{out}/in`` first, which is then the input; () for all in place."""
    elsewhere: str = ""
    """The test that holds this row, where it is not run a second time; "" if it is run."""

    @property
    def name(self) -> str:
        """For the list of tests."""
        return " ".join((self.folder, *self.copied[:1]))


SCANS = (
    "dinomed3d predict -i {here} -o {out}/masks -m {models}/volumes --device cpu --engine threads"
)
CLOUDS = "pointseg-predict {here} -o {out}/labels --no-pictures --skip-scale-check -m {models}/"
COLOR, STRENGTH, COORD = (f"{CLOUDS}{name}.pt" for name in ("color", "strength", "coord"))
TRAIN = (
    "pointseg-train --dataset folder --root {here} --out {out}/run --device cpu --workers 0 --backbone minkunet "
    "--model-size small --override epochs=1 --override features="
)
CAMERAS = "pointseg-check-cameras {models}/cloud.ply -o {out} --images {cases}/points/colmap_no_keypoint_lines/images"
COLMAP = "tests/pointseg/images/readers/test_colmap.py::test_made_models_of_people"
FAILED = "^failed: "

MEDICAL = [
    Row("medical/duplicate_slices", SCANS, DONE, ["1 case done", "3 files .*IM0004"]),
    Row("medical/two_acquisitions", SCANS, DONE, ["2 cases done", "acquisition"]),
    Row("medical/nrrd_sequence", SCANS, SOME_FAILED, [f"{FAILED}CT-cardio.seq: .*axis .*Save"]),
    Row("medical/nrrd_microns", SCANS, DONE, ["1 case done", "unit is .*microns"]),
    Row(
        "medical/scan_beside_segmentation",
        SCANS,
        DONE,
        ["1 case done", r"left out \(.*Segmentation\.seg\.nrrd"],
    ),
    Row("medical/two_increments", SCANS, DONE, ["1 case done", "2.5 and 5 mm"]),
    Row("medical/missing_slice", SCANS, SOME_FAILED, [f"{FAILED}ct: .*IM005.dcm .*missing"]),
    Row(
        "medical/other_formats",
        SCANS,
        DONE,
        ["6 cases done", *(f"^{name}: " for name in ("fs", "pair", "x", "y", "z"))],
    ),
    Row("medical/enhanced_multiframe", SCANS, DONE, ["1 case done"]),
]
FILES = [
    Row(
        "files",
        SCANS,
        SOME_FAILED,
        [
            "1 case done, 4 failed",
            *(
                f"{FAILED}{name}: .*{name}"
                for name in ("absent", "dim_size_negative", "ndims_huge")
            ),
            f"{FAILED}empty.*empty.zip",
        ],
        copied=("good.mha", "absent.mha", "empty.zip", "dim_size_negative.mha", "ndims_huge.mha"),
    ),
    *(
        Row(
            f"files/{name}",
            "dinomed3d predict -i {models}/scan.nii -o {out}/masks -m {here} --device cpu --engine threads",
            REFUSED,
            [f"^dinomed3d predict: .*{word}"],
            ["Traceback", "memory does this"],
        )
        for name, word in (
            ("model_014_trainer_torch", "trainer"),
            ("model_054_net_Linear", "Linear"),
            ("model_084_label_manager_join", "join"),
        )
    ),
    Row(
        "files/model_spacing_tiny",
        "dinomed3d predict -i {models}/scan.nii -o {out}/masks -m {here} --device cpu --engine threads",
        SOME_FAILED,
        [f"{FAILED}scan: .* 1e-06 x 1e-06 x 1e-06 mm .*plan"],
    ),
    Row(
        "files/pointseg_checkpoints",
        "pointseg-predict {models}/cloud.ply -o {out}/labels -m {here}/06_lacks_recipe.pt",
        REFUSED,
        ["06_lacks_recipe.pt: .*recipe"],
    ),
    Row(
        "files/pointseg_checkpoints",
        "pointseg-predict {models}/cloud.ply -o {out}/labels -m {here}/nan.pt",
        SOME_FAILED,
        [f"{FAILED}.*cloud.ply: .*finite"],
        ["100 %"],
    ),
    Row(
        "files/pointseg_checkpoints",
        "pointseg-predict {models}/cloud.ply -o {out}/labels -m {here}/flip_mid.pt",
        REFUSED,
        ["flip_mid.pt: .*damaged"],
    ),
    Row(
        "files",
        COLOR,
        DONE,
        [rf"{name}\.las: .*colours .*255\b" for name in ("dark16", "dark16_plus_one")],
        copied=("dark16.las", "dark16_plus_one.las"),
    ),
    Row("files/las_text", COORD, DONE, ["2 of 2 done"]),
]
POINTS = [
    Row(
        "points/s3dis_blank_byte",
        "pointseg-prepare --dataset s3dis --source {here} --out {out}/prepared",
        DONE,
        ["1 scenes|hallway_6"],
    ),
    Row(
        "points/bin_columns",
        STRENGTH,
        SOME_FAILED,
        [
            *(
                f"{FAILED}.*{name}.bin: .*2000 points of {form}"
                for name, form in (
                    ("three_columns", "3 columns of float32"),
                    ("five_columns", "5 columns of float32"),
                    ("six_columns", "6 columns of float32"),
                    ("float64", "4 columns of float64"),
                )
            ),
            "0 of 4 done",
        ],
    ),
    Row(
        "points/las_rgb8_one_256",
        COLOR,
        DONE,
        ["2 of 2 done", *(rf"{name}\.las: .*colours .*255\b" for name in ("rgb8", "rgb8_one_256"))],
    ),
    Row("points/las_rgb_all_zero", COLOR, SOME_FAILED, [f"{FAILED}.*rgb_all_zero.las: .*color"]),
    Row(
        "points/las_rgb_all_zero",
        STRENGTH,
        SOME_FAILED,
        [f"{FAILED}.*no_intensity.laz: .*strength"],
    ),
    Row("points/las_us_feet", COORD, DONE, ["us_feet_wkt.laz: .*f(oo|ee)t"]),
    Row("points/negative_intensity", STRENGTH, DONE, ["semantic3d.txt: .*-2048 and 2047"]),
    Row("points/text_count_line", COORD, DONE, ["6 of 6 done"]),
    Row("points/ply_vertex_lists", COORD, DONE, ["vertex_list.ply: .*list"]),
    Row(
        "points/utm_float32",
        COORD,
        DONE,
        ["utm_float32.ply: .*grid .*double precision"],
        ["utm_double.ply: .*grid"],
    ),
    Row(
        "points/columns_over_header",
        f"{TRAIN}color",
        DONE,
        elsewhere="tests/pointseg/datasets/folder/test_folder.py::test_columns_of_text",
    ),
    Row("points/columns_over_header", f"{CLOUDS}columns.pt", DONE, ["5 of 5 done"]),
    Row(
        "points/empty_tile",
        f"{TRAIN}color",
        DONE,
        ["zz_empty"],
        elsewhere="tests/pointseg/datasets/test_look_over.py::"
        "test_a_training_leaves_empty_tiles_out_and_goes_on_when_they_are_removed",
    ),
    *(
        Row(
            f"points/{name}",
            f"{CAMERAS} --cameras {{here}}/{model}",
            DONE,
            [f"{count} of {count} images"],
            elsewhere=COLMAP,
        )
        for name, model, count in (
            ("colmap_no_keypoint_lines", "sparse_nokp", 5),
            ("colmap_unused_fisheye", "sparse_unused_fisheye", 5),
            ("colmap_unused_fisheye", "sparse_one_fisheye", 5),
            ("transforms_json", "sparse_bin", 5),
        )
    ),
    Row(
        "points/transforms_json",
        CAMERAS.replace("/images", "") + " --cameras {here}/transforms.json",
        DONE,
        ["5 of 5 images"],
        elsewhere="tests/pointseg/images/readers/test_transforms.py::test_the_made_file_of_people",
    ),
    Row("points/gaussian_splat", COLOR, DONE, ["1 of 1 done", "f_dc"]),
]
ROWS = [*MEDICAL, *FILES, *POINTS]
