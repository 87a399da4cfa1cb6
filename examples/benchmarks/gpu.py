"""Everything that only a GPU can tell, in at most nine minutes on one card.

Correctness first: every operator and network compared with the CPU. Then speed: milliseconds, memory, kernel launches
and the places where the host waits, compared with other libraries where they are installed. Each part runs in a
process of its own within its time, and results are written as they come: WORK/results.json and WORK/table.md. The
same command again does what is missing; `--again` does all. `--list` prints the parts and how long they should take.

    python examples/benchmarks/gpu.py --work gpu_results
    python examples/benchmarks/gpu.py --device cpu --tiny                  # a trial of all parts without a GPU
    python examples/benchmarks/gpu.py --work gpu_results --parts few-cases \\
        --data Dataset004_Hippocampus --weights dinov2_vits14.safetensors

On a machine with nothing but Python and a GPU, in the folder of the repository:

    pip install -e . psutil && { pip install spconv_triton || true; } && \\
        python examples/benchmarks/gpu.py --work gpu_results
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

# Libraries that look for devices when they are imported do so without starting the driver, see `has_cuda`.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import torch
from gpu_parts import Bench, Part, run_parts
from gpu_table import as_markdown, has_errors
from markdown import table

SECONDS = 540.0
"""For all parts together."""
PARTS = (
    Part(
        name="ceilings",
        what="copies and matrix products",
        seconds=10,
        module="gpu_ceilings",
        function="ceilings",
    ),
    Part(
        name="compiling",
        what="kernels of convolutions",
        seconds=70,
        module="gpu_compile",
        function="compiling",
    ),
    Part(
        name="convolution",
        what="one sparse convolution",
        seconds=25,
        module="gpu_convolutions",
        function="single_convolution",
    ),
    Part(
        name="operators",
        what="every operator against the CPU",
        seconds=45,
        module="gpu_operators",
        function="operators",
    ),
    Part(
        name="networks",
        what="point networks against the CPU",
        seconds=40,
        module="gpu_networks",
        function="networks",
    ),
    Part(
        name="volume-networks",
        what="DINO-Med3D against the CPU",
        seconds=30,
        module="gpu_volume_networks",
        function="volume_networks",
    ),
    Part(
        name="points-forward",
        what="point networks, prediction",
        seconds=35,
        module="gpu_points",
        function="forwards",
    ),
    Part(
        name="prediction",
        what="a CT, compared with nnUNetv2_predict",
        seconds=140,
        module="gpu_prediction",
        function="prediction",
    ),
    Part(
        name="points-step",
        what="point networks, training",
        seconds=35,
        module="gpu_points",
        function="steps",
    ),
    Part(
        name="volumes",
        what="steps of DINO-Med3D",
        seconds=60,
        module="gpu_volumes",
        function="eager_steps",
    ),
    Part(
        name="peers",
        what="point networks by other libraries",
        seconds=40,
        module="gpu_points",
        function="peers",
    ),
    Part(
        name="lifting",
        what="images onto points",
        seconds=20,
        module="gpu_lifting",
        function="lift_points",
    ),
    Part(
        name="volumes-compiled",
        what="steps of DINO-Med3D, compiled",
        seconds=90,
        module="gpu_volumes",
        function="compiled_steps",
        least=45,
    ),
    Part(
        name="few-cases",
        what="few cases, arms in parallel",
        seconds=240,
        module="gpu_few_cases",
        function="parallel_arms",
        least=90,
    ),
)
"""In the order of their value."""


def main() -> int:
    """Run the parts and print the table.

    Returns:
        Exit code: 0 if every part ended and nothing in it failed, else 1; 2 for a mistake in the options.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder of results (default: a temporary one)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for everything")
    parser.add_argument("--parts", nargs="+", choices=[p.name for p in PARTS], metavar="PART")
    parser.add_argument("--again", action="store_true", help="also what is done already")
    parser.add_argument("--tiny", action="store_true", help="everything tiny: a trial")
    parser.add_argument("--data", type=Path, help="raw dataset of nnU-Net, for few-cases")
    parser.add_argument("--weights", type=Path, help="of DINOv2 ViT-S, for few-cases")
    parser.add_argument("--list", action="store_true", help="print the parts")
    args = parser.parse_args()
    chosen = [part for part in PARTS if args.parts is None or part.name in args.parts]
    if args.list:
        print(
            table("part|s on one H200|what", [[p.name, f"{p.seconds:g}", p.what] for p in chosen])
        )
        return 0
    if args.device == "cpu" and not args.tiny:
        parser.error(
            "--device cpu needs --tiny: at full size a CPU would take hours, and tell nothing"
        )
    if args.device == "cuda" and not has_cuda():
        parser.error(
            "--device cuda needs a CUDA device, and there is none; --device cpu --tiny is a trial"
        )
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        bench = Bench(
            device=torch.device(args.device),
            tiny=args.tiny,
            work=work,
            data=args.data and args.data.resolve(),
            weights=args.weights and args.weights.resolve(),
        )

        def report(results: dict[str, Any]) -> None:
            (work / "table.md").write_text(as_markdown(results), encoding="utf-8")

        results = run_parts(chosen, bench, seconds=args.seconds, again=args.again, report=report)
        print(as_markdown(results))
    return int(has_errors(results))


def has_cuda() -> bool:
    """Asked in a process of its own: processes that are forked after the driver was started cannot use it."""
    asked = multiprocessing.get_context("spawn").Process(target=_ask)
    asked.start()
    asked.join()
    return asked.exitcode == 0


def _ask() -> None:
    raise SystemExit(0 if torch.cuda.is_available() else 1)


if __name__ == "__main__":
    sys.exit(main())
