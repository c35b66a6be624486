"""Names of sectors: which are the same, which stay apart, and what is done with symbols that have none."""

import itertools

import pandas as pd
import pyarrow as pa
import pytest

from gpupipe.data import DataError, load, read, simulate
from gpupipe.data.ingest import SourceOptions, ingest
from gpupipe.data.sectors import GICS, canonical, choose, distinct, remarks
from gpupipe.data.symbol_sectors import parse_sector_map

PANEL = simulate(4, 10)
BARE = PANEL.to_arrow().drop_columns(["sector"])


def mapped(*sectors):
    return dict(zip(PANEL.symbols, sectors, strict=False))


@pytest.mark.parametrize(
    ("names", "slugs"),
    [
        (["AA+", "AA-", "AA"], ["aa_plus", "aa_minus", "aa"]),
        (["AA+", "AA\u2212", "aa"], ["aa_plus", "aa_minus", "aa"]),
        (["C", "C++", "C#"], ["c", "c_plus_plus", "c_sharp"]),
        (["<1Y", "1-3Y", ">10Y", "≥10Y"], ["below_1y", "1_3y", "above_10y", "at_least_10y"]),
        (["10Y+", "10Y"], ["10y_plus", "10y"]),
        (["Tier 1", "Tier/1", "Tier.1"], ["tier_1", "tier_slash_1", "tier_dot_1"]),
        (["A/B", "A.B"], ["a_slash_b", "a_dot_b"]),  # none without punctuation
        (["AA plus", "AA+"], ["aa_plus", "aa_plus_2"]),
        (["Energy*", "Energy"], ["energy_star", "energy"]),
        (["+", "-1", "1"], ["plus", "minus_1", "1"]),
        (["US$", "US€", "US"], ["us_dollar", "us_euro", "us"]),
        (["कल", "काल"], ["कल", "क_ल"]),
        (["कि", "कु"], ["क_u093f", "क_u0941"]),  # marks of vowels are no letters
    ],
)
def test_names_that_differ_in_symbols_stay_apart_in_any_order(names, slugs):
    for order in itertools.permutations(names):
        found = distinct(order)
        assert [found[name] for name in names] == slugs
        assert len(set(found.values())) == len(names)
        assert all(canonical(slug) == slug and slug.replace("_", "a").isalnum() for slug in found.values())


def test_names_of_today_keep_their_slugs():
    for name, slug in {
        "Crypto / FX": "crypto_fx", "../Crypto & FX": "crypto_and_fx", "Oil & Gas - Big": "oil_and_gas_big",
        "Banks (Regional)": "banks_regional", "S&P 500": "s_and_p_500", "Non-US": "non_us", "Öl- und Gas": "öl_und_gas",
        "Oil + Gas": "oil_gas", "Misc.": "misc", "..": "", "-": "", "?": "", "  ": "", "con": "con", "it": "technology",
        "\uff21\uff22": "ab",
    }.items():  # fmt: skip
        assert canonical(name) == slug == distinct([name])[name]
    assert tuple(map(canonical, GICS)) == GICS


def test_the_same_sector_in_other_words_is_one():
    names = ["Health Care", "health-care", "HEALTHCARE", "Healthcare ", "Health"]
    assert set(distinct(names).values()) == {"healthcare"} and remarks(names) == ()
    assert set(distinct(["Oil & Gas", "oil and gas", "Oil_and_Gas", "OIL-AND-GAS"]).values()) == {"oil_and_gas"}


def test_long_names_fit_a_folder_and_stay_apart():
    names = ["x" * 300, "x" * 299 + "y", "公" * 100, "公" * 101]
    slugs = distinct(names)
    assert len(set(slugs.values())) == 4 and all(len(slug.encode()) < 248 for slug in slugs.values())
    assert all(canonical(slug) == slug for slug in slugs.values())
    assert canonical("x" * 240) == "x" * 240


def test_remarks_name_what_punctuation_or_folding_decides():
    assert remarks(["A/B", "A.B", "AA+", "AA"]) == (
        "the sectors 'A.B' and 'A/B' differ in punctuation only: they are a_dot_b and a_slash_b",
    )
    assert remarks(["x²", "x2"]) == ("the sectors 'x2' and 'x²' are read as one, x2",)


def test_groups_of_ratings_are_read_and_requested_by_their_names():
    sectors = mapped("AA+", "AA-", "AA", "A/B")
    panel, report = load(BARE, sectors, device="cpu")
    assert panel.sector == ("aa_plus", "aa_minus", "aa", "a_b") and panel.sectors == (
        "a_b",
        "aa",
        "aa_minus",
        "aa_plus",
    )
    assert report.sectors == dict.fromkeys(panel.sectors, 1)
    for name, symbol in {"AA+": 0, "aa-": 1, "AA": 2, "aa_plus": 0, "A/B": 3}.items():
        assert read(BARE, sectors, name, device="cpu").symbols == (PANEL.symbols[symbol],)
    twins = mapped("A/B", "A.B", "A B", "A*B")
    for k, name in enumerate(("a/b", "A.B", "A-B", "a*b")):
        assert read(BARE, twins, name, device="cpu").symbols == (PANEL.symbols[k],)
    assert choose(["Oil/Gas"], ["oil_gas", "oil_slash_gas"]) == ("oil_slash_gas",)
    with pytest.raises(DataError, match="no symbol has sector 'bb_plus'"):
        read(BARE, sectors, "BB+", device="cpu")


def test_a_store_keeps_ratings_apart_night_after_night(tmp_path):
    table = BARE.append_column("rating", pa.array(["AA+"] * 10 + ["AA-"] * 10 + ["AA"] * 20)).rename_columns(
        [*BARE.column_names, "sector"]
    )
    store = tmp_path / "store"
    for symbol in PANEL.symbols:  # each comes alone, so that no name meets another
        ingest(table.filter(pa.compute.equal(table["symbol"].cast(pa.string()), symbol)), store, calendar="none")
    panel = read(store, device="cpu")
    assert panel.sector == ("aa_plus", "aa_minus", "aa", "aa")
    assert read(store, sectors="AA+", device="cpu").symbols == PANEL.symbols[:1]


def test_a_symbol_has_two_sectors_if_their_names_differ():
    table = pa.table({"symbol": ["A", "A"], "sector": ["AA+", "AA"]})
    with pytest.raises(DataError, match=r"symbol 'A' has two sectors, 'AA\+' and 'AA'"):
        parse_sector_map(table, {"symbol": "symbol", "sector": "sector"}, "map")
    table = pa.table({"symbol": ["A", "A"], "sector": ["Health Care", "healthcare"]})
    assert parse_sector_map(table, {"symbol": "symbol", "sector": "sector"}, "map") == {"A": "Health Care"}


def test_symbols_without_a_sector():
    sectors = mapped("Energy", "Energy")
    with pytest.raises(DataError, match=r"2 of 4 symbols have no sector: 'SIM0002', 'SIM0003'; .*--no-sector drop"):
        load(BARE, sectors, device="cpu")
    panel, report = load(BARE, sectors, device="cpu", no_sector="drop")
    assert panel.symbols == PANEL.symbols[:2] and (report.rows_read, report.rows_kept) == (40, 20)
    (finding,) = report.findings
    assert (finding.kind, finding.action, finding.rows, finding.symbols, finding.example) == (
        "symbol has no sector", "left out", 20, 2, "SIM0002",
    )  # fmt: skip
    panel, report = load(BARE, sectors, device="cpu", no_sector="other")
    assert panel.sector == ("energy", "energy", "other", "other") and report.clean
    assert "2 symbols without a sector: in the sector other ('SIM0002', 'SIM0003')" in report.notes
    assert read(BARE, sectors, "other", device="cpu", no_sector="other").symbols == PANEL.symbols[2:]
    with pytest.raises(DataError, match="strict: 20 rows left out: symbol has no sector"):
        load(BARE, sectors, device="cpu", no_sector="drop", strict=True)
    with pytest.raises(DataError, match="no_sector is 'dorp', expected error, drop or other"):
        load(BARE, sectors, device="cpu", no_sector="dorp")


@pytest.mark.parametrize("no_sector", ["error", "drop"])
def test_a_map_that_meets_no_symbol_is_named(no_sector):
    sectors = {f"{name}.US": "Energy" for name in PANEL.symbols}
    words = "the map has 'SIM0000.US', 'SIM0001.US', ..., the data have 'SIM0000', 'SIM0001', ..."
    with pytest.raises(DataError, match=words.replace(".", r"\.")):
        load(BARE, sectors, device="cpu", no_sector=no_sector)
    notes = load(PANEL.to_arrow(), sectors, device="cpu")[1].notes  # the column has the sectors
    assert any(words in note for note in notes)


def test_ingest_drops_refuses_or_names_symbols_without_a_sector(tmp_path):
    def ingested(folder, **options):
        return ingest(BARE, tmp_path / folder, SourceOptions(mapped("Energy"), **options), calendar="none")

    assert ingested("a").without_sector == PANEL.symbols[1:]
    report = ingested("b", no_sector="other")
    assert report.without_sector == () and read(tmp_path / "b", device="cpu").sector == ("energy", *["other"] * 3)
    with pytest.raises(DataError, match=r"knows the sector of 3 symbols \('SIM0001', 'SIM0002', 'SIM0003'\)"):
        ingested("c", no_sector="error")
    again = ingest(BARE, tmp_path / "b", SourceOptions(no_sector="error"), calendar="none")  # the store knows them
    assert not again.changed and again.without_sector == ()


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, "", " "])
def test_a_mapping_without_a_value_gives_no_sector(missing):
    given = {**mapped("energy", "energy", "energy"), PANEL.symbols[3]: missing}
    with pytest.raises(DataError, match="1 of 4 symbols have no sector: 'SIM0003'"):
        load(BARE, given, device="cpu")
    assert load(BARE, given, device="cpu", no_sector="drop")[0].n_symbols == 3


def test_a_rating_is_chosen_of_slugs_that_look_alike():
    assert choose(["BBB-", "BBB+"], ["bbb", "bbb_dash", "bbb_minus", "bbb_plus"]) == ("bbb_minus", "bbb_plus")
