"""OBS packages for the tests: complete descriptions that kiwi takes, with the containers that a test wants."""

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
    """Make a package whose containers are in an included file, as on OBS they have to be; return it."""
    directory.mkdir(parents=True)
    (directory / "appliance.kiwi").write_text(APPLIANCE)
    (directory / "containers.xml").write_text(CONTAINERS.format(sections="\n".join(sections)))
    (directory / "_service").write_text(SERVICE.format(mode=mode))
    return directory


def section(source: str, *containers: str, backend: str = "podman", profiles: str = "") -> str:
    """Return a `<containers>`; each of `containers` is the attributes of one."""
    listed = "".join(f"        <container {container}/>\n" for container in containers)
    limited = f' profiles="{profiles}"' if profiles else ""
    return f'    <containers source="{source}" backend="{backend}"{limited}>\n{listed}    </containers>'
