"""The verb `completion`: a script with which a shell completes all commands of the package."""

from __future__ import annotations

import argparse
from typing import Any

SHELLS = ("bash", "zsh", "fish", "powershell")
"""Shells that scripts can be made for."""


def add_parser(verbs: Any) -> None:
    """Add the verb to the console command's parser."""
    parser = verbs.add_parser(
        "completion",
        help="print a script that completes commands in your shell",
        description="Prints a script with which a shell completes verbs, options, their choices and paths, of "
        "dinomed3d and of all pointseg commands. The script is made once and starts no Python when you press Tab; "
        "make it again after an update. It needs shtab, the extra 'completion'.",
        epilog="bash: dinomed3d completion bash > ~/.dinomed3d.bash, and '. ~/.dinomed3d.bash' in ~/.bashrc; "
        "zsh: the same with zsh in place of bash, in ~/.zshrc; "
        "fish: dinomed3d completion fish > ~/.config/fish/conf.d/dinomed3d.fish; "
        "PowerShell: dinomed3d completion powershell > $HOME\\dinomed3d.ps1, and '. $HOME\\dinomed3d.ps1' in $PROFILE",
        example="dinomed3d completion bash > ~/.dinomed3d.bash && echo '. ~/.dinomed3d.bash' >> ~/.bashrc",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that will read the script")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the script, and print it."""
    from dinomed3d.cli.completion.script import completion_script

    print(completion_script(arguments.shell))
    return 0
