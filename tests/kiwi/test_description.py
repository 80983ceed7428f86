"""How descriptions are read, rule by rule. `test_parity.py` compares with kiwi itself."""

import time
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osc_containers.errors import DescriptionError
from osc_containers.formats import xml_editor
from osc_containers.kiwi import description
from osc_containers.kiwi.containers import Container
from osc_containers.kiwi.description import Description, Include
from osc_containers.kiwi.profiles import Profile, Requirement
from osc_containers.oci.reference import Reference

APP = '<container name="app"/>'
PATH = Path("/package/appliance.kiwi")


def image(body: str) -> str:
    return f'<?xml version="1.0"?>\n<image schemaversion="8.0" name="appliance">\n{body}\n</image>\n'


def section(inner: str = APP, attributes: str = "") -> str:
    return f'<containers source="a.b" backend="podman"{attributes}>{inner}</containers>'


def parse(body: str, **files: str) -> Description:
    """Parse a description with `body`; included files are `name="body"` for `name.xml`."""

    def load(name: str) -> bytes:
        try:
            return image(files[name.removesuffix(".xml")]).encode()
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    return description.parse(image(body).encode(), PATH, load)


def problems(body: str, **files: str) -> tuple[str, ...]:
    with pytest.raises(DescriptionError) as caught:
        parse(body, **files)
    return caught.value.problems


def endpoints(containers: tuple[Container, ...]) -> list[str]:
    return [container.endpoint for container in containers]


def test_a_container_has_its_attributes_and_line() -> None:
    body = """
<containers source="registry.opensuse.org" backend="docker" arch=" x86_64,aarch64 " profiles="A,B">
  <container name="tumbleweed" path="opensuse" tag="20261101" arch="aarch64" fetch_only="true"/>
  <container name="plain"/>
</containers>"""
    first, second = parse(body).containers
    assert first == Container(
        endpoint="registry.opensuse.org/opensuse/tumbleweed:20261101",
        origin="docker://registry.opensuse.org/opensuse/tumbleweed:20261101",
        reference=Reference("registry.opensuse.org", "opensuse/tumbleweed", "20261101"),
        backend="docker",
        fetch_only=True,
        file_name="tumbleweed_20261101",
        section_arch="x86_64,aarch64",
        container_arch="aarch64",
        profiles="A,B",
        file="appliance.kiwi",
        line=5,
    )
    assert (first.arch, first.profile_names) == ("aarch64", ("A", "B"))
    assert (second.arch, second.fetch_only, second.file_name, second.line) == (
        "x86_64,aarch64",
        False,
        "plain_latest",
        6,
    )


def test_a_section_without_limits_is_for_everything() -> None:
    (container,) = parse(section()).containers
    assert (container.arch, container.profiles, container.profile_names) == (None, None, ())
    assert container.is_for("x86_64")
    assert container.is_for("loongarch64")


@pytest.mark.parametrize(
    ("sections", "container", "expected"),
    [
        ("", "", True),
        (' arch="x86_64"', "", True),
        (' arch="aarch64"', "", False),
        ("", ' arch="aarch64,x86_64"', True),
        ("", ' arch="aarch64"', False),
        (' arch="x86_64"', ' arch="aarch64"', False),
        (' arch="aarch64"', ' arch="x86_64"', False),
        (' arch=" x86_64&#10;"', ' arch="\nx86_64\t"', True),
        (' arch="amd64"', "", False),
    ],
)
def test_section_and_container_must_be_for_the_architecture(sections: str, container: str, *, expected: bool) -> None:
    read = parse(section(f'<container name="app"{container}/>', sections))
    assert endpoints(read.select("x86_64")) == ["a.b/app:latest"] * expected
    assert read.of_architecture("x86_64") == read.select("x86_64")


PROFILED = """
<profiles>
  <profile name="A" description="d" import="true"/>
  <profile name="B" description="d"><requires profile="C"/></profile>
</profiles>
<profiles><profile name="C" description="d" arch="x86_64"/></profiles>
""" + "".join(
    section(f'<container name="{name}"/>', attributes)
    for name, attributes in {
        "all": "",
        "empty": ' profiles=""',
        "a": ' profiles="A"',
        "ab": ' profiles="A,B"',
        "c": ' profiles="C"',
        "blank": ' profiles="A, C"',
        "undeclared": ' profiles="D"',
        "commas": ' profiles=",,C,"',
        "comma": ' profiles=","',
    }.items()
)


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ((), {"all", "empty", "a", "ab", "blank"}),
        (("A",), {"all", "empty", "a", "ab", "blank"}),
        (("B",), {"all", "empty", "ab", "c", "commas"}),
        (("C",), {"all", "empty", "c", "commas"}),
    ],
)
def test_a_section_is_used_with_one_of_its_profiles(requested: tuple[str, ...], expected: set[str]) -> None:
    selected = parse(PROFILED).select("x86_64", requested)
    assert {container.file_name.removesuffix("_latest") for container in selected} == expected


@pytest.mark.parametrize(
    ("arch", "left_out"), [("x86_64", {"undeclared", "comma"}), ("aarch64", {"undeclared", "comma", "c", "commas"})]
)
def test_an_architecture_has_what_its_profiles_can_select(arch: str, left_out: set[str]) -> None:
    read = parse(PROFILED)
    assert {each.file_name.removesuffix("_latest") for each in read.containers} - {
        each.file_name.removesuffix("_latest") for each in read.of_architecture(arch)
    } == left_out


def test_an_included_file_leaves_profiles_to_its_descriptions() -> None:
    text = section('<container name="app"/>', ' profiles="P"')
    fragment = description.parse(f"<image>{text}</image>".encode(), Path("containers.xml"), lambda name: b"")
    outer = tuple((Profile(name=name, arch="x86_64"),) for name in "PQ")
    cases = [(), outer, outer[:1]]
    found = [fragment._replace(outer_profiles=each) for each in cases]
    assert [len(each.of_architecture("x86_64")) for each in found] == [1, 1, 1]
    assert [len(each.of_architecture("aarch64")) for each in found] == [1, 0, 0]
    assert len(found[1].select("x86_64", ["P"])) == 1
    with pytest.raises(DescriptionError):
        found[1].select("aarch64", ["P"])


def test_an_undeclared_profile_is_an_error() -> None:
    read = parse(PROFILED)
    with pytest.raises(DescriptionError) as caught:
        read.select("aarch64", ("B",))
    assert str(caught.value) == (
        "appliance.kiwi: profile 'C' (required by 'B') is not declared for aarch64, expected one of 'A', 'B'"
    )


def test_profiles_are_read_with_their_attributes() -> None:
    body = '<profile name="P" description="d" arch="x86_64" import="1"><requires profile="Q" arch="ix86"/></profile>'
    assert parse(f"<profiles>{body}</profiles>").profiles == (
        Profile(name="P", arch="x86_64", is_imported=True, requires=(Requirement(profile="Q", arch="ix86"),)),
    )


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("1", True), ("false", False), ("0", False), ("&#10;true ", True)]
)
def test_booleans_have_four_spellings(value: str, *, expected: bool) -> None:
    (container,) = parse(section(f'<container name="app" fetch_only="{value}"/>')).containers
    assert container.fetch_only is expected


def test_white_space_around_a_backend_is_ignored() -> None:
    (container,) = parse(section().replace('"podman"', '" podman&#10;"')).containers
    assert container.backend == "podman"


def test_comments_text_and_namespaces_hold_no_containers() -> None:
    body = f"""
<!-- {section()} -->
<description><specification><![CDATA[{section()}]]></specification></description>
<users><user name="&lt;containers>"/></users>
<extension xmlns:k="urn:k"><k:containers source="a.b"/><containers/></extension>
<?target {section()}?>
{section('<!-- <container name="no"/> --><![CDATA[ ]]><container name="app"></container><?target data?>')}"""
    assert endpoints(parse(body).containers) == ["a.b/app:latest"]


def test_a_doctype_is_refused_in_each_file() -> None:
    files = {"a.kiwi": b'<image><include from="b.xml"/></image>', "b.xml": b"\n<!DOCTYPE image><image/>"}
    with pytest.raises(DescriptionError) as caught:
        description.parse(files["a.kiwi"], PATH, files.__getitem__)
    assert caught.value.problems == (
        "b.xml:2: DOCTYPE is not supported; remove it, and replace the entities that it defines",
    )


_KNOWN_ARCHITECTURES = (
    "x86_64, amd64, i586, i686, ix86, aarch64, arm64, armv5el, armv5tel, armv6hl, armv6l, armv7hl, armv7l, ppc, "
    "ppc64, ppc64le, s390, s390x, riscv64"
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            '<containers backend="podman"><container name="x"/></containers>',
            "containers: attribute 'source' is missing",
        ),
        ('<containers source="a.b"><container name="x"/></containers>', "containers: attribute 'backend' is missing"),
        (
            section().replace('"podman"', '"lxc"'),
            "backend 'lxc': expected one of podman, docker, container-snap",
        ),
        (section(""), "containers: empty, expected a 'container'"),
        (section("<container/>"), "container: attribute 'name' is missing"),
        (section("text" + APP), "containers: got text in it, expected 'container'"),
        (section('<container name="x">y</container>'), "container: got text in it, expected nothing"),
        (section(APP + "<app/>"), "containers: got the element 'app' in it, expected 'container'"),
        (section(APP, ' profile="A"'), "containers: unknown attribute 'profile'"),
        (section('<container name="x" fetch-only="true"/>'), "container: unknown attribute 'fetch-only'"),
        (
            section(APP, ' xml:base="x"'),
            "containers: unknown attribute '{http://www.w3.org/XML/1998/namespace}base'",
        ),
        (
            section('<container name="x" fetch_only="yes"/>'),
            "fetch_only 'yes': expected one of true, 1, false, 0",
        ),
        (
            section(APP, ' arch="x86_64, aarch64"'),
            "arch 'x86_64, aarch64': got ' aarch64', expected a comma-separated list without spaces of "
            + _KNOWN_ARCHITECTURES,
        ),
        (
            section(APP, ' arch=""'),
            f"arch '': got '', expected a comma-separated list without spaces of {_KNOWN_ARCHITECTURES}",
        ),
        (section(APP, ' profiles="A,../B"'), "profiles '../B': expected names without slash and control characters"),
        (section(APP, ' profiles=".."'), "profiles '..': expected names without slash and control characters"),
        (section(APP, ' profiles="A&#10;"'), "profiles 'A\\n': expected names without slash and control characters"),
        (
            f'<containers xmlns="urn:x" source="a.b" backend="podman">{APP}</containers>',
            "'containers' has the namespace 'urn:x', expected none",
        ),
        (
            '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="/etc/passwd" parse="text"/>',
            "'include' has the namespace 'http://www.w3.org/2001/XInclude', expected none",
        ),
        ("<profiles><profile/></profiles>", "profile: attribute 'name' is missing"),
        (
            '<profiles><profile name=""/></profiles>',
            "profile name '': expected a name; kiwi copies the overlay directory of this name",
        ),
        ('<profiles><profile name="A"><requires/></profile></profiles>', "requires: attribute 'profile' is missing"),
        (
            '<profiles><profile name="A" import="maybe"/></profiles>',
            "import 'maybe': expected one of true, 1, false, 0",
        ),
        ("<include/>", "include: attribute 'from' is missing"),
        ('<include from="a.xml"><a/></include>', "include: got content in it, expected none; move the content out"),
        (
            f'<include from="a.xml">{section()}</include>',
            "include: got content in it, expected none; move the content out",
        ),
        (
            '<include from="a.xml" xml:base="b/"/>',
            "include 'a.xml': got an 'xml:base', expected the whole path in 'from'",
        ),
        ('<include from="none.xml"/>', "include 'none.xml': there is no such file in the package"),
    ],
)
def test_an_error_names_file_and_line(body: str, expected: str) -> None:
    assert problems(f"\n{body}") == (f"appliance.kiwi:4: {expected}",)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "this://",
        "/etc/passwd",
        "this:///etc/passwd",
        "../a.xml",
        "this://../a.xml",
        "this://b/../../a.xml",
        "file:///etc/passwd",
        "https://example.com/a.xml",
        "dir://a.xml",
        "THIS://a.xml",
        "this://this://a.xml",
        "this://a.xml?x",
        "this://a.xml#x",
        "a%2exml",
        "a b.xml",
        " a.xml",
        "a.xml&#10;",
        "a\\b.xml",
        "ü.xml",
    ],
)
def test_an_include_outside_the_package_is_refused(name: str) -> None:
    (problem,) = problems(f'<include from="{name}"/>', a="")
    shown = name.replace("&#10;", "\n")
    assert problem == (
        f"appliance.kiwi:3: include {shown!r}: expected a file of the package, like 'this://./containers.xml'"
    )


def test_all_problems_of_all_files_are_reported() -> None:
    body = f"""<include from="a.xml"/>
<containers backend="lxc" arch="pdp11">
  <container name="X" fetch_only="maybe"/>
  <container arch="vax"/>
</containers>
{section('<container name="../x"/>')}
<include from="b.xml"/>
{section('<container name="x" tag="a b"/>')}"""
    expected = f"expected a comma-separated list without spaces of {_KNOWN_ARCHITECTURES}"
    assert problems(body, a=section('<container name="Y"/>')) == (
        "a.xml:3: repository 'Y': got component 'Y', expected lower-case letters and digits, separated by '.', "
        "'_', '__' or '-'",
        "appliance.kiwi:4: containers: attribute 'source' is missing",
        "appliance.kiwi:4: backend 'lxc': expected one of podman, docker, container-snap",
        f"appliance.kiwi:4: arch 'pdp11': got 'pdp11', {expected}",
        "appliance.kiwi:5: fetch_only 'maybe': expected one of true, 1, false, 0",
        f"appliance.kiwi:6: arch 'vax': got 'vax', {expected}",
        "appliance.kiwi:6: container: attribute 'name' is missing",
        "appliance.kiwi:8: name '../x': expected the name of an image",
        "appliance.kiwi:9: include 'b.xml': there is no such file in the package",
        "appliance.kiwi:10: tag 'a b': expected at most 128 letters, digits and '_.-', starting with a letter, "
        "digit or '_'",
    )


def test_problems_are_reported_once_and_up_to_a_limit() -> None:
    assert len(problems('<include from="a.xml"/><include from="a.xml"/>', a=section(""))) == 1
    found = problems("\n".join([section("")] * 150))
    assert (len(found), found[-1]) == (101, "appliance.kiwi: and 50 more")


@pytest.mark.parametrize("name", ["a.xml", "./a.xml", "this://a.xml", "this://./a.xml", "this://.//./a.xml"])
def test_an_include_is_replaced_by_its_file(name: str) -> None:
    body = f'{section("<container name=" + chr(34) + "x" + chr(34) + "/>")}\n<include from="{name}"/>\n{section()}'
    inner = (
        section('\n<container name="y"/>') + '<profiles><profile name="P" description="d" import="true"/></profiles>'
    )
    read = parse(body, a=inner)
    assert endpoints(read.containers) == ["a.b/x:latest", "a.b/y:latest", "a.b/app:latest"]
    assert [(c.file, c.line) for c in read.containers] == [("appliance.kiwi", 3), ("a.xml", 4), ("appliance.kiwi", 5)]
    assert [profile.name for profile in read.profiles] == ["P"]
    assert read.includes == (Include(name="a.xml", file="appliance.kiwi", line=4, is_nested=False),)
    assert read.files == (PATH, PATH.parent / "a.xml")
    assert endpoints(read.seen_by_obs_build) == ["a.b/x:latest", "a.b/app:latest"]


def test_nested_includes_are_followed() -> None:
    read = parse('<include from="a.xml"/>', a='<include from="sub/b.xml"/>', **{"sub/b": section()})
    assert [(c.endpoint, c.file) for c in read.containers] == [("a.b/app:latest", "sub/b.xml")]
    assert [(include.name, include.is_nested) for include in read.includes] == [("a.xml", False), ("sub/b.xml", True)]


def test_a_file_included_twice_counts_twice() -> None:
    read = parse('<include from="a.xml"/><include from="a.xml"/>', a=section())
    assert len(read.containers) == 2
    assert read.files == (PATH, PATH.parent / "a.xml")


def test_circular_includes_are_an_error() -> None:
    assert problems('<include from="a.xml"/>', a='<include from="b.xml"/>', b='<include from="./a.xml"/>') == (
        "b.xml:3: include 'a.xml': includes itself through appliance.kiwi and a.xml and b.xml",
    )
    assert problems('<include from="appliance.kiwi"/>') == (
        "appliance.kiwi:3: include 'appliance.kiwi': includes itself through appliance.kiwi",
    )


def test_the_number_of_includes_is_bounded() -> None:
    files = {f"f{n}": f'<include from="f{n + 1}.xml"/><include from="f{n + 1}.xml"/>' for n in range(40)}
    started = time.process_time()
    found = problems('<include from="f0.xml"/>', **files, f40="")
    assert any(problem.endswith("expected at most 100 includes") for problem in found)
    assert time.process_time() - started < 5


def test_an_error_in_an_included_file_names_that_file() -> None:
    (problem,) = problems('<include from="a.xml"/>', a="</b>")
    assert problem == "a.xml:3: not XML; got the end tag of 'b', expected that of 'image'"


@pytest.mark.parametrize("root", ["<kiwi/>", "<product/>", "<image xmlns='urn:x'/>"])
def test_a_root_other_than_image_is_an_error(root: str) -> None:
    with pytest.raises(DescriptionError, match=r"^appliance\.kiwi:1: got the root '.*', expected 'image'$"):
        description.parse(root.encode(), PATH, lambda _: b"")


@pytest.mark.parametrize("version", ["7.4", "8.0", "8.5", "99", ""])
def test_the_schema_version_does_not_matter(version: str) -> None:
    xml = f'<image schemaversion="{version}">{section()}</image>'
    assert len(description.parse(xml.encode(), PATH, lambda _: b"").containers) == 1


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("<!-- OBS-ExclusiveArch: x86_64 aarch64 -->", ("x86_64", "aarch64")),
        ("  <!--\tobs-exclusivearch:\n x86_64   x86_64 \r\n-->  ", ("x86_64",)),
        ("<!-- OBS-ExclusiveArch: x86_64 -->\n<!-- OBS-ExclusiveArch: s390x -->", ("x86_64",)),
        ("<!-- OBS-ExclusiveArch:  -->\n<!-- OBS-ExclusiveArch: s390x -->", None),
        ("<!-- OBS-ExclusiveArch: x86_64 --> <a/>", None),
        ("<a/> <!-- OBS-ExclusiveArch: x86_64 -->", None),
        ("<!-- OBS-ExclusiveArch: x86_64-->", None),
        ("<!--OBS-ExclusiveArch: x86_64 -->", None),
        ("<!-- OBS-ExclusiveArch:  -->", None),
        ("", None),
    ],
)
def test_obs_comments_are_read_as_by_obs_build(comment: str, expected: tuple[str, ...] | None) -> None:
    read = parse(f"{comment}\n<!-- OBS-Profiles: @BUILD_FLAVOR@ base -->")
    assert read.exclusive_archs == expected
    assert read.obs_profiles == ("@BUILD_FLAVOR@", "base")


@pytest.mark.parametrize(
    "hostile",
    [
        "\n" * 1_000_000,
        "<!-- OBS-ExclusiveArch:" + " " * 1_000_000,
        ("<!-- OBS-ExclusiveArch: " + "x -->" * 100 + "y\n") * 1000,
        "<!-- OBS-ExclusiveArch: " + "x " * 500_000,
        ("<!-- OBS-ExclusiveArch: x" + " " * 5000) * 200,
    ],
)
def test_comments_are_read_in_linear_time(hostile: str) -> None:
    started = time.process_time()
    with pytest.raises(DescriptionError):
        description.parse(f"<image>{hostile}".encode(), PATH, lambda _: b"")
    description._directive(b"OBS-ExclusiveArch", hostile.encode())
    assert time.process_time() - started < 5


_VALUES = (
    st.none() | st.text("ab1.:/@-_ ,\n\u202e&<'$%", max_size=6) | st.sampled_from(["podman", "a.b", "true", "x86_64"])
)


@given(
    st.fixed_dictionaries(dict.fromkeys(("source", "backend", "arch", "profiles"), _VALUES)),
    st.fixed_dictionaries(dict.fromkeys(("name", "path", "tag", "arch", "fetch_only"), _VALUES)),
    _VALUES,
)
def test_any_attributes_are_read_or_refused(
    shared: dict[str, str | None], own: dict[str, str | None], include: str | None
) -> None:
    def written(values: dict[str, str | None]) -> str:
        return "".join(f" {key}={quoteattr(value)}" for key, value in values.items() if value is not None)

    body = f"<containers{written(shared)}><container{written(own)}/></containers><include{written({'from': include})}/>"
    try:
        said = str(len(parse(body, a="").select("x86_64")))
    except DescriptionError as error:
        said = "".join(error.problems)
    assert said.isprintable()


def test_a_thousand_containers_are_read_quickly() -> None:
    body = section("".join(f'<container name="app{number}"/>\n' for number in range(1000)))
    started = time.process_time()
    assert len(parse(body).select("x86_64")) == 1000
    assert time.process_time() - started < 2


def test_containers_of_many_profiles_are_selected_quickly() -> None:
    profiles = "".join(f'<profile name="p{number}" description="" import="true"/>' for number in range(10_000))
    sections = "".join(
        f'<containers source="r.example.com" backend="podman" profiles="p{number}"><container name="n"/></containers>'
        for number in range(10_000)
    )
    parsed = parse(f"<profiles>{profiles}</profiles>{sections}")
    started = time.process_time()
    for _ in range(5):
        assert len(parsed.of_architecture("x86_64")) == 10_000
    assert time.process_time() - started < 3


def test_only_containers_are_removed() -> None:
    body = f"<!-- why -->\n  {section()}\n<packages/>\n  {section()} <!-- note -->"
    xml = image(body).encode()
    (first, second) = xml_editor.spans(xml, "containers")
    assert [xml[start:end].decode() for start, end in (first, second)] == [section(), section()]
    assert description.remove_containers(xml).decode() == image("<!-- why -->\n<packages/>\n   <!-- note -->")
