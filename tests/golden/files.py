"""Golden files, which `make golden` writes anew."""

import os


def golden(path, text):
    """The text of a golden file, which `make golden` writes."""
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path.read_text(encoding="utf-8")
