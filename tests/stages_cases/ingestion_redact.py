"""`ingestion.redact`: as `ingestion.pii`, with a new table."""

from tests.stages_cases import Case
from tests.stages_cases.ingestion_pii import BAD, make

CASE = Case(make=make, bad=BAD, slow=True)
