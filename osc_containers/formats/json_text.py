"""JSON as text for people and for diffs: sorted keys, an indentation of two spaces, a final newline."""

import io
import json


def dumps(document: object, *, ensure_ascii: bool = True) -> bytes:
    """Return the text of a document in UTF-8. A part may be a function that returns it, and that is called in its turn.

    Of a large document that is made of such parts, only one part at a time is in memory.
    """
    # `json.dumps` keeps all pieces of the text in a list, as io.StringIO does: for large documents, they take several
    # times as much memory.
    content = io.BytesIO()
    with io.TextIOWrapper(content, "utf-8", newline="\n") as text:
        json.dump(document, text, indent=2, sort_keys=True, ensure_ascii=ensure_ascii, default=_call)
        text.write("\n")
        text.flush()
        return content.getvalue()


def _call(part: object) -> object:
    if callable(part):
        return part()
    raise TypeError(f"{type(part).__name__} is not JSON")
