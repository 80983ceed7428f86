"""The entry points of the two source services, as osc, the OBS server and obs-build call them: `--name value …`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from osc_containers.cli import arguments, modules, process
from osc_containers.cli.commands.prefetch import prefetch_all
from osc_containers.obs import selection, service_file
from osc_containers.obs.package import Package
from osc_containers.obs.parameters import INJECT, NO_VALUE, PREFETCH, SERVICES, Parameter


def prefetch(parameters: Sequence[str]) -> int:
    """Run the service `kiwi_containers` in the package, which is the current directory; return the exit status."""
    return process.run(PREFETCH, lambda: _prefetch(parameters))


def _prefetch(parameters: Sequence[str]) -> int:
    options = _parser(PREFETCH).parse_args(parameters)
    modules.load_network()
    process.handle_signals()
    package = Package(Path())
    service_file.layout(package.prefetches)  # raises if other entries have another one
    request = selection.read(
        package,
        arguments.drop_empty(options.description),
        arguments.architectures(options.arch),
        arguments.drop_empty(options.profile),
    )
    prefetch_all(
        package,
        request,
        outdir=options.outdir,
        locked=options.locked == "yes",
        signatures=service_file.SignatureParameters(
            mode=options.signatures if options.signatures not in (None, *NO_VALUE) else "policy",
            # `ignore` in the package turns off its policies, as in `service_file.signature_parameters`.
            policies=() if options.signatures == "ignore" else tuple(arguments.drop_empty(options.policy)),
            is_user_choice=False,
        ),
        bundled=options.inject == "source",
        layout=options.layout if options.layout == "blobs" else "archives",
        connections=options.connections,
    )
    return 0


def inject(parameters: Sequence[str]) -> int:
    """Run the service `kiwi_containers_inject` in the current directory; return the exit status.

    Outside a build root it verifies the archives and changes nothing.
    """
    return process.run(INJECT, lambda: _inject(parameters))


def _inject(parameters: Sequence[str]) -> int:
    from osc_containers.cli import inject_service  # the other service does not need it

    options = _parser(INJECT).parse_args(parameters)
    modules.load_offline()
    process.handle_signals()
    return inject_service.run(options)


def _parser(name: str) -> argparse.ArgumentParser:
    # An abbreviation would hide a misspelled parameter in _service.
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
    parser.add_argument("--outdir", type=Path, required=True)
    for parameter in SERVICES[name].parameters.values():
        if parameter.choices:
            allowed = (*parameter.choices, *NO_VALUE)
            # Whitespace around a value is only the layout of the XML, as in `service_file.drop_empty`.
            parser.add_argument(
                f"--{parameter.name}", type=str.strip, choices=allowed, metavar="|".join(parameter.choices)
            )
        elif parameter.numbers:
            parser.add_argument(f"--{parameter.name}", type=_number_of(parameter), metavar=parameter.metavar)
        else:
            parser.add_argument(f"--{parameter.name}", action="append", default=[])
    return parser


def _number_of(parameter: Parameter) -> Callable[[str], int | None]:
    convert = arguments.number_of(parameter)
    return lambda text: None if text.strip() in NO_VALUE else convert(text.strip())
