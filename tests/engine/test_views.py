"""What other threads read of the engine: values that never change, another one after each change and after nothing else."""

from __future__ import annotations

from dataclasses import replace

from exlab_watch_agent.core.snapshot import FolderProblem, Note
from exlab_watch_agent.engine.views import EngineView, RunView, Views

GONE = Note("run_gone", "it is gone")
BROKEN = FolderProblem("its creation.json is no JSON", "creation_invalid_json")


def test_what_was_read_stays_as_it_is_while_the_loop_goes_on() -> None:
    views = Views()
    views.tell("a", RunView(reason="no data files yet"))
    read = views.now
    views.tell("a", RunView(problem=GONE))
    views.tell("b", RunView(reason="it must be quiet"))
    views.tell_of_folder("/data/x", BROKEN)
    assert dict(read.runs.items()) == {"a": RunView(reason="no data files yet")}
    assert dict(views.now.runs.items()) == {
        "a": RunView(problem=GONE),
        "b": RunView(reason="it must be quiet"),
    }
    views.forget("a")
    views.tell_of_folder("/data/x", None)
    assert (set(views.now.runs), len(views.now.folders)) == ({"b"}, 0)


def test_saying_the_same_again_makes_no_new_value() -> None:
    views = Views()
    views.tell("a", RunView(reason="no data files yet"))
    views.tell_of_folder("/data/x", BROKEN)
    before = views.now
    views.tell("a", RunView(reason="no data files yet"))
    views.tell_of_folder("/data/x", BROKEN)
    views.tell_of_folder("/data/y", None)
    views.forget("b")
    assert views.now is before


def test_two_views_of_the_engine_are_compared_without_going_through_the_runs() -> None:
    class Uncomparable(RunView):
        def __eq__(self, _: object) -> bool:
            raise AssertionError("the runs were gone through")

        __hash__ = None  # type: ignore[assignment]

    views = Views()
    views.now = replace(views.now, runs=views.now.runs.insert("a", Uncomparable()))
    before = EngineView({}, views.now)
    views.now = replace(views.now, runs=views.now.runs.insert("b", RunView()))
    assert EngineView({}, views.now) != before
    assert EngineView({}, views.now) == EngineView({}, views.now)


def test_only_what_a_person_should_know_is_news_of_a_run_that_rests() -> None:
    assert not RunView(reason="complete").has_news
    assert RunView(problem=GONE).has_news
    assert RunView(unreadable="raw/a.bin cannot be read", unreadable_looks=3).has_news
