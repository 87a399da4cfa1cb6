"""``pointseg-view``: parse, read the clouds, serve them to the browser. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dinomed3d.runtime.commands.argument_parser import ArgumentParser, port_number
from dinomed3d.runtime.commands.browser import can_open_browser
from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.terminal_text import one_line
from pointseg.cli.arguments import NameOrPlugin, at_least
from pointseg.cli.label_arguments import add_meaning, check_meaning, meaning
from pointseg.cli.progress import bar
from pointseg.conventions import COLOURINGS, DATASETS, PICTURE_UP_AXES, THINNINGS
from pointseg.plugins import FORM

if TYPE_CHECKING:
    import viser

    from pointseg.viewing.contents import Contents
    from pointseg.viewing.spec import ViewSpec
    from pointseg.viewing.viewer import Viewer

NAME = "pointseg-view"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-view predicted/scan.laz --reference reference/scan.laz",
        description="Shows clouds in the browser: any file that pointseg reads, predictions with the classes and "
        "colours of their record, errors against a reference, scenes of datasets, and cameras with their images. "
        "The page comes from this computer, is served to it alone (127.0.0.1), and loads nothing from elsewhere. "
        "Nothing is changed. Needs viser: the extra 'view'.",
        epilog="Exit codes: 0 ended with Ctrl-C, or the page is written; 2 nothing could be shown: the line says why.",
    )
    parser.add_argument(
        "inputs", nargs="*", type=Path, metavar="FILES", help="clouds, or folders to search"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="PATH",
        help="file or folder with reference classes of the one file or folder: shows errors; files of folders belong "
        "together by path without the ending",
    )  # fmt: skip
    parser.add_argument(
        "--color-by", choices=COLOURINGS, metavar="WHAT",
        help=f"what colours show at first: {', '.join(COLOURINGS)} (default: errors where there is a reference, else "
        "the first that the clouds have)",
    )  # fmt: skip
    parser.add_argument(
        "--max-points", type=at_least(1), default=2_000_000, metavar="N",
        help="points to show, of all clouds together; larger ones are thinned while they are read (default: "
        "%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--thin", choices=THINNINGS, default="random",
        help="how points are chosen: random keeps the density of the cloud, voxel makes it even (default: random)",
    )  # fmt: skip
    parser.add_argument(
        "--up", choices=PICTURE_UP_AXES,
        help="axis that points up; --up=-y for camera coordinates (default: z; -y for an organised .pcd, which is its "
        "own image)",
    )  # fmt: skip
    _add_page(parser)
    _add_cameras(parser.add_argument_group("cameras"))
    _add_dataset(parser.add_argument_group("a scene of a dataset"))
    add_meaning(parser.add_argument_group("what the labels mean"))
    return parser


def _add_page(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port", type=port_number, default=0, metavar="N",
        help="port on 127.0.0.1 (default: one that is free)",
    )  # fmt: skip
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address and open no browser"
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE",
        help="write the points with their colours as one page that opens without pointseg and without a network, "
        "instead of serving them",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --html FILE")


def _add_cameras(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--cameras", type=Path, metavar="PATH",
        help="cameras.json, transforms.json (nerfstudio, Polycam), Metashape's .xml, or the folder of a COLMAP model",
    )  # fmt: skip
    group.add_argument(
        "--images", type=Path, metavar="DIR",
        help="folder of the images (default: 'images' next to a COLMAP model, or where the file says)",
    )  # fmt: skip
    group.add_argument(
        "--max-views", type=at_least(1), metavar="N",
        help="maximum number of cameras to show, evenly spread (default: all)",
    )  # fmt: skip


def _add_dataset(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset", type=NameOrPlugin(DATASETS), metavar="NAME",
        help=f"instead of FILES: {', '.join(DATASETS)}; or {FORM}, a class of your own",
    )  # fmt: skip
    group.add_argument("--root", type=Path, metavar="DIR", help="folder of the dataset")
    group.add_argument(
        "--config", type=Path, metavar="YAML",
        help="description of your folder (default: ROOT/dataset.yaml)",
    )  # fmt: skip
    group.add_argument(
        "--split", metavar="NAME", help="split of the scene (default: the first one)"
    )
    group.add_argument("--scene", metavar="NAME", help="scene to show (default: the first one)")


def _say(line: str) -> None:
    print(one_line(line), file=sys.stderr, flush=True)


def _spec(arguments: argparse.Namespace) -> ViewSpec:
    from pointseg.viewing.spec import ViewSpec

    first = arguments.inputs[0] if arguments.inputs else Path()
    return ViewSpec(
        inputs=tuple(arguments.inputs),
        reference=arguments.reference,
        meaning=meaning(arguments, first, arguments.reference or first, log=_say),
        most=arguments.max_points,
        thinning=arguments.thin,
        log=_say,
    )


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        UserError: the message names them.
    """
    of_dataset = [name for name in ("root", "config", "split", "scene") if getattr(arguments, name)]
    of_files = [name for name in ("reference", "cameras", "images") if getattr(arguments, name)]
    if arguments.dataset is None and not arguments.inputs:
        raise UserError("FILES, --dataset: give clouds, or --dataset with --root")
    if arguments.dataset is None and of_dataset:
        raise UserError(f"--{of_dataset[0]}: is only for --dataset")
    if arguments.dataset is not None and (arguments.inputs or of_files):
        option = "FILES" if arguments.inputs else f"--{of_files[0]}"
        raise UserError(f"{option}: is only for clouds in files, not --dataset")
    if arguments.html is not None and arguments.html.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--html {arguments.html}: must end in .html")
    if arguments.html is not None and arguments.html.exists() and not arguments.overwrite:
        raise UserError(
            f"{arguments.html}: exists; give another --html, or replace it with --overwrite"
        )


def _contents(arguments: argparse.Namespace, spec: ViewSpec) -> Contents:
    from pointseg.viewing.contents import contents_of_dataset, contents_of_files

    if arguments.dataset is None:
        return contents_of_files(
            spec,
            cameras=arguments.cameras,
            images=arguments.images,
            max_views=arguments.max_views,
            up=arguments.up,
        )
    return contents_of_dataset(
        spec,
        arguments.dataset,
        arguments.root,
        arguments.config,
        split=arguments.split,
        scene=arguments.scene,
        max_views=arguments.max_views,
        up=arguments.up,
    )


def _run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    from pointseg.viewing.server import close_server, open_server

    server = open_server(0 if arguments.html is not None else arguments.port)
    try:
        return _show(arguments, server)
    except KeyboardInterrupt:
        _say(f"{NAME}: ended")
        return 0
    finally:
        close_server(server)


def _show(arguments: argparse.Namespace, server: viser.ViserServer) -> int:
    from pointseg.viewing.contents import about, thinned
    from pointseg.viewing.viewer import Viewer

    spec = _spec(arguments)
    with bar() as shown:
        contents = _contents(arguments, replace(spec, progress=shown, log=shown.say))
    lines = about(contents, spec)
    for line in (*(thinned(contents, spec) if len(contents.clouds) > 1 else ()), *lines):
        print(one_line(line))
    viewer = Viewer(
        server,
        contents.clouds,
        contents.palette,
        frames=contents.frames,
        up=contents.up,
        color_by=arguments.color_by,
        about=lines,
    )
    if arguments.html is not None:
        return _write(arguments, server, viewer, lines)
    _serve(arguments, server, viewer)


def _write(
    arguments: argparse.Namespace, server: viser.ViserServer, viewer: Viewer, lines: Sequence[str]
) -> int:
    from pointseg.viewing.page import write_page

    if viewer.cameras is not None:
        viewer.cameras.fill(_say)
    title = f"{viewer.title}, coloured by {viewer.color_by}"
    size = write_page(server, arguments.html, title, lines, [viewer.whole_legend()])
    print(one_line(f"{arguments.html}: {size / 1e6:.1f} MB, opens in a browser"))
    return 0


def _serve(arguments: argparse.Namespace, server: viser.ViserServer, viewer: Viewer) -> NoReturn:
    from pointseg.viewing.server import address

    url, port = address(server), server.get_port()
    print(url)
    print(
        f"from another computer: ssh -L {port}:127.0.0.1:{port} THIS_COMPUTER, then open that address there; Ctrl-C "
        "ends it",
        flush=True,
    )
    if not arguments.no_browser and can_open_browser():
        import webbrowser

        webbrowser.open(url)
    if viewer.cameras is not None:
        viewer.cameras.fill(_say)
    while True:  # until Ctrl-C
        time.sleep(3600)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    check_meaning(parser, arguments)
    return run_command(NAME, lambda: _run(arguments), results=None)


if __name__ == "__main__":
    sys.exit(main())
