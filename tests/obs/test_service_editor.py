"""Editing `_service`: what is already there stays the same, byte for byte."""

import pytest

from osc_containers.obs import service_editor, service_file
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
        assert service_editor.add_our_services(None) == after.encode()
    else:
        assert service_editor.add_our_services(content(before)) == content(after)
        assert service_editor.add_our_services(content(after)) == content(after)


def test_new_services_get_only_their_own_parameters() -> None:
    parameters = [("description", "a.kiwi"), ("arch", "x86_64"), ("arch", "aarch64")]
    xml = service_editor.add_our_services(None, parameters)
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
    (entry, _) = service_file.parse(service_editor.add_our_services(before, [("description", name)]))
    assert entry.values("description") == (name,)
