"""How a stage runs, where not simply as one, from beginning to end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlseal.errors import Misuse
from mlseal.evidence.bundle import Bundle
from mlseal.stages.base import Stage
from mlseal.stages.shard import Shard


@dataclass(frozen=True)
class Manner:
    """What was asked for besides the arguments of the stage.

    Attributes:
        resume: keep checkpoints, and go on from the newest.
        shard: look at this part of the input; the evidence is partial.
        partials: evidence of all parts, to be merged instead of running.
        made: what the parts made, in any order; each is known by its digest.
    """

    resume: bool = False
    shard: Shard | None = None
    partials: tuple[Bundle, ...] = ()
    made: tuple[Path, ...] = ()

    def require_fits(self, stage: Stage) -> None:
        """Raise `Misuse` unless `stage` can run so."""
        if self.resume and not stage.resumable:
            raise Misuse(f"stage {stage.name} keeps no checkpoints", remedy="run it without --resume")
        if (self.shard or self.partials) and stage.merge is None:
            raise Misuse(f"stage {stage.name} does not run in shards", remedy="run it without --shard and --merge")
        if self.shard and self.partials:
            raise Misuse("a run looks at one shard or merges all of them", remedy="leave out --shard or --merge")
        if self.made and not self.partials:
            raise Misuse("what parts made is merged with their evidence", remedy="give --merge for each part too")


PLAIN = Manner()
"""As one, from beginning to end."""
