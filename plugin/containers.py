"""osc plugin: `osc containers ...` runs the program `osc-containers` of the same installation.

osc imports every plugin at every start, in its own interpreter, which is Python 3.6 on some systems. This file therefore
uses the syntax of that version and does not import our library: if anything is missing, other osc commands still work.
"""

import argparse
import os
import shutil
import signal
import sys

try:
    from osc.commandline import OscCommand
except ImportError:  # osc before 1.0 has no command classes
    OscCommand = None


# With two commands of the same name osc does not start: there may be two copies of this file, or one day osc may have a
# command of this name itself.
if OscCommand and not any(command.name == "containers" for command in OscCommand.__subclasses__()):

    class ContainersCommand(OscCommand):
        """
        Prefetch, pin and verify the containers of a kiwi description

        `osc containers --help` lists the sub-commands, `osc containers COMMAND --help` explains one.
        """

        name = "containers"

        def init_arguments(self):
            # osc's own --help does not know our sub-commands.
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
            # The program unblocks it when it is ready. While Python starts, it would print a traceback.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            # Replace osc, which would otherwise give the program only a quarter of a second to clean up after a Ctrl-C.
            os.execv(program, [program] + options + args.arguments)

        def find_program(self):
            """Return the program of the same installation, of this checkout, or of an absolute directory in PATH."""
            here = os.path.dirname(os.path.realpath(__file__))
            for beside in ("../../bin/osc-containers", "../.venv/bin/osc-containers"):
                path = os.path.normpath(os.path.join(here, beside))
                if os.access(path, os.X_OK):
                    return path
            # An empty or relative element would let the package that osc runs in bring the program.
            elements = os.environ.get("PATH", os.defpath).split(os.pathsep)
            return shutil.which("osc-containers", path=os.pathsep.join(filter(os.path.isabs, elements)))
