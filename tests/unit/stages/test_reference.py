"""The pages say what the signatures say."""

from pathlib import Path

import pytest

from mlseal.errors import Misuse
from mlseal.stages import reference, registry

PAGES = Path(__file__).parents[3] / "docs" / "stages"


@pytest.mark.parametrize("name", registry.BUILTIN)
def test_the_generated_part_of_each_page_is_current(name):
    page = (PAGES / f"{name}.md").read_text()
    assert reference.update(page, registry.load(name).stage) == page, (
        "run: python -m mlseal.stages.reference docs/stages"
    )


def test_the_list_of_all_stages_is_current_and_says_what_is_not_proven():
    page = (PAGES.parent / "stages.md").read_text()
    assert page == reference.listing(), "run: python -m mlseal.stages.reference docs/stages"
    for name in registry.BUILTIN:
        stage = registry.load(name).stage
        assert f"[`{name}`](stages/{name}.md)" in page and stage.cost in page
        assert all(text in page for text in stage.not_proven)
    assert "(../stages.md)" in (PAGES / "README.md").read_text()


def test_a_page_without_marks_is_refused():
    with pytest.raises(Misuse, match="no marked part"):
        reference.update("# page\n", registry.load("training.run").stage)
