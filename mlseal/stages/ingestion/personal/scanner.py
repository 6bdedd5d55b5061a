"""Texts in, spans out: Presidio's parts, put together so that nothing is done twice or in vain.

`AnalyzerEngine` runs every recognizer on every text, after a whole linguistic pipeline. Here each different text is
looked at once, a recognizer is asked only about texts that can hold what it finds (a card number needs twelve digits),
and the model runs on texts with letters only, in batches. What is found is the same; a test compares both.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

from mlseal.errors import Unchecked
from mlseal.stages.ingestion.personal import model, recognizers

THRESHOLD = 0.4
"""The least score that counts: what a pattern has that validated, or one that the words around it support."""
LANGUAGE = "en"
_BATCH = 128
_SURE = 0.85
"""Presidio's score for what spaCy names, which says no score of its own."""
_LONGEST = 100_000


@dataclass(frozen=True, order=True)
class Span:
    """Characters ``start`` to ``end`` of a text are of a kind. Never leaves this process."""

    start: int
    end: int
    kind: str


def scan(texts: Sequence[str], context: Sequence[str] = ()) -> list[tuple[Span, ...]]:
    """The spans of each text, in order; texts that are equal are looked at once.

    Args:
        texts: any texts; one of more than 100,000 characters raises `Unchecked`.
        context: words that stand beside every text, such as its column's name.

    Raises `Unchecked` when a pattern took so long that Presidio passed over it: what was skipped was not found absent.
    """
    if any(len(text) > _LONGEST for text in texts):
        raise Unchecked("a text is too long", expected=f"at most {_LONGEST} characters", remedy="split it first")
    different = list(dict.fromkeys(texts))
    with _no_skipping():
        found = dict(zip(different, _scan(different, list(context)), strict=True))
    return [found[text] for text in texts]


def _scan(texts: list[str], context: list[str]) -> Iterator[tuple[Span, ...]]:
    asked = [(one, recognizers.worth(one, context)) for one in recognizers.build()]
    with_letters = [any(map(str.isalpha, text)) for text in texts]
    engine = _engine()
    pipeline = engine.nlp[LANGUAGE]
    docs = pipeline.pipe(
        (text for text, letters in zip(texts, with_letters, strict=True) if letters), batch_size=_BATCH
    )
    for text, letters in zip(texts, with_letters, strict=True):
        doc = next(docs) if letters else pipeline.make_doc(text)
        nlp = engine.named(doc)
        digits = sum(map(str.isdigit, text))
        results: list[Any] = []
        for recognizer, worth in asked:
            if worth(text, digits, letters):
                results += recognizer.analyze(text=text, entities=list(recognizers.KINDS), nlp_artifacts=nlp)
        yield _spans(text, results, doc, context)


def _spans(text: str, results: list[Any], doc: Any, context: list[str]) -> tuple[Span, ...]:
    """What scores enough, words around counted; overlapping spans of one kind are one."""
    from presidio_analyzer import EntityRecognizer

    sure = [one for one in results if one.score >= THRESHOLD]
    doubtful = [one for one in results if one.score < THRESHOLD]
    if doubtful:
        words = _engine().artifacts(doc)
        enhanced = _enhancer().enhance_using_context(text, doubtful, words, list(recognizers.build()), context)
        sure += [one for one in enhanced if one.score >= THRESHOLD]
    kept = EntityRecognizer.remove_duplicates(sure) if len(sure) > 1 else sure
    return tuple(sorted(Span(one.start, one.end, one.entity_type) for one in kept))


@cache
def _enhancer() -> Any:
    from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer

    return LemmaContextAwareEnhancer()


@cache
def _engine() -> Any:
    from presidio_analyzer.nlp_engine import NlpArtifacts, SpacyNlpEngine

    class PinnedEngine(SpacyNlpEngine):
        """Presidio's engine on the model that was compared with our digests; it downloads nothing."""

        def load(self) -> None:
            """Take the pipeline that `model` verified."""
            self.nlp = {LANGUAGE: model.load()}

        def named(self, doc: Any) -> Any:
            """What recognizers ask for: the entities, by Presidio's names. Words cost more than all else and wait."""
            entities, scores = self._get_updated_entities(doc.ents, [_SURE] * len(doc.ents))
            return SimpleNamespace(entities=entities, scores=scores)

        def artifacts(self, doc: Any) -> Any:
            """What context is read from; lower case stands for the lemma, since it is compared by substring."""
            entities, scores = self._get_updated_entities(doc.ents, [_SURE] * len(doc.ents))
            return NlpArtifacts(
                entities=entities,
                tokens=doc,
                tokens_indices=[token.idx for token in doc],
                lemmas=[token.lower_ for token in doc],
                nlp_engine=self,
                language=LANGUAGE,
                scores=scores,
            )

    engine = PinnedEngine(models=[{"lang_code": LANGUAGE, "model_name": model.NAME}])
    engine.load()
    return engine


class _Timeouts(logging.Handler):
    """Notices that Presidio gave a pattern up, which it tells by a warning alone."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = False

    def emit(self, record: logging.LogRecord) -> None:
        """Remember; the record itself may quote a text and goes nowhere."""
        self.seen |= "timed out" in str(record.msg)


@contextlib.contextmanager
def _no_skipping() -> Iterator[None]:
    logger, handler = logging.getLogger("presidio-analyzer"), _Timeouts()
    propagate, level = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        logger.setLevel(level)
    if handler.seen:
        raise Unchecked("a pattern took too long on a text and was passed over", remedy="split the longest texts")
