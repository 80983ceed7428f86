"""Reading `_service`."""

import time

import pytest

from osc_containers.errors import DescriptionError
from osc_containers.obs import service_file
from osc_containers.obs.service_file import Entry


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
        service_file.parse(xml)
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
