"""Judge instruments: every row becomes a bond, or is rejected with a reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.data import sectors
from gpupipe.data.report import Finding
from gpupipe.data.symbol_sectors import case_findings
from gpupipe.workloads.bonds import rate_units
from gpupipe.workloads.bonds.ratings import NOT_RATED, RANKS, TREASURY, rating_of
from gpupipe.workloads.bonds.schema import DAY_COUNTS, FIXED, FLOATING, NO_DAY, TYPES, ZERO, Instruments
from gpupipe.workloads.bonds.source_tables import LATEST_NS, SourceTables
from gpupipe.workloads.bonds.verdict import Verdict, conflicts_and_repeats, mask_of

COUPONS = (0.0, 40.0)  # percent a year
MARGINS = (-5.0, 20.0)  # percent a year
CALL_PRICES = (50.0, 200.0)  # percent of par
FREQUENCIES = (1, 2, 4, 12)
DEFAULT_FREQUENCY, DEFAULT_CALL_PRICE, NO_SECTOR = 2, 100.0, "other"
_TYPE_WORDS = {
    **dict.fromkeys(("fixed", "fixedrate", "fix", "bullet", "straight", "note", "bond", "callable"), FIXED),
    **dict.fromkeys(("zero", "zerocoupon", "zcb", "strip", "strips", "discount", "bill"), ZERO),
    **dict.fromkeys(("floating", "floatingrate", "floater", "float", "frn", "variable", "variablerate"), FLOATING),
}
_US_WORDS = ("30u360", "30360us", "30us360")
_DAY_COUNT_WORDS = {
    **dict.fromkeys(("actact", "actualactual", "actacticma", "actactisma", "actualactualicma", "icma"), "act/act"),
    **dict.fromkeys(("30360", *_US_WORDS, "bondbasis", "thirty360"), "30/360"),
    **dict.fromkeys(("act360", "actual360", "a360"), "act/360"),
    **dict.fromkeys(("act365", "actual365", "a365", "act365f", "act365fixed", "actual365fixed"), "act/365"),
}
_FREQUENCY_WORDS = {
    **dict.fromkeys(("1", "annual", "annually", "yearly", "a"), "1"),
    **dict.fromkeys(("2", "semiannual", "semiannually", "semi", "halfyearly", "s", "sa"), "2"),
    **dict.fromkeys(("4", "quarterly", "quarter", "q"), "4"),
    **dict.fromkeys(("12", "monthly", "m"), "12"),
    "0": "0",
}
_YES_NO = {
    **dict.fromkeys(("yes", "y", "true", "t", "1", "callable"), "yes"),
    **dict.fromkeys(("no", "n", "false", "f", "0", "noncallable"), "no"),
}


@dataclass(frozen=True)
class JudgedInstruments:
    """The bonds that are kept, and the verdict on all rows.

    rejected: ids of which every row was rejected.  rate_unit: of coupons and margins, "percent" or "fraction".

    >>> import pyarrow as pa
    >>> from gpupipe.workloads.bonds.source_tables import INSTRUMENTS, open_source
    >>> table = pa.table({"id": ["A", "B"], "coupon": [5.0, 4.0], "issue": ["2020-01-15", "2030-01-15"],
    ...                   "maturity": ["2030-01-15"] * 2})
    >>> judged = judge_instruments(open_source("bonds", table, INSTRUMENTS, ("id",)))
    >>> judged.instruments.id, judged.verdict.reasons
    (('A',), ['maturity is not after the issue'])
    """

    instruments: Instruments
    verdict: Verdict
    notes: tuple[str, ...]
    rejected: frozenset[str]
    rate_unit: str


@dataclass(frozen=True)
class _Rows:
    """The rows of a source of instruments, converted. Codes are positions in `names`, TYPES, ...; -1 is unknown."""

    code: np.ndarray
    names: tuple[str, ...]
    type: np.ndarray
    rating: np.ndarray
    issuer: np.ndarray
    issuers: tuple[str, ...]
    sector: np.ndarray
    sectors: tuple[str, ...]
    day_count: np.ndarray
    callable: np.ndarray
    frequency: np.ndarray
    coupon: np.ndarray
    margin: np.ndarray
    issue: np.ndarray
    maturity: np.ndarray
    first_coupon: np.ndarray
    call_date: np.ndarray
    call_price: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """float64 (n_rows, n_fields): all that two rows of one bond must agree in."""
        fields = (
            self.type, self.rating, self.issuer, self.sector, self.day_count, self.callable, self.frequency,
            self.coupon, self.margin, self.issue, self.maturity, self.first_coupon, self.call_date, self.call_price,
        )  # fmt: skip
        return np.stack([field.astype(np.float64) for field in fields], axis=1)


def judge_instruments(source: SourceTables, rates: str = rate_units.AUTO) -> JudgedInstruments:
    """Judge every row of the instruments.

    rates: the unit of coupons and margins, see `rate_units.unit_of_rates`.

    Rejected: an unknown id, type, issue, maturity, coupon, frequency or day count; a maturity that is not after the
    issue; a coupon outside 0..40 %; a margin of a floating bond outside -5..20 %, as basis points would be; a
    zero-coupon bond with a coupon; rows of one id that differ.

    What a column that is missing stands for is told in a note, and what a missing value stands for in a finding: a type
    (zero if the coupon is 0, else fixed), two coupons a year, a day count (act/act of a Treasury, act/360 of a floating
    bond, else 30/360), the rating NR, an issuer of its own for each bond, and the sector "other".
    """
    coupon, margin = source.numbers("coupon"), source.numbers("margin")
    unit = rate_units.unit_of_rates(coupon, "bonds: column coupon", rates)
    notes = [*source.notes, *rate_units.note_on(unit, "coupons")]
    rows = _convert(source, rate_units.in_percent(coupon, unit), rate_units.in_percent(margin, unit))
    notes += _missing_columns(source)
    notes += sectors.remarks(source.names("sector")[1])
    verdict = Verdict("bonds", rows.code, lambda row: rows.names[rows.code[row]] if rows.code[row] >= 0 else "?")
    _reject(rows, verdict)
    rows = _settle(source, rows, verdict)
    kept = np.flatnonzero(verdict.kept)
    conflicts, repeats = conflicts_and_repeats(rows.code[kept], rows.values[kept], kept)
    verdict.reject("conflicts with another row of its id", mask_of(conflicts, source.n_rows))
    repeated = mask_of(repeats, source.n_rows)
    verdict.tell("repeats another row", "merged", repeated)
    for finding in case_findings(rows.code, rows.names):
        verdict.add(Finding(f"bonds: ids {finding.kind.partition(' ')[2]}", *_of(finding)))
    kept = np.flatnonzero(verdict.kept & ~repeated)
    instruments = _instruments(rows, kept[np.argsort(rows.code[kept], kind="stable")])
    rejected = frozenset(rows.names) - frozenset(instruments.id)
    return JudgedInstruments(instruments, verdict, tuple(notes), rejected, unit)


def _of(finding: Finding) -> tuple[str, int, int, str]:
    return finding.action, finding.rows, finding.symbols, finding.example


def _convert(source: SourceTables, coupon: np.ndarray, margin: np.ndarray) -> _Rows:
    code, names = source.names("id")
    issuer, issuers = source.names("issuer")
    raw_sector, raw_sectors = source.names("sector")
    slugs = sectors.distinct(raw_sectors)
    known_sectors = tuple(sorted({slugs[name] for name in raw_sectors} | {NO_SECTOR}))
    to_slug = np.array([known_sectors.index(slugs[name] or NO_SECTOR) for name in raw_sectors] + [-1])
    frequency = _choices(source, "frequency", tuple(map(str, range(13))), _FREQUENCY_WORDS.get)
    return _Rows(
        code=code.astype(np.int64),
        names=names,
        type=_choices(source, "type", TYPES, _TYPE_WORDS.get),
        rating=_choices(source, "rating", tuple(RANKS), rating_of, plain=False),
        issuer=issuer.astype(np.int64),
        issuers=issuers,
        sector=to_slug[raw_sector],
        sectors=known_sectors,
        day_count=_choices(source, "day_count", DAY_COUNTS, _DAY_COUNT_WORDS.get),
        callable=_callable(source),
        frequency=frequency,
        coupon=coupon,
        margin=margin,
        issue=source.days("issue", LATEST_NS),
        maturity=source.days("maturity", LATEST_NS),
        first_coupon=source.days("first_coupon", LATEST_NS),
        call_date=source.days("call_date", LATEST_NS),
        call_price=source.numbers("call_price"),
    )


_MISSING, _UNKNOWN = -1, -2  # a text that is missing, and one that is not understood


def _choices(
    source: SourceTables,
    meaning: str,
    choices: Sequence[str],
    convert: Callable[[str], str | None],
    *,
    plain: bool = True,
) -> np.ndarray:
    """int64 (n_rows,): the position in `choices` of what each text means; _MISSING or _UNKNOWN.

    plain: whether `convert` takes texts in lower case without blanks and punctuation, and without ".0".
    """
    code, texts = source.names(meaning)
    positions = []
    for text in texts:
        word = re.sub(r"[\W_]+", "", re.sub(r"\.0+$", "", text)).lower() if plain else text
        meant = convert(word)
        positions.append(_UNKNOWN if meant is None else choices.index(meant))
    return np.array([*positions, _MISSING])[code]


def _callable(source: SourceTables) -> np.ndarray:
    """int64 (n_rows,): 1 yes, 0 no, _MISSING or _UNKNOWN; a type "callable" says yes where the column says nothing."""
    by_column = _choices(source, "callable", ("no", "yes"), _YES_NO.get)
    by_type = _says(source, "type", ("callable",))
    return np.where(by_type & (by_column == _MISSING), 1, by_column)


def _says(source: SourceTables, meaning: str, words: Sequence[str]) -> np.ndarray:
    """bool (n_rows,): whether a text is one of `words`, in lower case without blanks and punctuation."""
    code, texts = source.names(meaning)
    return np.array([*(re.sub(r"[\W_]+", "", text).lower() in words for text in texts), False])[code]


def _missing_columns(source: SourceTables) -> list[str]:
    """Sentences on columns that the instruments lack."""
    assumed = {
        "type": "a bond is zero if its coupon is 0, else fixed",
        "frequency": f"{DEFAULT_FREQUENCY} coupons a year are assumed, or compounding periods of a zero-coupon bond",
        "day_count": "act/act is assumed for Treasuries, act/360 for floating bonds, else 30/360",
        "rating": f"all bonds are {NOT_RATED}",
        "issuer": "each bond is taken as an issuer of its own",
        "sector": f"all bonds are in the sector {NO_SECTOR}",
    }
    return [
        f"the bonds have no column {meaning.replace('_', ' ')}: {what}"
        for meaning, what in assumed.items()
        if not source.has(meaning)
    ]


def _reject(rows: _Rows, verdict: Verdict) -> None:
    """Reject rows by what they hold themselves."""
    is_type = {name: rows.type == k for k, name in enumerate(TYPES)}
    pays = ~(is_type[ZERO] | ((rows.type == _MISSING) & (rows.coupon == 0)))
    verdict.reject("id is not known", rows.code < 0)
    verdict.reject("type is not known", rows.type == _UNKNOWN)
    verdict.reject("issue is not known", rows.issue == NO_DAY)
    verdict.reject("maturity is not known", rows.maturity == NO_DAY)
    verdict.reject("maturity is not after the issue", rows.maturity <= rows.issue)
    needed = pays & ~is_type[FLOATING]
    verdict.reject("coupon is not known", needed & np.isnan(rows.coupon))
    low, high = COUPONS
    verdict.reject(f"coupon is outside {low:g}..{high:g} %", (rows.coupon < low) | (rows.coupon > high))
    low, high = MARGINS
    odd = is_type[FLOATING] & ((rows.margin < low) | (rows.margin > high))
    verdict.reject(f"margin is outside {low:g}..{high:g} %; basis points have to be divided by 100", odd)
    verdict.reject("zero-coupon bond has a coupon", is_type[ZERO] & (rows.coupon > 0))
    odd = ~np.isin(rows.frequency, (*FREQUENCIES, _MISSING)) & ~((rows.frequency == 0) & ~pays)
    verdict.reject("frequency is not known", odd)
    verdict.reject("day count is not known", rows.day_count == _UNKNOWN)


def _settle(source: SourceTables, rows: _Rows, verdict: Verdict) -> _Rows:
    """The rows with what missing values stand for, and findings on it where their column is there."""

    def tell(meaning: str, kind: str, action: str, mask: np.ndarray) -> None:
        if source.has(meaning):
            verdict.tell(kind, action, mask)

    no_type = rows.type == _MISSING
    tell("type", "type is missing: zero if the coupon is 0, else fixed", "flagged", no_type)
    by_coupon = np.where(rows.coupon == 0, TYPES.index(ZERO), TYPES.index(FIXED))
    kind = np.where(no_type, by_coupon, rows.type)
    is_zero, is_floating = kind == TYPES.index(ZERO), kind == TYPES.index(FLOATING)
    no_frequency = rows.frequency == _MISSING
    tell("frequency", f"frequency is missing: {DEFAULT_FREQUENCY}", "flagged", no_frequency)
    frequency = np.where(no_frequency, DEFAULT_FREQUENCY, rows.frequency)
    is_treasury = rows.rating == tuple(RANKS).index(TREASURY)
    usual = np.where(is_treasury, DAY_COUNTS.index("act/act"), DAY_COUNTS.index("30/360"))
    usual = np.where(is_floating, DAY_COUNTS.index("act/360"), usual)
    us = _says(source, "day_count", _US_WORDS)
    tell("day_count", "day count 30U/360 is read as 30/360, which differs at the end of February", "flagged", us)
    denied = _says(source, "type", ("callable",)) & (rows.callable == 0)
    tell("type", "type is callable, and callable is no: no", "flagged", denied)
    tell("day_count", "day count is missing: the usual one", "flagged", rows.day_count == _MISSING)
    verdict.tell(f"rating is not known: {NOT_RATED}", "flagged", rows.rating == _UNKNOWN)
    tell("rating", f"rating is missing: {NOT_RATED}", "flagged", rows.rating == _MISSING)
    tell("issuer", "issuer is missing: one of its own", "flagged", rows.issuer < 0)
    tell("sector", f"sector is missing: {NO_SECTOR}", "flagged", rows.sector < 0)
    call_date, call_price, is_callable = _settle_calls(rows, verdict)
    inside = (rows.first_coupon > rows.issue) & (rows.first_coupon <= rows.maturity)
    has_first = rows.first_coupon != NO_DAY
    verdict.tell("first coupon is not between issue and maturity", "left out", has_first & ~inside)
    n_issuers = len(rows.issuers)
    return _Rows(
        **{name: getattr(rows, name) for name in ("code", "names", "issuers", "sectors", "issue", "maturity")},
        type=kind,
        rating=np.where(rows.rating < 0, tuple(RANKS).index(NOT_RATED), rows.rating),
        issuer=np.where(rows.issuer < 0, n_issuers + rows.code, rows.issuer),
        sector=np.where(rows.sector < 0, rows.sectors.index(NO_SECTOR), rows.sector),
        day_count=np.where(rows.day_count < 0, usual, rows.day_count),
        callable=is_callable.astype(np.int64),
        frequency=frequency,
        coupon=np.where(is_zero, 0.0, rows.coupon),
        margin=np.where(is_floating & ~np.isnan(rows.margin), rows.margin, 0.0),
        first_coupon=np.where(inside, rows.first_coupon, NO_DAY),
        call_date=call_date,
        call_price=call_price,
    )


def _settle_calls(rows: _Rows, verdict: Verdict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(call_date, call_price, whether a bond is callable)`, and findings on calls that are not complete."""
    has_date = rows.call_date != NO_DAY
    inside = (rows.call_date > rows.issue) & (rows.call_date <= rows.maturity)
    low, high = CALL_PRICES
    has_price = ~np.isnan(rows.call_price)
    possible = (rows.call_price >= low) & (rows.call_price <= high)
    verdict.tell("callable is not known: no", "flagged", (rows.callable == _UNKNOWN) & ~has_date)
    verdict.tell("call date is not between issue and maturity", "left out", has_date & ~inside)
    verdict.tell(f"call price is outside {low:g}..{high:g}", "left out", inside & has_price & ~possible)
    usable = inside & (possible | ~has_price)
    verdict.tell(f"call without a price: {DEFAULT_CALL_PRICE:g}", "repaired", usable & ~has_price)
    is_callable = has_date | (rows.callable == 1)
    verdict.tell("callable without a call date: valued to maturity", "flagged", is_callable & ~has_date)
    price = np.where(has_price, rows.call_price, DEFAULT_CALL_PRICE)
    return np.where(usable, rows.call_date, NO_DAY), np.where(usable, price, np.nan), is_callable


def _instruments(rows: _Rows, chosen: np.ndarray) -> Instruments:
    def texts(values: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(names[k] for k in values[chosen])

    issuers = (*rows.issuers, *rows.names)  # a bond without an issuer has its own id as issuer
    return Instruments(
        id=texts(rows.code, rows.names),
        type=texts(rows.type, TYPES),
        rating=texts(rows.rating, tuple(RANKS)),
        issuer=texts(rows.issuer, issuers),
        sector=texts(rows.sector, rows.sectors),
        day_count=texts(rows.day_count, DAY_COUNTS),
        callable=texts(rows.callable, ("no", "yes")),
        frequency=rows.frequency[chosen].astype(np.int64),
        **{
            name: getattr(rows, name)[chosen]
            for name in ("coupon", "margin", "issue", "maturity", "first_coupon", "call_date", "call_price")
        },
    )
