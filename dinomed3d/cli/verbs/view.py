"""The verb `view`: masks over their scans in the browser, served on this computer alone."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dinomed3d.runtime.commands.argument_parser import port_number


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "view",
        help="look at a run's masks over its scans in the browser",
        example="dinomed3d view masks",
        description="Shows the masks of a folder that 'dinomed3d predict' wrote over their scans: three planes and 3D, "
        "with the names and colours of the report, which it links. The page and its viewer come from this "
        "computer, are served to it alone (127.0.0.1) below an address that nobody can guess, and load nothing from "
        "elsewhere. Scans are read from where they were predicted; nothing is changed. Ctrl-C ends it.",
    )
    parser.add_argument("folder", metavar="OUT", help="output folder of 'dinomed3d predict'")
    parser.add_argument(
        "--port",
        type=port_number,
        default=0,
        metavar="N",
        help="port on 127.0.0.1 (default: one that is free)",
    )
    parser.add_argument(
        "--no-browser",
        dest="browser",
        action="store_false",
        help="print the address and open no browser",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until the user ends it."""
    import webbrowser
    from pathlib import Path

    from dinomed3d.inference.viewer.server import ViewerServer
    from dinomed3d.inference.viewer.viewed_run import ViewedRun
    from dinomed3d.runtime.commands.browser import can_open_browser
    from dinomed3d.runtime.messages.counted import counted

    viewed = ViewedRun(Path(arguments.folder))
    with ViewerServer(viewed, port=arguments.port) as server:
        print(f"{counted(len(viewed.cases), 'case')}: {server.url(server.answers.address)}")
        print(
            f"from another computer: ssh -L {server.port}:127.0.0.1:{server.port} THIS_COMPUTER, then open that "
            "address there; Ctrl-C ends it",
            flush=True,
        )
        if arguments.browser and can_open_browser():
            webbrowser.open(server.url(server.answers.first_address))
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("dinomed3d view: ended", file=sys.stderr)
    return 0
