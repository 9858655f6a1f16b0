"""The command line: words in, answers, tables and exit codes out.

One file a command; a command's file is imported only when that command is asked for, and `--help`
loads no torch. Only this room prints and sets up logging. It computes nothing itself: every
command calls what the other rooms offer in public.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done with some items failed (each named), 130
stopped by a signal.
"""

from __future__ import annotations

import os
import sys
import warnings


def main() -> None:
    """Run `sightline` with the arguments of the process, and exit."""
    # Names of files and words from models may hold what the terminal cannot show.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if "--debug" not in sys.argv and not sys.warnoptions:
        # Its retries are told once, in a sentence of ours, when all have failed.
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
        # Warnings are written for programmers; what a person must know is logged or raised.
        warnings.simplefilter("ignore")
    from sightline.cli.program import program

    program.main(prog_name="sightline")
