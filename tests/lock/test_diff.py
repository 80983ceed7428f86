"""The differences between two locks, or between a lock and the current tags."""

import json

from osc_containers.lock import diff
from osc_containers.oci.reference import Reference
from tests.support.locks import LONG_NAME, NEW_LOCK, OLD_LOCK, named_blob


def test_changes_as_json() -> None:
    objects = diff.as_objects(diff.compare(OLD_LOCK.references, NEW_LOCK.references))
    old, new = (lock.references[Reference.parse(LONG_NAME)] for lock in (OLD_LOCK, NEW_LOCK))
    assert objects[-1] == {
        "reference": LONG_NAME,
        "old": str(old.digest),
        "new": str(new.digest),
        "architectures": {
            "x86_64": {
                "old": {"digest": str(named_blob("manifest x1", 1).digest), "created": "2026-01-01T03:04:05Z"},
                "new": {"digest": str(named_blob("manifest x2", 1).digest), "created": "2026-02-01T03:04:05Z"},
                "layers": {
                    "kept": [{"digest": str(named_blob("base", 1).digest), "size": 30_000_000}],
                    "added": [
                        {"digest": str(named_blob("x2", 1).digest), "size": 1_000_000},
                        {"digest": str(named_blob("new", 1).digest), "size": 1_500_000},
                    ],
                    "dropped": [{"digest": str(named_blob("x1", 1).digest), "size": 2_000_000}],
                },
                "fetch": 1_002_000,  # without the layer "new", which counts for "added"
            }
        },
    }
    assert objects[1]["new"] is None
    assert json.loads(json.dumps(objects)) == objects


def test_equal_locks_have_no_differences() -> None:
    assert diff.compare(OLD_LOCK.references, OLD_LOCK.references) == ()


def test_updates_leave_out_references_that_are_only_locked() -> None:
    (reference,) = (each for each in NEW_LOCK.references if str(each) == LONG_NAME)
    current = {reference: NEW_LOCK.references[reference]}
    assert [str(change.reference) for change in diff.find_updates(OLD_LOCK.references, current)] == [LONG_NAME]
