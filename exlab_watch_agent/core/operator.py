"""Who gives a command: the account that the system names, beside the name that was claimed.

Decided here: how that is said in one line, and by which members it is written. Not here: how the system is asked
(adapters/local/account.py). A name that came with nothing of the system's beside it (from an older version, or of a program in this
process) is all there is, and is said as it came: without a uid nobody vouches for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exlab_watch_agent.core.text import named

UNKNOWN = "unknown"
CLAIM_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class Operator:
    """An account. `uid`: the system's number of it, None where the system does not vouch for `name`.

    `claimed`: the name that the command came with, where that is another one.
    """

    name: str = UNKNOWN
    uid: int | None = None
    claimed: str = ""

    def __str__(self) -> str:
        """Return `asmith (uid 1000)`, or `asmith (uid 1000), as 'prof.x'`: what `operator` says in the trail."""
        account = self.name if self.uid is None else f"{self.name} (uid {self.uid})"
        return account if not self.claimed else f"{account}, as {self._claim()}"

    def _claim(self) -> str:
        said = named(self.claimed, limit=CLAIM_CHARS_MAX)
        return said if said.startswith("'") else f"'{said}'"

    def to_json(self) -> dict[str, str | int]:
        """Return the members beside a command in the trail; none where the system said nothing."""
        if self.uid is None:
            return {}
        account: dict[str, str | int] = {"uid": self.uid, "login": self.name}
        return account | ({"claimed": self.claimed} if self.claimed else {})


def operator_of(account: Operator, claimed: object) -> Operator:
    """Return the system's account with what was claimed beside it, where the claim says anything else."""
    name = str(claimed or "")
    return Operator(account.name, account.uid, "" if name in ("", account.name) else name)


def request_members(operator: Operator) -> dict[str, str | int | None]:
    """Return what a request says of who left it: the claim under its first name, and what the asking process knows."""
    return {"operator": operator.claimed or operator.name, "uid": operator.uid, "login": operator.name}


def operator_in(request: Mapping[str, object], owner: Operator | None) -> Operator:
    """Return who left a request. `owner`: the account of the request's file, which outdoes all that the file says.

    None: where files have no owner that counts (Windows), or where no file was; then the name is what was claimed.
    """
    claimed = request.get("operator")
    return operator_of(owner, claimed) if owner is not None else Operator(str(claimed or UNKNOWN))
