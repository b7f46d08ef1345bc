"""What Lockstep reads in a wheel's METADATA (core metadata specification)."""

from dataclasses import dataclass

from packaging.metadata import RawMetadata, parse_email

_LONGEST_LICENCE = 120


@dataclass(frozen=True, slots=True)
class Declared:
    """What a distribution declares: the requirements (`Requires-Dist`, as they stand) and its licence."""

    requires: tuple[str, ...]
    licence: str | None


def declared(metadata: bytes) -> Declared:
    """Read METADATA; what is not there or not readable is left out, as installers do."""
    raw, _ = parse_email(metadata)
    return Declared(requires=tuple(raw.get("requires_dist", ())), licence=_licence(raw))


def _licence(raw: RawMetadata) -> str | None:
    # PEP 639's expression is exact; before it, a short `License` or else the classifiers said it.
    if expression := raw.get("license_expression"):
        return expression
    stated = (raw.get("license") or "").strip()
    if stated and len(stated) <= _LONGEST_LICENCE and "\n" not in stated and stated != "UNKNOWN":
        return stated
    classified = [
        classifier.rpartition(" :: ")[2]
        for classifier in raw.get("classifiers", ())
        if classifier.startswith("License :: ")
    ]
    return " AND ".join(sorted(classified)) or None
