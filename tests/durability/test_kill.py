"""After SIGKILL at any moment the archive has all committed images once; the next run completes it.

These tests draw eight moments; `python benchmarks/durability.py --kills 50` draws more.
"""

import random

import pytest

from rsir.archive import Archive
from tests.durability import durable


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, durable.Scenario]:
    return durable.scenarios(tmp_path_factory.mktemp("durability"), images=36)


def test_the_operations_are_many_commits(scenarios):
    wanted = {name: len(s.wanted) for name, s in scenarios.items()}
    assert wanted == {
        "index": 36,
        "update": 36,
        "delete": 18,
        "optimize": 18,
        "prune": 24,
        "life": 24,
    }
    assert min(len(scenarios[name].times) for name in ("index", "update", "life")) > 10


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("index", 0),
        ("index", 1),
        ("update", 0),
        ("delete", 0),
        ("optimize", 0),
        ("prune", 0),
        ("life", 0),
        ("life", 1),
    ],
)
def test_a_kill_loses_nothing_committed_and_the_next_run_completes(scenarios, name, seed):
    scenario = scenarios[name]
    killed = durable.kill(scenario, *scenario.moment(random.Random(seed)))
    assert killed.verdict == "ok", killed


@pytest.mark.parametrize("name", ["index", "update", "life"])
def test_a_kill_just_after_a_commit_leaves_it(scenarios, name):
    scenario = scenarios[name]
    killed = durable.kill(scenario, *scenario.after_a_call(0))
    assert killed.verdict == "ok", killed


def test_the_harness_sees_what_is_lost_or_twice(scenarios):
    scenario = scenarios["index"]
    scenario.begin()
    messages, _ = durable.run(scenario.task)
    must, may = durable.promised({}, messages)
    assert (must, may) == (scenario.wanted, None)
    durable.checked_after_kill(scenario, messages, must, may)
    archive = Archive.open(scenario.task.path)
    archive.delete(list(must)[:5])
    with pytest.raises(AssertionError, match="5 committed images are lost"):
        durable.checked_after_kill(scenario, messages, must, may)
    table = archive.store._handle.table
    table.add(table.search().limit(1).to_arrow())
    with pytest.raises(AssertionError, match="an id occurs twice"):
        durable.checked_after_kill(scenario, messages, must, may)
