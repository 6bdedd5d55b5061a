"""`mlseal lineage`: its five forms, its exit codes, and names that would break out of each form."""

import json
import math
import random
import re
import sys
import uuid
from datetime import UTC, datetime
from itertools import combinations
from xml.etree import ElementTree as ET

import pydot
import pytest

from mlseal.cli import lineage_events, lineage_html, lineage_layout, lineage_text, lineage_words
from mlseal.evidence.identity import Identity
from mlseal.evidence.lineage import Artifact, Edge, Gap, Graph, Step, TakenBack, artifact_id, evidence_node
from mlseal.evidence.verifying import Assurance

HOSTILE = '</script><script>alert(1)</script>"\'\n\r\t\\N\\"]; } \x1b[31m\u202egnp.exe &amp; <!-- ]]> \ud800 \x00'
SVG = "{http://www.w3.org/2000/svg}"


def step(number, kind="slsa-provenance", job="training.run", **more):
    evidence_id = f"{number:064x}"
    signer = Identity("https://demo.mlseal.local/issuer", more.pop("san", "https://demo.mlseal.local/roles/producer"))
    time = datetime(2026, 11, 23, 4, 0, number % 60, tzinfo=UTC)
    assurance = Assurance("local", "pinned", "local")
    uri = f"https://mlseal.dev/{kind}/v0.1"
    return Step(
        evidence_node(evidence_id),
        evidence_id,
        uri,
        kind,
        signer,
        time,
        "log1.demo",
        number,
        "ab" * 32,
        assurance,
        job,
        **more,
    )


def story(name="model", job="training.run"):
    """One of everything, as `lineage_walk` would give it."""
    model, data, code = (
        Artifact(artifact_id(c * 64), c * 64, [n], followed=True) for c, n in zip("abc", (name, "data", "code"))
    )
    code.names, code.called, code.followed = [], [name], False
    bare = Artifact("undigested:x", None, called=[name])
    build, claim = (
        step(1, job=job, strength="measured", builder="https://b"),
        step(2, "data-provenance", "data-provenance", strength="claimed", origin="ran"),
    )
    fair, verdict, taken = (
        step(3, "fairness", strength="measured"),
        step(4, "slsa-vsa", outcome="allowed"),
        step(5, "revocation"),
    )
    fair.taken_back = [TakenBack(taken.signer, "withdrawn", taken.evidence_id, True)]
    gap = Gap(evidence_node("f" * 64), "f" * 64, "unverifiable", f"broken: {name}", fair.signer, "log1.demo", 7)
    lost = Gap(evidence_node("e" * 64), "e" * 64, "withheld", "nobody shows its bundle", fair.signer, "log1.demo", 8)
    graph = Graph(model.sha256, "up", 9, (model.id,))
    graph.artifacts = {a.id: a for a in (model, data, code, bare)}
    graph.steps = {s.id: s for s in (build, claim, fair, verdict, taken)}
    graph.gaps = {g.id: g for g in (gap, lost)}
    graph.add(
        [
            Edge(data.id, build.id, "used", False, name),
            Edge(code.id, build.id, "used", True, "code"),
            Edge(build.id, model.id, "produced"),
            Edge(bare.id, claim.id, "used", True, name),
            Edge(claim.id, data.id, "recorded", True),
            Edge(fair.id, model.id, "about"),
            Edge(verdict.id, model.id, "about"),
            Edge(build.id, verdict.id, "read"),
            Edge(gap.id, verdict.id, "read"),
            Edge(taken.id, fair.id, "revokes"),
        ]
    )
    return graph


def text_of(graph, **kwargs):
    from io import StringIO

    from rich.console import Console

    held = StringIO()
    lineage_text.write_text(graph, Console(file=held, **kwargs))
    return held.getvalue()


# The command, on real evidence.


@pytest.fixture
def signed(authority, tmp_path):
    """A file that somebody made a claim about; returns its path."""
    (tmp_path / "data.csv").write_text(str(tmp_path))
    (tmp_path / "result.json").write_text('{"result": "PASSED", "configuration": []}')
    done = authority.call(
        "sign",
        str(tmp_path / "data.csv"),
        "--type",
        "test-result",
        "--predicate",
        str(tmp_path / "result.json"),
        "--store",
        str(authority.store.root),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "data.csv"


def lineage(authority, *arguments):
    return authority.call("lineage", *map(str, arguments), "--store", str(authority.store.root))


def test_the_five_forms_tell_the_same(authority, signed, tmp_path):
    whole = json.loads(lineage(authority, signed, "--json").stdout)
    assert json.loads(lineage(authority, signed, "--format", "json").stdout) == whole
    assert (whole["schema"], whole["complete"], whole["direction"]) == (lineage_words.SCHEMA, True, "up")
    (only,) = whole["steps"]
    assert only["kind"] == "test-result" and only["outcome"] == "PASSED"
    assert only["signer"] == {"issuer": authority.issuer, "san": authority.san("producer")}
    text = lineage(authority, signed).stdout
    assert "data.csv" in text and only["signer"]["san"].removeprefix("https://") in text and "judges nothing" in text
    (event,) = map(json.loads, lineage(authority, signed, "--format", "openlineage").stdout.splitlines())
    assert event["run"]["facets"]["mlseal_evidence"]["evidenceId"] == only["evidenceId"]
    for form, path in (("html", tmp_path / "l.html"), ("dot", tmp_path / "l.dot"), ("text", tmp_path / "l.txt")):
        done = lineage(authority, signed, "--format", form, "-o", path)
        assert (done.returncode, done.stdout) == (0, "") and "data.csv" in path.read_text()


def test_incomplete_is_said_in_the_output_and_in_the_exit_code(new_authority, tmp_path):
    alone = new_authority()
    (tmp_path / "result.json").write_text('{"result": "PASSED", "configuration": []}')
    for name in ("shown", "hidden"):
        (tmp_path / name).write_text(name)
        assert (
            alone.call(
                "sign",
                str(tmp_path / name),
                "--type",
                "test-result",
                "--predicate",
                str(tmp_path / "result.json"),
                "--store",
                str(alone.store.root),
                "-o",
                str(tmp_path / f"{name}.json"),
            ).returncode
            == 0
        )
    from mlseal.evidence.bundle import Bundle

    alone.store.path(Bundle.read(tmp_path / "hidden.json").evidence_id).unlink()
    done = lineage(alone, tmp_path / "shown", "--json")
    assert done.returncode == 11 and json.loads(done.stdout)["complete"] is False
    assert json.loads(done.stderr)["error"] == "Unchecked"
    for form in ("text", "dot", "html", "openlineage"):
        done = lineage(alone, tmp_path / "shown", "--format", form)
        assert done.returncode == 11 and done.stdout and "incomplete" in done.stderr, form
    assert "GAP withheld statement" in lineage(alone, tmp_path / "shown").stdout
    assert '"lineageComplete": false' in lineage(alone, tmp_path / "shown", "--format", "openlineage").stdout


def test_wrong_calls_are_misuse_and_the_unknown_is_unchecked(authority, signed):
    assert lineage(authority, "no such thing").returncode == 2
    assert lineage(authority, signed, "--json", "--format", "html").returncode == 2
    assert lineage(authority, "cd" * 32).returncode == 11
    assert lineage(authority, signed, "--down").returncode == 11


def test_offline_from_exported_tiles(authority, signed, tmp_path):
    assert authority.call("log", "export", str(tmp_path / "log")).returncode == 0
    done = lineage(authority, signed, "--tiles", tmp_path / "log", "--trust", authority.trusted_root, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["steps"]) == 1


def test_without_the_library_the_remedy_names_the_extra(authority, signed, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("openlineage")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openlineage", None)
    done = lineage(authority, signed, "--format", "openlineage")
    assert done.returncode == 11 and "pip install 'mlseal[lineage]'" in done.stderr


# Names that nobody chose to be kind.


def test_html_is_one_well_formed_page_that_loads_and_runs_nothing():
    page = lineage_html.write(story(HOSTILE, HOSTILE))
    root = ET.fromstring(page.split("\n", 1)[1])  # raises where a name broke out
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"script", "img", "iframe", "link", "object", "embed", "image", "use", "a", "foreignObject"}
    names = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in names if name.startswith("on") or name.rpartition("}")[2] in ("href", "src")}
    assert "default-src 'none'" in page and "url(http" not in page and "@import" not in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e\ud800]", page)


@pytest.mark.parametrize("name", ["model", HOSTILE], ids=["plain", "hostile"])
def test_every_node_is_named_in_the_picture_and_no_box_lies_over_another(name):
    graph = story(name)
    root = ET.fromstring(lineage_html.picture(graph))
    groups = [g for g in root.iter(f"{SVG}g") if "node" in g.get("class", "").split()]
    shown = {group.find(f"{SVG}title").text for group in groups}
    placed = graph.placed()
    assert shown == {lineage_words.visible(node) for node in placed} and len(groups) == len(placed)
    assert set(graph.ids) - placed == {evidence_node("e" * 64)}, "the gap that nobody can place stands in words"
    boxes = []
    for group in groups:
        rect = group.find(f"{SVG}rect")
        boxes.append(tuple(float(rect.get(key)) for key in ("x", "y", "width", "height")))
        words = "".join(text.text or "" for text in group.iter(f"{SVG}text") if text.get("class") == "title")
        assert words, "a box without a name"
    assert not any(overlap(one, two) for one, two in combinations(boxes, 2))
    page = lineage_html.write(graph)
    assert "Incomplete." in page and "evidence:" + "e" * 64 in page


def test_claims_are_dashed_and_what_was_taken_back_is_red():
    root = ET.fromstring(lineage_html.picture(story()))
    looks = {
        g.find(f"{SVG}title").text: g.get("class").split()
        for g in root.iter(f"{SVG}g")
        if g.find(f"{SVG}title") is not None
    }
    assert "claim" in looks[evidence_node(f"{2:064x}")] and "build" in looks[evidence_node(f"{1:064x}")]
    assert "revoked" in looks[evidence_node(f"{3:064x}")] and "gap" in looks[evidence_node("f" * 64)]
    drawn = [(p.find(f"{SVG}title").text, p.get("class").split()) for p in root.iter(f"{SVG}path") if p.get("class")]
    assert sorted(kind for kind, look in drawn if "claimed" in look) == ["recorded", "used", "used"]
    assert ("produced", ["edge"]) in drawn and [kind for kind, look in drawn if "revokes" in look] == ["revokes"]


@pytest.mark.parametrize("name", ["model", HOSTILE, "\\", 'a\\"; b -> c; //', "<b>bold</b>", "&quot;"])
def test_dot_is_source_in_which_no_name_is_more_than_a_name(name):
    graph = story(name, name)
    (parsed,) = pydot.graph_from_dot_data(lineage_text.write_dot(graph))
    nodes = [node for node in parsed.get_nodes() if node.get_name() not in ("node", '"\\n"')]
    assert len(nodes) == len(graph.ids) and len(parsed.get_edges()) == len(graph.edges)
    assert not {node.get_name().strip('"').split(":")[0] for node in nodes} - {"sha256", "evidence", "undigested"}
    dashed = [edge for edge in parsed.get_edges() if edge.get("style") == '"dashed"']
    assert len(dashed) == sum(edge.claimed for edge in graph.edges)


def test_json_keeps_names_as_they_are():
    held = json.loads(json.dumps(lineage_words.document(story(HOSTILE))))
    assert held["artifacts"][0]["names"] == [HOSTILE]
    assert {edge.get("name") for edge in held["edges"]} >= {HOSTILE}
    assert set(held) == {
        "schema",
        "digest",
        "direction",
        "complete",
        "treeSize",
        "start",
        "artifacts",
        "steps",
        "gaps",
        "edges",
    }


@pytest.mark.parametrize("width", [20, 80, 400])
def test_text_fits_the_terminal_and_holds_no_control_character(width):
    graph = story("漢字" * 60 + HOSTILE)
    from rich.cells import cell_len

    shown = text_of(graph, width=width, force_terminal=True, color_system=None)
    assert all(cell_len(line) <= width for line in shown.splitlines())
    assert not [c for c in shown if c != "\n" and not c.isprintable()]
    for node in graph.ids:
        assert lineage_words.title(graph, node)[: width // 4] in text_of(graph)


@pytest.mark.slow
def test_every_form_of_ten_thousand_statements_is_written():
    graph = cycle(5_000)
    page = lineage_html.write(graph)
    assert page.count('class="node') == 10_000 and len(lineage_events.made(graph)) == 5_000
    assert lineage_text.write_dot(graph).count("->") == 10_000 == len(lineage_words.document(graph)["edges"])


def test_text_of_a_long_chain_and_of_a_cycle_ends():
    graph = cycle(3_000)
    shown = text_of(graph)
    assert shown.count("training.run") == 3_000 and "(see above)" in shown
    assert max(map(len, shown.splitlines())) < 250


def cycle(length):
    """Things made from one another, the first from the last."""
    graph = Graph("0" * 64, "up", 1, (artifact_id(f"{0:064x}"),))
    for number in range(length):
        graph.artifacts[artifact_id(f"{number:064x}")] = Artifact(
            artifact_id(f"{number:064x}"), f"{number:064x}", followed=True
        )
        one = step(number)
        graph.steps[one.id] = one
    links = [Edge(one.id, artifact_id(f"{number:064x}"), "produced") for number, one in enumerate(graph.steps.values())]
    links += [
        Edge(artifact_id(f"{(n + 1) % length:064x}"), one.id, "used") for n, one in enumerate(graph.steps.values())
    ]
    graph.add(links)
    return graph


# The layout, alone.


def overlap(one, two):
    (x, y, w, h), (a, b, c, d) = one, two
    return x < a + c - 1e-6 and a < x + w - 1e-6 and y < b + d - 1e-6 and b < y + h - 1e-6


def require_apart(layout):
    """No two boxes overlap: those of one column by their heights, those of two columns by their sides."""
    columns = {}
    for box in layout.boxes:
        assert all(map(math.isfinite, (box.x, box.y))) and box.x >= 0 and box.y >= -1e-6
        columns.setdefault(box.x, []).append(box)
    for column in columns.values():
        column.sort(key=lambda box: box.y)
        assert all(one.y + one.height <= two.y + 1e-6 for one, two in zip(column, column[1:]))
    lefts = sorted(columns)
    assert all(max(box.width for box in columns[x]) + x <= y + 1e-6 for x, y in zip(lefts, lefts[1:]))


@pytest.mark.parametrize("seed", range(8))
def test_boxes_of_random_graphs_never_overlap_and_edges_end_at_their_boxes(seed):
    rng = random.Random(seed)
    count = rng.randint(1, 120)
    sizes = [(rng.randint(20, 300), rng.randint(10, 90)) for _ in range(count)]
    edges = [(rng.randrange(count), rng.randrange(count)) for _ in range(rng.randint(0, 3 * count))]
    layout = lineage_layout.place(sizes, edges)
    require_apart(layout)
    assert [(box.width, box.height) for box in layout.boxes] == sizes and len(layout.routes) == len(edges)
    for (source, target), route in zip(edges, layout.routes):
        assert route and touches(layout.boxes[source], route[0]) and touches(layout.boxes[target], route[-1])
        assert all(0 <= x <= layout.width and -1e-6 <= y <= layout.height for x, y in route)


def touches(box, point):
    return point[0] in (box.x, box.x + box.width) and box.y <= point[1] <= box.y + box.height


def test_what_comes_after_stands_to_the_right():
    layout = lineage_layout.place([(10, 10)] * 5, [(0, 1), (1, 2), (0, 2), (3, 2), (2, 4)])
    x = [box.x for box in layout.boxes]
    assert x[0] < x[1] < x[2] < x[4] and x[3] == x[1], "a source stands just before what it leads to"
    assert len(layout.routes[2]) == 4, "an edge over a layer goes through it"


def test_a_cycle_and_a_loop_are_drawn():
    layout = lineage_layout.place([(10, 10)] * 2, [(0, 1), (1, 0), (0, 0)])
    require_apart(layout)
    assert [len(route) for route in layout.routes] == [2, 2, 1]
    assert lineage_layout.place([], []) == lineage_layout.Layout((), (), 0.0, 0.0)


@pytest.mark.parametrize("shape", ["chain", "star", "random"])
def test_ten_thousand_nodes_cost_seconds_and_no_stack(shape):
    rng = random.Random(1)
    count = 10_000
    edges = {
        "chain": [(n, n + 1) for n in range(count - 1)],
        "star": [(0, n) for n in range(1, count)],
        "random": [(rng.randrange(n), n) for n in range(1, count) for _ in range(2)],
    }[shape]
    require_apart(lineage_layout.place([(200, 60)] * count, edges))


# OpenLineage.


def test_events_are_what_the_librarys_own_classes_make_of_our_digests():
    from openlineage.client.event_v2 import RunEvent

    graph = story()
    events = lineage_events.made(graph)
    assert all(isinstance(event, RunEvent) for event in events) and len(events) == len(graph.steps)
    build, claim, fair, verdict, taken = [json.loads(line) for line in lineage_events.write(graph).splitlines()]
    assert build["eventType"] == "COMPLETE" and build["eventTime"] == "2026-11-23T04:00:01Z"
    assert build["job"]["name"] == "training.run" and build["job"]["namespace"] == "mlseal://log1.demo"
    (made,) = build["outputs"]
    assert (made["namespace"], made["name"]) == ("sha256", "a" * 64)
    assert made["facets"]["version"]["datasetVersion"] == f"sha256:{'a' * 64}"
    assert made["facets"]["mlseal_digest"]["sha256"] == "a" * 64
    links = {given["name"]: given["inputFacets"]["mlseal_link"] for given in build["inputs"]}
    assert (links["b" * 64]["claimed"], links["c" * 64]["claimed"]) == (False, True)
    assert claim["job"]["name"] == "claimed/data-provenance" and claim["job"]["facets"]["jobType"]["jobType"] == "CLAIM"
    assert claim["inputs"][0]["namespace"] == "mlseal-undigested"
    assert fair["run"]["facets"]["mlseal_evidence"]["revoked"] is True and fair["outputs"] == []
    assert verdict["run"]["facets"]["mlseal_evidence"]["restsOn"] == [f"{1:064x}", "f" * 64]
    assert taken["job"]["facets"]["jobType"]["jobType"] == "REVOCATION"
    owner = build["job"]["facets"]["ownership"]["owners"]
    assert owner == [{"name": "https://demo.mlseal.local/roles/producer", "type": "SIGNER"}]


def test_run_ids_follow_from_the_evidence():
    first, second = (json.loads(line)["run"]["runId"] for line in lineage_events.write(story()).splitlines()[:2])
    assert first == lineage_events.run_id(f"{1:064x}") != second
    assert uuid.UUID(first).version == 5
    assert first == str(uuid.uuid5(uuid.UUID("43546a9b-cf62-5319-bbab-d4137105e19b"), f"{1:064x}")), "for ever the same"
    assert lineage_events.write(story()) == lineage_events.write(story())


def test_every_facet_says_who_made_it_and_by_which_schema():
    found = 0
    for line in lineage_events.write(story(HOSTILE, HOSTILE)).splitlines():
        event = json.loads(line)
        holders = [event["run"], event["job"], *event["inputs"], *event["outputs"]]
        for holder in holders:
            for key in ("facets", "inputFacets", "outputFacets"):
                for name, facet in holder.get(key, {}).items():
                    assert facet["_producer"] == lineage_events.PRODUCER and "#/$defs/" in facet["_schemaURL"]
                    ours = facet["_schemaURL"].startswith(lineage_events.SCHEMA)
                    assert ours is name.startswith("mlseal_")
                    found += 1
    assert found > 20
