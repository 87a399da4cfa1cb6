"""A traced network as an ONNX file, and such a file in onnxruntime."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinomed3d.inference.deployment.exported_program import Run, explained
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.extras import how_to_install

INPUT, OUTPUT = "volume", "logits"
"""Names of the network's input and output in the file."""
LARGEST_FILE = 2**31 - 2**26
"""Bytes of weights that one file holds: protobuf ends at 2 GiB, and the graph needs some of it."""
DATA = ".data"
"""What the name of a file of weights has more than that of its graph; torch's exporter chooses it."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_packages() -> None:
    """Refuse to begin without the packages of the extra.

    Raises:
        UserError: some are not installed.
    """
    lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if lacking:
        raise UserError(
            f"ONNX files need {', '.join(lacking)}, not installed here; {how_to_install('onnx')}"
        )


def write_onnx(program: Any, path: Path) -> None:
    """Write a traced network as an ONNX file; above protobuf's limit, weights lie in `PATH.data` next to it.

    Args:
        program: of `trace`.
        path: of the file.

    Raises:
        UserError: torch cannot translate it.
    """
    weights = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    with explained("torch.onnx.export"), _quiet():
        translated = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
            verbose=False,
        )
        assert translated is not None
        for node in translated.model.graph.all_nodes():
            node.metadata_props.clear()  # paths of source files
        translated.save(path, external_data=weights > LARGEST_FILE)


def read_onnx(path: Path) -> Run:
    """An ONNX file in onnxruntime on the CPU, as a function."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    with explained("onnxruntime"):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(windows: Tensor) -> Tensor:
        with explained("onnxruntime"):
            (logits,) = session.run([OUTPUT], {INPUT: windows.numpy()})
        return torch.from_numpy(logits)

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the translator says of its own steps; what counts is the comparison afterwards."""
    names = ("onnxscript", "onnx_ir", "torch.onnx")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
