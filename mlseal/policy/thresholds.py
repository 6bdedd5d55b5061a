"""Of two conditions, whether the second asks for more: known only where they differ in one number at the end.

``X <= 0.10`` is stricter than ``X <= 0.15`` if X is the same text, since whatever satisfies the first satisfies the
second. Nothing else is ordered: two programs cannot be compared in general, and a wrong guess would call a loosening
a tightening.
"""

from __future__ import annotations

import re
from decimal import Decimal

from mlseal.policy.ordering import Relation

_BOUND = re.compile(r"(?P<what>[^&|?!<>=]+)(?P<sign><=|>=|<|>)\s*(?P<bound>-?[0-9]{1,18}(\.[0-9]{1,18})?)\s*")


def order(before: str, after: str) -> Relation:
    """How the condition `after` relates to the condition `before`, both CEL that compiled."""
    if before == after:
        return "same"
    old, new = _BOUND.fullmatch(before), _BOUND.fullmatch(after)
    if not old or not new or (old["what"].split(), old["sign"]) != (new["what"].split(), new["sign"]):
        return "changed"
    difference = Decimal(new["bound"]) - Decimal(old["bound"])
    if difference == 0:
        return "same"
    return "stricter" if (difference < 0) == old["sign"].startswith("<") else "looser"
