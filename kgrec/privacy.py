"""How people are named where others read along: by a salted hash, unless the config allows their ids."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets

from pydantic import BaseModel, ConfigDict, Field

from kgrec.artifacts import write_atomically
from kgrec.workspace import Workspace

_DIGITS = 12


class PrivacyConfig(BaseModel):
    """How people are named where others read along."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_ids: bool = Field(
        default=False,
        description="whether reports (and MLflow's copies of them) name the users of their examples by id; "
        "false: by a hash with a salt that the workspace keeps to itself; and whether Prefect's states and the webhook "
        "repeat the example value of a fault of the input",
    )


def pseudonym(user: str, salt: str) -> str:
    """Return the name of a person for others: the same in all reports of a workspace, in no other one.

    >>> pseudonym("ann", "00")
    '#78352bae17eb'
    """
    return "#" + hmac.new(bytes.fromhex(salt), user.encode(), hashlib.sha256).hexdigest()[:_DIGITS]


def salt_of(workspace: Workspace) -> str:
    """Return the workspace's salt, made now when there is none."""
    if not workspace.salt.exists():
        write_atomically(workspace.salt, (json.dumps({"salt": secrets.token_hex(32)}) + "\n").encode())
    return str(json.loads(workspace.salt.read_text(encoding="utf-8"))["salt"])
