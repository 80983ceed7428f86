"""osc plugin: `osc containers ...` runs the program `osc-containers` of the same installation.

osc runs every file of its plugin directories at every start, in its own interpreter, which is Python 3.6 on some
systems. So this file stays in that syntax and imports nothing of ours: whatever is missing, other osc commands work.
"""

import argparse
import os
import shutil
import sys

try:
    from osc.commandline import OscCommand
except ImportError:  # osc before 1.0 has no command classes
    OscCommand = None


# osc cannot start at all with two commands of one name: a second copy of this file, or osc's own, one day.
if OscCommand and not any(command.name == "containers" for command in OscCommand.__subclasses__()):

    class ContainersCommand(OscCommand):
        """
        Prefetch, pin and verify the containers that a kiwi description names

        `osc containers --help` lists the sub-commands, `osc containers COMMAND --help` explains one.
        """

        name = "containers"

        def init_arguments(self):
            # osc's own --help would not know our sub-commands
            self.add_argument("-h", "--help", dest="containers_help", action="store_true", help=argparse.SUPPRESS)
            self.add_argument("arguments", metavar="COMMAND ...", nargs=argparse.REMAINDER)

        def run(self, args):
            program = self.find_program()
            if not program:
                print("osc containers: the program osc-containers is not installed", file=sys.stderr)
                return 1
            options = ["--help"] if args.containers_help else []
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            # In the place of osc, which would give the program a quarter of a second to tidy up after a Ctrl-C.
            os.execv(program, [program] + options + args.arguments)

        def find_program(self):
            """Return the program: installed beside this file, in this checkout, or anywhere in PATH."""
            here = os.path.dirname(os.path.realpath(__file__))
            for beside in ("../../bin/osc-containers", "../.venv/bin/osc-containers"):
                path = os.path.normpath(os.path.join(here, beside))
                if os.access(path, os.X_OK):
                    return path
            return shutil.which("osc-containers")
