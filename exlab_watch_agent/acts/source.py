"""What effects ask of a run's own folder before and after they work on it."""

from __future__ import annotations

from exlab_watch_agent.core.effects import Work
from exlab_watch_agent.core.events import EffectFailed
from exlab_watch_agent.core.inventory import Inventory
from exlab_watch_agent.errors import FailureKind, RootUnavailableError, RunUnreadableError, SourceChangedError
from exlab_watch_agent.ports import Ports


def unchanged_inventory(effect: Work, ports: Ports) -> Inventory:
    """Return the inventory. Raises: SourceChangedError when it is not the one that was judged complete."""
    inventory = ports.tree.inventory(effect.run_path)
    if inventory.fingerprint != effect.fingerprint:
        raise SourceChangedError("the run changed since it counted as complete")
    return inventory


def vanished(effect: Work, message: str, ports: Ports) -> EffectFailed:
    """Return the failure of a run whose file is gone: only where the rest of the run is there to be seen.

    With a root that went away all files are gone, and one that is back again has them all.
    """
    try:
        left = ports.tree.inventory(effect.run_path).fingerprint
    except RootUnavailableError as error:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error), is_source_away=True)
    except RunUnreadableError as error:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, str(error))
    if left == effect.fingerprint:
        return EffectFailed(effect.turn, FailureKind.UNKNOWN, f"{message}, and it was there again a moment later")
    return EffectFailed(effect.turn, FailureKind.LOCAL_FILE_VANISHED, message, fingerprint=left)
