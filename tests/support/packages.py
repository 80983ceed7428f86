"""OBS packages for tests, with complete descriptions that kiwi accepts."""

from pathlib import Path

APPLIANCE = """\
<?xml version="1.0" encoding="utf-8"?>
<image schemaversion="8.0" name="appliance">
    <description type="system">
        <author>A</author>
        <contact>a@example.com</contact>
        <specification>An appliance</specification>
    </description>
    <profiles>
        <profile name="small" description="Less"/>
        <profile name="big" description="More"/>
    </profiles>
    <preferences>
        <version>1.0.0</version>
        <packagemanager>zypper</packagemanager>
        <type image="tbz"/>
    </preferences>
    <repository>
        <source path="obsrepositories:/"/>
    </repository>
    <include from="this://./containers.xml"/>
    <packages type="bootstrap">
        <package name="filesystem"/>
    </packages>
</image>
"""
CONTAINERS = """\
<?xml version="1.0" encoding="utf-8"?>
<image schemaversion="8.0" name="containers">
    <!-- kept: ä -->
{sections}
</image>
"""
SERVICE = """\
<services>
  <service name="kiwi_containers" mode="{mode}">
    <param name="arch">x86_64</param>
    <param name="arch">aarch64</param>
  </service>
  <service name="kiwi_containers_inject" mode="buildtime"/>
</services>
"""


def write(directory: Path, *sections: str, mode: str = "manual") -> Path:
    """Write a package whose containers are in an included file, as OBS requires; return its directory."""
    directory.mkdir(parents=True)
    (directory / "appliance.kiwi").write_text(APPLIANCE)
    (directory / "containers.xml").write_text(CONTAINERS.format(sections="\n".join(sections)))
    (directory / "_service").write_text(SERVICE.format(mode=mode))
    return directory


def section(source: str, *containers: str, backend: str = "podman", profiles: str = "") -> str:
    """Return a `<containers>`; `containers` has the attributes of each `<container>`."""
    listed = "".join(f"        <container {container}/>\n" for container in containers)
    limited = f' profiles="{profiles}"' if profiles else ""
    return f'    <containers source="{source}" backend="{backend}"{limited}>\n{listed}    </containers>'
