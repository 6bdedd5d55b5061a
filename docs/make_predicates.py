"""Write one page per predicate type and the JSON Schemas that ship in the wheel, that of policies too, from the models.

    python docs/make_predicates.py            write
    python docs/make_predicates.py --check    fail if what lies there differs

The model is the one source of the shape; pages and schemas are made from it and never edited.
"""

import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from mlseal.evidence import predicates
from mlseal.policy import editor

HERE = Path(__file__).resolve().parent
SCHEMAS = HERE.parent / "mlseal" / "evidence" / "predicates" / "schemas"
NOTE = "<!-- Written by docs/make_predicates.py from the model; edit that. -->\n"


def schema(uri: str) -> str:
    """The JSON Schema of one type, with its URI as title and id."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{uri}#schema",
        **predicates.schema(uri),
    }
    return json.dumps({**document, "title": uri}, indent=2, sort_keys=True) + "\n"


def page(module: ModuleType) -> str:
    """The page of one type: purpose, example, fields with types, parsing rules."""
    text = inspect.getdoc(module) or ""
    summary, _, example = text.partition("Example::")
    title, _, body = summary.strip().partition("\n")
    block = "\n".join(line.removeprefix("    ") for line in example.strip("\n").splitlines())
    document = predicates.schema(module.URI)
    required = document.get("required", [])
    rows = [
        f"| `{name}` | {_type(field)} | {'yes' if name in required else 'no'} |"
        for name, field in document["properties"].items()
    ]
    return "\n".join(
        [
            NOTE,
            f"# {module.SHORT}",
            "",
            title,
            "",
            f"`predicateType`: `{module.URI}`",
            "",
            body.strip().replace("``", "`"),
            "",
            "## Example",
            "",
            "```json",
            block,
            "```",
            "",
            "## Fields",
            "",
            "| field | type | required |",
            "|---|---|---|",
            *rows,
            "",
            "## Parsing rules",
            "",
            "Unknown fields are ignored when verifying and never written. Numbers are finite; times are RFC 3339, UTC,",
            "and informational: freshness is judged by the verified time of the signature.",
            "",
        ]
    )


def _type(field: dict[str, object]) -> str:
    options = field.get("anyOf")
    if isinstance(options, list):
        return " or ".join(_type(option) for option in options if option.get("type") != "null")
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    if "enum" in field:
        return " · ".join(f"`{value}`" for value in field["enum"])  # type: ignore[attr-defined]
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"  # type: ignore[arg-type]
    return str(field.get("type", field.get("const", "any")))


def files() -> dict[Path, str]:
    """Every file that this program owns, with the content that it must have."""
    modules = predicates.MODULES
    wanted = {HERE / "predicates" / f"{module.SHORT}.md": page(module) for module in modules}
    wanted |= {SCHEMAS / f"{module.SHORT}.schema.json": schema(module.URI) for module in modules}
    wanted[editor.FILE] = editor.text()  # it completes the short names
    index = [NOTE, "# Predicate types", "", "| short name | predicate type | what it says |", "|---|---|---|"]
    for module in modules:
        line = (inspect.getdoc(module) or "").splitlines()[0]
        index.append(f"| [{module.SHORT}]({module.SHORT}.md) | `{module.URI}` | {line} |")
    return {**wanted, HERE / "predicates" / "README.md": "\n".join([*index, "", *_exempt(modules), ""])}


def _exempt(modules: Sequence[ModuleType]) -> list[str]:
    """Which types say what they do not prove, and why the others do not."""
    silent = [m for m in modules if "notProven" not in predicates.schema(m.URI)["properties"]]
    ours = [f"`{m.SHORT}`" for m in silent if m.URI.startswith("https://mlseal.dev/")]
    theirs = [f"`{m.SHORT}`" for m in silent if not m.URI.startswith("https://mlseal.dev/")]
    return [
        "Types of ours must say under `notProven` what a reader must not conclude. Exempt are",
        f"{' and '.join(ours)}: they claim nothing about a subject, they only take evidence",
        "back. The types of others have the fields of their specification; what they do not prove stands in the",
        f"[threat model](../threat-model.md): {', '.join(theirs)}.",
    ]


def main() -> None:
    """Write, or with --check compare."""
    wrong = []
    for path, content in files().items():
        if "--check" in sys.argv:
            if not path.is_file() or path.read_text() != content:
                wrong.append(path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    if wrong:
        sys.exit("out of date: " + ", ".join(str(p.name) for p in wrong) + "; remedy: python docs/make_predicates.py")


if __name__ == "__main__":
    main()
