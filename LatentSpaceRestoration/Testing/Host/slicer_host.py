"""A stand-in for the Slicer application, for tests where Slicer cannot be installed.

    python slicer_host.py --no-splash --no-main-window --testing \\
        --additional-module-paths LatentSpaceRestoration --python-script SCRIPT [ARGUMENTS]

It takes the switches of Slicer that are listed in ``parse``, and no others. MRML and its logics
are real, from the ``slicer-core`` wheel; the rest is made of stand-ins (see ``standins``). As in
Slicer with ``--testing``, it ends after the script, with status 1 if that raised.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read Slicer's switches.

    Raises:
        SystemExit: with status 2, for a switch that the stand-in does not know.
    """
    parser = argparse.ArgumentParser(prog="slicer_host", allow_abbrev=False, description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--no-splash", action="store_true", help="there is none anyway")
    parser.add_argument("--no-main-window", action="store_true", help="no views, no layout")
    parser.add_argument("--testing", action="store_true", help="answer dialogs, do not show them")
    parser.add_argument("--additional-module-path", action="append", default=[], dest="paths")
    parser.add_argument(
        "--additional-module-paths", nargs="+", action="extend", default=[], dest="paths"
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--python-code", help="code to run once the modules are loaded")
    action.add_argument("--python-script", nargs=argparse.REMAINDER, help="file, and its arguments")
    options = parser.parse_args(arguments)
    if options.python_script == []:
        parser.error("--python-script needs a file")
    return options


def run(options: argparse.Namespace) -> int:
    """Start the host, load the modules, run the script or the code; the exit status."""
    from standins import application

    app = application.start(main_window=not options.no_main_window, testing=options.testing)
    loaded = [name for path in options.paths for name in app.moduleManager().load(path)]
    app.start_up()
    try:
        if options.python_code is not None:
            exec(compile(options.python_code, "<python-code>", "exec"), {"__name__": "__main__"})
        else:
            script, *rest = options.python_script
            sys.argv = [script, *rest]
            sys.path.insert(0, str(Path(script).resolve().parent))
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    else:
        status = 0
    for name in loaded:
        app.moduleManager().unload(name)
    return status


if __name__ == "__main__":
    sys.exit(run(parse(sys.argv[1:])))
