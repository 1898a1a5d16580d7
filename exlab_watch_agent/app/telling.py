"""Puts together what tells others of a running agent: the judgement, the diary of the week, and what is published of them."""

from __future__ import annotations

from collections.abc import Callable

from exlab_watch_agent.app.attending import Attending, Concern
from exlab_watch_agent.app.build import Parts, Scope
from exlab_watch_agent.app.config_file import ConfigWatch
from exlab_watch_agent.app.diary import Diary
from exlab_watch_agent.app.publish import Attempts, HolderFile, Publisher, lanes_left, read_last_agent, read_live
from exlab_watch_agent.core.snapshot import ObserverView
from exlab_watch_agent.engine.loop import Engine


def publisher_of(
    parts: Parts,
    engine: Engine,
    scope: Scope,
    *,
    flags: str,
    holder_file: HolderFile,
    attempts: Attempts,
    observer: Callable[[], ObserverView],
    config: ConfigWatch,
) -> Publisher:
    """Return what publishes of this agent, which goes on from what an earlier one left."""
    left = read_live(parts.state_dir)
    diary = Diary(parts.state_dir, parts.clock)
    is_for_all = scope.only is None and scope.is_working
    concern = Concern(parts.policy, parts.roots, flags, is_for_all)
    attending = Attending(parts.store, engine, parts.clock, concern, diary=diary, first_seen=left.first_seen)
    return Publisher(
        parts,
        engine,
        holder_file=holder_file,
        attempts=attempts,
        observer=observer,
        before={} if scope.is_everything else lanes_left(left),
        attending=attending,
        diary=diary,
        notes_left=left.notes,
        config=config,
        last_agent=read_last_agent(parts.state_dir),
        is_for_all=is_for_all,
    )
