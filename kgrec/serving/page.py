"""The page for people, and the policy that lets nothing but its own script and style run."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).with_name("page.html").read_bytes()


def policy(page: bytes) -> str:
    """Return a content security policy that allows a page's inline scripts and styles by their hash, nothing else."""
    allowed = {}
    for tag in ("script", "style"):
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(block).digest()).decode() for block in blocks]
        allowed[tag] = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; connect-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )


PAGE_POLICY: Final = policy(PAGE)
