"""The name and the version of the image that a description is for."""

from osc_containers.errors import DescriptionError
from osc_containers.formats import xml_reader
from osc_containers.kiwi.description import Description
from osc_containers.kiwi.description_files import load


def read(description: Description) -> tuple[str, str]:
    """Return the name and the version in a description that was read before; the version may be empty.

    The version may be in a file that it includes.

    :raises DescriptionError: a file was changed since then, and is no longer valid.
    """
    includes = (include.name for include in description.includes if not include.is_nested)
    image_name = version = ""
    # The description comes first. kiwi takes the sections of an included file, but not the name in its root element.
    for name in dict.fromkeys([description.path.name, *includes]):
        try:
            root = xml_reader.parse(load(description.path.parent, name), name, ("preferences",))
        except ValueError as error:
            raise DescriptionError(str(error)) from None
        image_name = image_name or root.attributes.get("name", "")
        children = (child for element in root.children for child in element.children)
        version = version or next((child.text.strip() for child in children if child.name == "version"), "")
    return image_name or description.path.stem, version
