"""A pack for models of another kind of training than ``training.run``, whose evidence takes the place of provenance.

Each of the packs asks for ``slsa-provenance``, follows its ``data`` and ``code``, and imagines it in its controls. For
another stage of training, by the text, so that comments stay:

1. The rule on the stage's own predicate takes that place; what a pack adds to it (the purpose, the list of framework
   controls) stays, and so does every other rule. A bound on what a person loses is also evidence of privacy risk.
2. What followed ``data`` follows whatever data the new predicate names by digest.
3. ``code-scan`` goes: the program is mlseal's own, no code of the pack's owner trained. docs/packs.md says which
   framework controls nothing speaks to then.
4. Controls are changed alike; those about the kind of builder give way to the stage's own.
"""

from __future__ import annotations

import re
from pathlib import Path

from mlseal.errors import UnknownName

RUN = "training.run"
"""The stage that the packs are written for."""
TRAINERS = {
    "training.dp": ("dp-training", 'dataset.digest: {sha256: "{sha256:other}"}'),
    "training.federated": ("federated-training", 'clients.0.dataSha256: "{sha256:other}"'),
}
"""By stage: its predicate, and how a control says that it was trained on other data than the rest speaks of."""
_FOLDER = Path(__file__).parent / "trained_by"
_RULE = re.compile(r"  # Proves: which data and which program .*?  +p\.runDetails\.builder\.id in [^\n]*\n", re.DOTALL)
_SCAN = re.compile(r"(  # [^\n]*\n){2}  - predicate: test-result\n    id: code-scan\n(    [^\n]*\n)+")
_SAMPLE = re.compile(r"      - predicate: slsa-provenance\n.*?          runDetails: [^\n]*\n", re.DOTALL)
_SCANNED = re.compile(r"      - predicate: test-result\n        id: code-scan\n(        [^\n]*\n)+")
_TESTS = re.compile(r'  - \{name: "(code-scan: |slsa-provenance: built on )[^\n]*\n')
_OTHER = 'buildDefinition.resolvedDependencies.0.digest: {sha256: "{sha256:other}"}'
_CHAIN = "    of: slsa-provenance\n    input: data\n"
_SIGNED = "--producer-san SAN "
_BUILT, _PRIVACY = "NIST-AI-RMF:MEASURE-2.8, ", "NIST-AI-RMF:MEASURE-2.10, "


def swapped(text: str, beside: str, stage: str) -> tuple[str, str]:
    """The texts of a pack and of its controls for models that `stage` trained. Raises `UnknownName`."""
    if stage == RUN:
        return text, beside
    if stage not in TRAINERS:
        raise UnknownName("no pack is for models of that", got=stage[:100], expected=", ".join((RUN, *TRAINERS)))
    predicate, other = TRAINERS[stage]
    sample, first, tests = (_FOLDER / f"{stage}.tests.yaml").read_text().partition("  - {name: ")
    text = _SCAN.sub("", _RULE.sub((_FOLDER / f"{stage}.yaml").read_text(), text))  # (1) (3)
    if predicate == "dp-training":
        text = text.replace(_BUILT, f"{_BUILT}{_PRIVACY}")
    text = text.replace(_CHAIN, f"    of: {predicate}\n").replace(_SIGNED, f"{_SIGNED}--provenance {predicate} ")  # (2)
    beside = _TESTS.sub("", _SCANNED.sub("", _SAMPLE.sub(sample, beside)))  # (4)
    return text, beside.replace(_OTHER, other).replace("slsa-provenance", predicate) + first + tests
