"""With how many bits large products are made."""

from __future__ import annotations

import torch


def has_fast_bfloat16() -> bool:
    """Say whether this CPU multiplies bfloat16 matrices in hardware (AMX); elsewhere it is slower than float32."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def takes_bfloat16(precision: str) -> bool:
    """Say what a configured precision means on this machine: "auto" is bfloat16 where the CPU has AMX."""
    return precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16())
