"""Read an XML file without entities, which can make a small file fill the memory. Standard library only."""

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from defectflow.core.files import UserError


def read_xml(path: str) -> Element:
    """The root element of an XML file.

    Raises:
        UserError: it is absent, not well formed, or declares a document type (annotation tools write none).
    """
    tree, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise UserError(f"{path}: it declares a document type, which may hide entities (delete `<!DOCTYPE ...>`)")

    parser.buffer_text = True
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        with open(path, "rb") as stream:
            parser.ParseFile(stream)
        return tree.close()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (expat.ExpatError, AssertionError, OSError) as error:
        raise UserError(f"{path}: not valid XML ({error}; export it again)") from None


def text_of(element: Element | None, path: str, default: str = "") -> str:
    """The text of a sub-element without spaces around it."""
    return ((element.findtext(path) if element is not None else None) or default).strip()
