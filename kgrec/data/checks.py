"""What is wrong with the input: problems that refuse it, and bad rows that are left out, counted and written down.

For every input: rows in == rows kept + rows quarantined + rows of events that no role names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from kgrec.columns import LINE, QUARANTINE_SCHEMA, REASON, SOURCE
from kgrec.data.partitions import ParseAll, computed_by_partition, parse_in_turn
from kgrec.data.sources import LINE_OF_ROW, SOURCE_OF_ROW, Table, reading
from kgrec.data.table_files import write_rows
from kgrec.errors import InputError, Problem, UnreachableError
from kgrec.graph.merging import repeated
from kgrec.resources import DEFAULT, ResourcesConfig

ROW_OF_INPUT: Final = "__row__"
_BATCH: Final = 262_144  # rows of what is kept on the way
DUPLICATE_ROW: Final = "duplicate row"
_ALIKE: Final = "__alike__"
_BYTES_TO_COMPARE: Final = 48  # of a row whose hash is compared with all others: row, hash, sorted, marked


@dataclass(frozen=True)
class Fault:
    """A fault of single rows: `when`, over the computed values, is true (null counts as false) where it is."""

    reason: str
    when: pl.Expr
    remedy: str


@dataclass(frozen=True)
class Tolerance:
    """How much of one input may be bad: `share` of its rows (0-1), set by the config key `key`."""

    share: float
    key: str


@dataclass(frozen=True)
class Sifted:
    """The good rows of an input, in source order: the asked values, `ROW_OF_INPUT`, and the file's name."""

    frame: pl.LazyFrame
    rows_in: int
    rows_kept: int


@dataclass
class Findings:
    """Everything that was found wrong during one ingest. `quarantine` is where a refusal writes the bad rows.

    parse_all: what parses the files of a log that comes in several.
    """

    scratch: Path
    quarantine: Path
    resources: ResourcesConfig = DEFAULT
    parse_all: ParseAll = parse_in_turn
    problems: list[Problem] = field(default_factory=list)
    unreachable: bool = False
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts: list[Path] = field(default_factory=list)
    _asides: int = 0

    def aside(self) -> Path:
        """Return a path in the scratch folder that is not in use."""
        self._asides += 1
        return self.scratch / f"sifted-{self._asides:03d}.arrow"

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep the problems of an InputError raised inside, and go on with the next input."""
        try:
            yield
        except InputError as error:
            self.unreachable |= isinstance(error, UnreachableError)
            self.problems += [problem for problem in error.problems if problem not in self.problems]

    def write_quarantine(self, path: Path) -> None:
        """Write all bad rows of all inputs, in the order in which they were found."""
        path.parent.mkdir(parents=True, exist_ok=True)
        empty = pl.LazyFrame(schema=QUARANTINE_SCHEMA)
        rows = pl.concat([empty, *(pl.scan_parquet(part, glob=False) for part in self.parts)])
        write_rows(rows, path)

    def refuse_if_any(self) -> None:
        """Raise InputError with all problems, after writing the quarantine file; do nothing when there are none."""
        if self.problems:
            self.write_quarantine(self.quarantine)
            raise UnreachableError(self.problems) if self.unreachable else InputError(self.problems)

    def quarantined(self) -> dict[str, int]:
        """Return how many rows were left out, by reason, over all inputs."""
        total: dict[str, int] = {}
        for facts in self.inputs.values():
            for reason, count in facts["quarantined"].items():
                total[reason] = total.get(reason, 0) + count
        return dict(sorted(total.items()))


def sift(
    name: str,
    table: Table,
    values: Mapping[str, pl.Expr],
    faults: Sequence[Fault],
    findings: Findings,
    tolerance: Tolerance,
    *,
    derived: Mapping[str, pl.Expr] | None = None,
    alike: pl.Expr | None = None,
    alike_reason: str = DUPLICATE_ROW,
    concerns: pl.Expr | None = None,
    keep: Path | None = None,
) -> Sifted:
    """Compute `values` from a source, `derived` from the values, and part its good rows from its bad ones.

    A row's reason is its first fault; rows that are equal in `alike` (a struct; all source columns when None) to an
    earlier one are `alike_reason`. `concerns`, over the values, limits this to rows that matter. Bad rows go to the
    quarantine; when they are more than the tolerated share, each reason becomes a Problem. The log need not fit in
    memory. keep: a folder in which what was computed of each of several files is kept for the next time.
    """
    own = list(table.schema())
    key = pl.struct(own) if alike is None else alike
    numbered = table.frame.with_row_index(ROW_OF_INPUT)
    wanted = {SOURCE_OF_ROW: pl.col(SOURCE_OF_ROW), _ALIKE: key.hash(seed=0), **values}
    with reading(table.name):
        if table.partitions and keep is not None:
            rows = computed_by_partition(table.partitions, wanted, keep, _BATCH, findings.parse_all)
        else:
            path = findings.aside()
            table.frame.select(**wanted).sink_ipc(path, maintain_order=True, record_batch_size=_BATCH)
            rows = pl.scan_ipc(path, glob=False)
    result = rows.with_row_index(ROW_OF_INPUT).with_columns(**(derived or {}))
    rows_in = int(rows.select(pl.len()).collect().item())
    concerned = result if concerns is None else result.filter(concerns)
    at_once = findings.resources.rows(_BYTES_TO_COMPARE)
    bad = _bad_rows(numbered, concerned, faults, key, alike_reason, rows_in, at_once)
    counts = {str(r): int(n) for r, n in bad.group_by(REASON, maintain_order=True).len().sort(REASON).iter_rows()}
    findings.inputs[name] = {
        "source": table.name, "files": list(table.files), "digest": table.digest, "rows": rows_in,
        "kept": rows_in - bad.height, "quarantined": counts,
    }  # fmt: skip
    if bad.height:
        remedies = {fault.reason: fault.remedy for fault in faults} | {alike_reason: "remove the repeated rows"}
        examples = _quarantine(numbered, own, bad, findings)
        if bad.height > tolerance.share * rows_in:
            share = math.ceil(1e4 * bad.height / rows_in) / 1e4
            rest = f"all bad rows are in {findings.quarantine}; {tolerance.key} = {share} would leave them out"
            findings.problems += [
                Problem(table.name, fault, f"{remedies[fault]}; {rest}", count, examples[fault])
                for fault, count in counts.items()
            ]
        result = result.filter(~pl.col(ROW_OF_INPUT).is_in(bad[ROW_OF_INPUT].implode()))
    return Sifted(result.drop(_ALIKE), rows_in, rows_in - bad.height)


def _bad_rows(
    numbered: pl.LazyFrame, concerned: pl.LazyFrame, faults: Sequence[Fault], key: pl.Expr, alike_reason: str,
    rows_in: int, at_once: int,
) -> pl.DataFrame:  # fmt: skip
    """(row of input, reason) of each bad row, in source order."""
    is_faulty = pl.any_horizontal(pl.lit(False), *(fault.when.fill_null(False) for fault in faults))
    reason = pl.coalesce(*(pl.when(f.when).then(pl.lit(f.reason)) for f in faults), pl.lit(None, pl.String))
    faulty = concerned.filter(is_faulty).select(ROW_OF_INPUT, reason.alias(REASON)).collect(engine="streaming")
    sound = concerned.filter(~is_faulty).select(ROW_OF_INPUT, _ALIKE)
    suspects = _suspects(sound, max(1, -(-rows_in // at_once)))
    if suspects.is_empty():
        return faulty.sort(ROW_OF_INPUT)
    keys = (
        numbered.filter(pl.col(ROW_OF_INPUT).is_in(suspects.implode()))
        .select(ROW_OF_INPUT, key.alias(_ALIKE))
        .collect(engine="streaming")
        .sort(ROW_OF_INPUT)
    )
    again = keys.filter(~pl.col(_ALIKE).is_first_distinct())  # equal hashes are only a suspicion
    reasons = again.select(ROW_OF_INPUT, pl.lit(alike_reason).alias(REASON))
    return pl.concat([faulty, reasons]).sort(ROW_OF_INPUT)


def _suspects(sound: pl.LazyFrame, shares: int) -> pl.Series:
    """Return the rows whose hash occurs more than once, growing; hashes are compared a share of them at a time."""
    found = []
    for share in range(shares):
        part = sound.filter(pl.col(_ALIKE) % shares == share) if shares > 1 else sound
        hashes = part.collect(engine="streaming")
        twice = repeated(hashes[_ALIKE])
        rows = hashes.clear() if twice.is_empty() else hashes.filter(pl.col(_ALIKE).is_in(twice.implode()))
        found.append(rows[ROW_OF_INPUT])
    return pl.concat(found).sort()


def _quarantine(numbered: pl.LazyFrame, own: list[str], bad: pl.DataFrame, findings: Findings) -> dict[str, str]:
    """Write the bad rows aside; return an example of each reason."""
    part = findings.scratch / f"bad-{len(findings.parts):03d}.parquet"
    findings.parts.append(part)
    text = pl.struct(*(_plain(numbered, own))).struct.json_encode() if own else pl.lit("{}")
    rows = numbered.filter(pl.col(ROW_OF_INPUT).is_in(bad[ROW_OF_INPUT].implode())).select(
        ROW_OF_INPUT, pl.col(SOURCE_OF_ROW).alias(SOURCE), pl.col(LINE_OF_ROW).alias(LINE), text.alias("row_text")
    )
    joined = rows.join(bad.lazy(), on=ROW_OF_INPUT, how="left", maintain_order="left")
    write_rows(joined.select(*QUARANTINE_SCHEMA), part)
    firsts = pl.scan_parquet(part, glob=False).group_by(REASON).first().collect()
    return {
        str(row[REASON]): f"{row[SOURCE]}{'' if row[LINE] is None else f' line {row[LINE]}'}: {row['row_text'][:200]}"
        for row in firsts.iter_rows(named=True)
    }


def _plain(numbered: pl.LazyFrame, own: list[str]) -> list[pl.Expr]:
    """The source's columns in types that JSON knows."""
    schema = numbered.collect_schema()
    writable = (pl.String, pl.Boolean, pl.List, pl.Struct, pl.Null)
    plain = []
    for name in own:
        dtype = schema[name]
        if dtype in writable or isinstance(dtype, pl.List | pl.Struct) or (dtype.is_numeric() and dtype != pl.Decimal):
            plain.append(pl.col(name))
        elif dtype == pl.Binary:
            plain.append(pl.col(name).bin.encode("hex"))
        else:
            plain.append(pl.col(name).cast(pl.String))
    return plain
