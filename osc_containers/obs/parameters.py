"""The parameters of the two source services, declared once.

The options of the commands, the `.service` files, their help, the checks of `_service` and the defaults all follow from
`SERVICES`. To add a parameter, declare it here and read it where it has an effect; then run `scripts/service-files`.
"""

from collections.abc import Mapping
from typing import NamedTuple

PREFETCH = "kiwi_containers"
INJECT = "kiwi_containers_inject"

NO_VALUE = ("", "0")
"""Values that mean the same as no parameter: the OBS source server drops them, osc passes them on."""


class Parameter(NamedTuple):
    """A parameter of a service, and the option of the same name of the command that does the service's work.

    `option` is the help of the option; it continues with the default in parentheses. `text` is the help in the
    `.service` file, in whole sentences. A parameter with `choices` is given once, and the first choice is its default;
    one with `numbers` is given once, too, and is one of them. Others may be repeated.
    """

    name: str
    option: str
    text: str
    default: str = ""
    choices: tuple[str, ...] = ()
    numbers: range = range(0)
    metavar: str = ""

    def number(self, value: str) -> int:
        """Return a value of a parameter with `numbers`.

        :raises ValueError: it is none of them.
        """
        # Digits of other scripts are decimal, too; a longer text would take long to convert.
        if value.isascii() and value.isdecimal() and len(value) < 10 and int(value) in self.numbers:
            return int(value)
        raise ValueError(f"got {value[:40]!r}, expected a number from {self.numbers[0]} to {self.numbers[-1]}")


class Service(NamedTuple):
    """A source service: the mode that it runs in by default, its help, and its parameters by name."""

    name: str
    mode: str
    summary: str
    text: str
    parameters: Mapping[str, Parameter]


def _by_name(*parameters: Parameter) -> Mapping[str, Parameter]:
    return {parameter.name: parameter for parameter in parameters}


SERVICES: Mapping[str, Service] = {
    PREFETCH: Service(
        name=PREFETCH,
        mode="manual",
        summary="Prefetch the containers of a kiwi description",
        text="Reads the <containers> of the kiwi descriptions in this package, pins each container by digest in "
        "containers.lock, and downloads it. Commit the lock and the downloaded files, and "
        'the image builds without a network. Use mode="manual" and run "osc service manualrun" (or "osc service '
        'runall"); for OBS 2.9, mode="disabled" and "osc service disabledrun". The service '
        f'{INJECT}, with mode="buildtime", puts the containers into the image.',
        parameters=_by_name(
            Parameter(
                name="description",
                option="kiwi file to read; may be repeated",
                text="Name of the kiwi file to read, for example appliance.kiwi. Files that it includes are read, too. "
                "May be repeated. Default: all *.kiwi files and config.xml.",
                default="all *.kiwi files and config.xml",
                metavar="FILE",
            ),
            Parameter(
                name="arch",
                option="architecture, as kiwi names it; may be repeated",
                text="Architecture to download for, as kiwi names it: x86_64, aarch64, ppc64le, s390x, ... May be "
                "repeated, or contain several names separated by spaces or commas. Default: those of an "
                "OBS-ExclusiveArch comment in the description, or else that of this machine.",
                default="that of OBS-ExclusiveArch, else of this machine",
                metavar="ARCH",
            ),
            Parameter(
                name="profile",
                option="kiwi profile to download for; may be repeated",
                text="Download only the containers that kiwi would use with this profile. May be repeated, for several "
                "profiles at once. Images with other profiles that have containers of their own cannot be built then. "
                "Default: all containers.",
                default="the containers of all profiles",
                metavar="PROFILE",
            ),
            Parameter(
                name="locked",
                option="download exactly what containers.lock pins, instead of following the tags",
                text="yes: download exactly what containers.lock pins, and fail if it does not cover the description. "
                "no (default): follow the tags and report which of them point to a new image.",
                choices=("no", "yes"),
            ),
            Parameter(
                name="signatures",
                option="what to do about signatures of images. policy: what policy.json says; required: also refuse "
                "images without an accepted signature; ignore: nothing",
                text="policy (default): refuse the images that podman would refuse, by the policy.json of this machine "
                "(containers-policy.json(5)) and by that of the parameter policy. required: also refuse images without "
                "an accepted signature. ignore: do not use the policy of the package; the policy of this machine "
                "applies all the same.",
                choices=("policy", "required", "ignore"),
            ),
            Parameter(
                name="policy",
                option="signature policy in the package, which applies in addition to that of this machine; may be "
                "repeated",
                text="Name of a signature policy in this package, in the format of containers-policy.json(5). It "
                "applies in addition to the policy of the packager's machine; relative names of keys in it are files "
                "of the package. May be repeated. Default: none.",
                default="none",
                metavar="FILE",
            ),
            Parameter(
                name="layout",
                option="files that hold the images. archives: one for each image and architecture; blobs: one for each "
                "layer and document, which images, architectures and versions share",
                text="archives (default): each image is one OCI archive per architecture. blobs: each layer, manifest "
                "and configuration is a file, which all images, architectures and versions share. Updates then upload "
                "only the layers that are new, and common layers are stored once. Needs inject=buildtime.",
                choices=("archives", "blobs"),
            ),
            Parameter(
                name="inject",
                option=f"how the containers get into the image. buildtime: the service {INJECT} adds them in the build "
                "root; source: prefetch writes kiwi_containers.obscpio, which obs-build unpacks",
                text=f"buildtime (default): the service {INJECT} puts the archives into the image, in the build root. "
                "source: write the archives and the units that load them to kiwi_containers.obscpio, which obs-build "
                "unpacks. This needs exactly one arch, and as description an XML file that the kiwi file does not "
                "include.",
                choices=("buildtime", "source"),
            ),
            Parameter(
                name="connections",
                option="number of parallel downloads, from 1 to 64",
                text="Number of parallel downloads, from 1 to 64; fewer for a registry that limits them. Default: one "
                "for each core, at most 4; 20 for a registry with a latency of 10 ms or more.",
                default="one for each core, at most 4; 20 for a registry with a latency of 10 ms or more",
                numbers=range(1, 65),
                metavar="N",
            ),
        ),
    ),
    INJECT: Service(
        name=INJECT,
        mode="buildtime",
        summary="Put prefetched containers into the image being built",
        text='Runs offline in the build root, with mode="buildtime". Verifies the archives that kiwi_containers '
        "downloaded against containers.lock, puts those of the build's architecture and the units that load them at "
        "the first boot into kiwi's overlay directories, and removes <containers> from the description so that kiwi "
        "does not download them again. Outside a build root it verifies the archives and changes nothing.",
        parameters=_by_name(
            Parameter(
                name="description",
                option="kiwi file that is built; may be repeated",
                text="Name of the kiwi file that is built, for example appliance.kiwi. May be repeated. Default: all "
                "*.kiwi files and config.xml.",
                default="all *.kiwi files and config.xml",
                metavar="FILE",
            ),
            Parameter(
                name="store",
                option="put the podman containers whose reference matches PATTERN into a read-only store, where they "
                "are at boot without being loaded; may be repeated",
                text="Pattern for references of podman containers, for example registry.example.com/team/*. What "
                "matches is unpacked in the build root, into a read-only store from which podman runs it without "
                "loading it first. May be repeated. Needs mksquashfs. Default: none; all containers are loaded.",
                default="none",
                metavar="PATTERN",
            ),
            Parameter(
                name="engine",
                option="let the engine have the containers with fetch_only whose reference matches the pattern; may be "
                "repeated",
                text="ENGINE=PATTERN, for engines that a description cannot name as backend. Containers with "
                'fetch_only="true" whose reference matches PATTERN, for example registry.example.com/team/*, go to '
                "ENGINE: containerd (loaded at the first boot; containerd:NAMESPACE for others than k8s.io), "
                "k3s, rke2 (archives that the agent imports), mgradm (archives for SUSE Multi-Linux Manager), or "
                "cri-o (loaded into podman's store, or with store in the read-only one). May be repeated. Default: "
                "none; they stay archives.",
                default="none",
                metavar="ENGINE=PATTERN",
            ),
            Parameter(
                name="sbom",
                option="also write an SBOM of the containers: spdx or cyclonedx; may be repeated",
                text="Write an SBOM that lists the containers in the image, their layers, digests, sources, licences "
                "and signatures, as a result of the build: spdx (SPDX 2.3) or cyclonedx (CycloneDX 1.6). May be "
                "repeated. Default: none.",
                default="none",
                metavar="FORMAT",
            ),
        ),
    ),
}


def service_xml(service: Service) -> str:
    """Return the `.service` file by which osc and the OBS server know a service (osc: obs_scm/serviceinfo.py)."""
    import html  # slow to load, and only scripts/service-files needs it

    # The source server refuses a file with elements or attributes that it does not know (BSXML.pm).
    lines = [
        f'<service name="{service.name}">',
        f"  <summary>{html.escape(service.summary, quote=False)}</summary>",
        f"  <description>{html.escape(service.text, quote=False)}</description>",
    ]
    for parameter in service.parameters.values():
        lines.append(f'  <parameter name="{parameter.name}">')
        lines.append(f"    <description>{html.escape(parameter.text, quote=False)}</description>")
        if parameter.choices:
            lines += [f"    <allowedvalue>{choice}</allowedvalue>" for choice in parameter.choices]
        elif not parameter.numbers:
            lines.append("    <allowmultiple/>")
        lines.append("  </parameter>")
    return "\n".join([*lines, "</service>", ""])
