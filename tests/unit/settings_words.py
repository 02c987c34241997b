"""Words of a command line for tests: values of settings stand as flags, and become one `--settings`."""

import dataclasses
import json

from defectflow.config.settings import Family
from defectflow.config.values import typed


def with_settings(words, kind, name: str = "", flag: str = "--settings") -> list[str]:
    """``words`` with every flag that names a field of ``kind`` gathered into JSON: `--coreset-max 3`, `--crop`."""
    family = isinstance(kind, Family)
    classes = list(kind.classes.values()) if family else [kind]
    hints = {f.name: f.type for cls in classes for f in dataclasses.fields(cls) if f.metadata["stages"]}
    given, rest, words = ({kind.key: name} if family else {}), [], [str(word) for word in words]
    while words:
        word = words.pop(0)
        key = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--") or (key not in hints and not (family and key == kind.key)):
            rest.append(word)
            continue
        values = []
        while words and not words[0].startswith("--"):
            values.append(typed(words.pop(0), int | float | None))
        many = "list[" in str(hints.get(key, ""))
        given[key] = values if many and values != ["auto"] else values[0] if values else True
    return [*rest, flag, json.dumps(given)]
