"""Reading and editing `_service`: what is already there stays the same, byte for byte."""

import time

import pytest

from osc_containers.errors import DescriptionError
from osc_containers.obs import service_file
from osc_containers.obs.service_file import Entry

OURS = (
    '  <service name="kiwi_containers" mode="manual"/>\n  <service name="kiwi_containers_inject" mode="buildtime"/>\n'
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, f"<services>\n{OURS}</services>\n"),
        ("<services/>\n", f"<services>\n{OURS}</services>\n"),
        ("<!-- a -->\n<services />\n<!-- z -->\n", f"<!-- a -->\n<services>\n{OURS}</services>\n<!-- z -->\n"),
        ("<services></services>\n", f"<services>\n{OURS}</services>\n"),
        ("<services>\n</services>", f"<services>\n{OURS}</services>"),
        (
            "<services>\n\t<service name='set_version' mode='buildtime'/>  <!-- é -->\n\n  </services >\n",
            "<services>\n\t<service name='set_version' mode='buildtime'/>  <!-- é -->\n\n"
            + OURS.replace("  <", "\t<")
            + "  </services >\n",
        ),
        ("<services><service name='x'/></services>\n", f"<services><service name='x'/>\n{OURS}</services>\n"),
        (
            "<services>\n    <service name='kiwi_containers' mode='localonly'/>\n</services>\n",
            "<services>\n    <service name='kiwi_containers' mode='localonly'/>\n"
            '    <service name="kiwi_containers_inject" mode="buildtime"/>\n</services>\n',
        ),
        (f"<services>{OURS}</services>", f"<services>{OURS}</services>"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_our_services_are_added(before: str | None, after: str, newline: str, encoding: str) -> None:
    def content(text: str) -> bytes:
        return text.replace("\n", newline).encode(encoding)

    if before is None:
        assert service_file.add_our_services(None) == after.encode()
    else:
        assert service_file.add_our_services(content(before)) == content(after)
        assert service_file.add_our_services(content(after)) == content(after)


def test_new_services_get_only_their_own_parameters() -> None:
    parameters = [("description", "a.kiwi"), ("arch", "x86_64"), ("arch", "aarch64")]
    xml = service_file.add_our_services(None, parameters)
    assert xml.decode().splitlines()[1:4] == [
        '  <service name="kiwi_containers" mode="manual">',
        '    <param name="description">a.kiwi</param>',
        '    <param name="arch">x86_64</param>',
    ]
    assert service_file.parse(xml) == (
        Entry(name="kiwi_containers", mode="manual", parameters=tuple(parameters), line=2),
        Entry(name="kiwi_containers_inject", mode="buildtime", parameters=(("description", "a.kiwi"),), line=7),
    )


@pytest.mark.parametrize("name", ["a<&.kiwi", "größe.kiwi", "日本.kiwi", "\U0001f600.kiwi"])
@pytest.mark.parametrize(
    "before",
    [
        None,
        "<services><!-- é --></services>".encode(),
        '<?xml version="1.0" encoding="iso-8859-1"?><services><!-- é --></services>'.encode("latin-1"),
        "<services><!-- é --></services>".encode("utf-16"),
    ],
)
def test_text_is_escaped_and_read_back(before: bytes | None, name: str) -> None:
    (entry, _) = service_file.parse(service_file.add_our_services(before, [("description", name)]))
    assert entry.values("description") == (name,)


def test_other_elements_are_not_parameters() -> None:
    """For osc, that is; the source server refuses the file."""
    (entry,) = service_file.parse(b"""<services><service name="kiwi_containers" mode="manual">
<parameter name="arch">x86_64</parameter><param name="arch">aarch64</param></service></services>""")
    assert entry.parameters == (("arch", "aarch64"),)
    assert list(entry.problems()) == ["kiwi_containers: got the element 'parameter' in it, expected 'param'"]


def test_only_architectures_are_lists_in_one_value() -> None:
    values = ("a b", " c,d\n", "0", "", "e")
    entry = Entry(name="", mode="", parameters=tuple((name, each) for name in ("arch", "profile") for each in values))
    assert entry.effective_values("arch") == ["a", "b", "c", "d", "e"]
    assert entry.effective_values("profile") == ["a b", "c,d", "e"]


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (b"<services>", "_service:1: not XML; 'services' has no end tag"),
        (b"\n<service/>", "_service:2: got the root 'service', expected 'services'"),
        (b"<!DOCTYPE x SYSTEM 'y'><services/>", "_service:1: DOCTYPE is not supported; remove it"),
    ],
)
def test_an_invalid_service_file_is_refused(xml: bytes, message: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        service_file.add_our_services(xml)
    assert caught.value.problems[0].startswith(message)


def entry(line: int, **parameters: str) -> Entry:
    return Entry(name="kiwi_containers", mode="manual", parameters=tuple(parameters.items()), line=line)


@pytest.mark.parametrize(
    ("entries", "layout"),
    [
        ([], "archives"),
        ([entry(2)], "archives"),
        ([entry(2, layout="blobs")], "blobs"),
        ([entry(2, layout="0"), entry(3, layout="archives")], "archives"),
        ([entry(2, layout="blobs"), entry(3, layout="blobs")], "blobs"),
    ],
)
def test_a_package_has_one_layout(entries: list[Entry], layout: str) -> None:
    assert service_file.layout(entries) == layout


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), (["", "0"], None), (["64"], 64), (["8", "2", ""], 2)],
)
def test_lowest_number_of_connections_counts(values: list[str], expected: int | None) -> None:
    assert service_file.connections(entry(2, connections=each) for each in values) == expected


def test_number_of_our_parameters_is_limited() -> None:
    def services(name: str, count: int) -> bytes:
        parameters = '<param name="store">x</param>' * (count // 2)
        entry = f'<service name="{name}">{parameters}</service>\n'
        return f"<services>\n{entry}{entry}</services>".encode()

    assert len(service_file.parse(services("obs_scm", 2000))) == 2
    assert len(service_file.parse(services("kiwi_containers_inject", 1000))) == 2
    message = r"^_service:3: got more than 1000 parameters of kiwi_containers and kiwi_containers_inject, expected at "
    with pytest.raises(DescriptionError, match=message):
        service_file.parse(services("kiwi_containers_inject", 1002))


def test_long_names_of_services_are_compared_quickly() -> None:
    start = time.process_time()
    assert not any(service_file.similar_service(f"{'kiwi_containers' * 4000}{number}") for number in range(100))
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("values", "expected"), [(["8", "2"], 2), (["2", "8"], 8), (["2", "0"], None), (["2", ""], None)]
)
def test_last_number_of_connections_of_an_entry_counts(values: list[str], expected: int | None) -> None:
    parameters = tuple(("connections", value) for value in values)
    assert service_file.connections([Entry(name="kiwi_containers", mode="", parameters=parameters)]) == expected


@pytest.mark.parametrize("value", ["65", "-1", "+1", "1.0", "²", "many", "9" * 5000])
def test_other_numbers_of_connections_are_refused(value: str) -> None:
    wrong = entry(2, connections=value)
    message = f"kiwi_containers: connections: got {value[:40]!r}, expected a number from 1 to 64"
    assert list(wrong.problems()) == [message]
    with pytest.raises(DescriptionError) as caught:
        service_file.connections([wrong])
    assert caught.value.problems == (f"_service:2: {message}",)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry(2, layout="blobs"), entry(3)], "_service:2: kiwi_containers has layout=blobs, but not in its other"),
        (
            [entry(2, layout="blobs", inject="source")],
            "_service:2: kiwi_containers: layout=blobs needs inject=buildtime",
        ),
    ],
)
def test_layouts_that_contradict_are_refused(entries: list[Entry], message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        service_file.layout(entries)
