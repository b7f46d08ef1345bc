"""This machine's clock beside those of others. Tokens, certificates, signed requests and leases go by it."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from resolver.doctor.findings import Finding, note, well, wrong

CHECK = "clock"

_NOTABLE = 5.0  # seconds; a Date header has whole ones
_TOO_FAR = 60.0
_WAY_OUT = "keep the nodes' time right (chrony, systemd-timesyncd); S3 refuses requests that are 15 minutes off"


def of_answer(about: str, answer: httpx.Response, received: datetime) -> list[Finding]:
    """By the Date of an HTTP answer (RFC 9110, 6.6.1), where it has one."""
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return []
    return [compared(about, theirs.replace(tzinfo=theirs.tzinfo or UTC), received)]


def compared(about: str, theirs: datetime, ours: datetime) -> Finding:
    """By another's time at a moment of ours; both are aware."""
    skew = (ours - theirs).total_seconds()
    if abs(skew) <= _NOTABLE:
        return well(CHECK, about, f"agrees within {_NOTABLE:g} s")
    told = f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} it"
    return (wrong if abs(skew) > _TOO_FAR else note)(CHECK, about, told, _WAY_OUT)
