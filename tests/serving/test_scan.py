"""A scan predicts the latest bar as training predicted it, and keeps an active signal for each symbol."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sqlite3

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from bench.job.scan import resized
from gpupipe.artifacts.load import load
from gpupipe.backtest.calling import registry
from gpupipe.backtest.rules import Rules
from gpupipe.cli import main
from gpupipe.evaluation.expected_return import lean_of
from gpupipe.evaluation.metrics import calls
from gpupipe.features.matrix import compute_features
from gpupipe.runtime.errors import UserError
from gpupipe.serving.active_signals import keep_active
from gpupipe.serving.scan import Levels, Scanned, Signal, _degenerate, scan
from gpupipe.serving.signal_table import plain
from gpupipe.workloads import equity
from tests.support import tiny
from tests.support.tiny import QUICK, SECTORS, tiny_market

FAMILIES = ("xgb_joint", "xgb_hist", "xgb_leafwise", "random_forest", "linear", *(
    name for name in ("lightgbm", "catboost") if importlib.util.find_spec(name)
), "meta_learner")  # fmt: skip


@pytest.fixture(scope="module")
def market():
    return tiny_market()


@pytest.fixture(scope="module")
def trained(market, tmp_path_factory):
    """(models, by sector the models of training with their predictions for the sealed test, and its rows)."""
    out = tmp_path_factory.mktemp("scan") / "OUT"
    settings = equity.make("fast", settings=[
        *QUICK, f"training.models={','.join(FAMILIES)}", "labels.horizons=1,2", "labels.thresholds=0.02",
        "lightgbm.rounds=8", "catboost.rounds=8",
    ])  # fmt: skip
    with pytest.MonkeyPatch.context() as patched:
        by_sector = tiny.listen_to_training(patched)
        tiny.execute(market, None, settings, out)
    return load(out), {sector: (models, split.test) for sector, (models, split) in by_sector.items()}


@pytest.fixture(scope="module")
def models(trained):
    return trained[0]


def signal(symbol: str, side: str, time: str, earned: float = 0.015, horizon: int = 2) -> Signal:
    numbers = [0.5, 0.2, 0.3, 0.5, 0.1, 0.1, earned, 0.001, 1.0, 9.9, 10.1, 9.0, 12.5]
    return Signal(symbol, "energy", time, 10.0, "linear", horizon, 0.02, side, *numbers)


def day_of(time_ns) -> str:
    return str(np.datetime64(int(time_ns), "ns").astype("datetime64[D]"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_scanned_has_the_probability_of_all_rows_together_to_the_last_bit(models, market, family):
    whole = models.predict(market)
    compared = 0
    for day in np.unique(market.time_ns)[[-1, -40, -90]]:
        for signal in scan(models, market, family, day_of(day)).signals:
            k = market.symbols.index(signal.symbol)
            rows = slice(int(market.offsets[k]), int(market.offsets[k + 1]))
            at = rows.start + int(np.searchsorted(market.time_ns[rows], day, side="right")) - 1
            assert [signal.p_sell, signal.p_hold, signal.p_buy] == whole.of(f"{family}_{signal.label}")[at].tolist()
            assert signal.close == market.close[at]
            assert signal.time == str(np.datetime64(int(market.time_ns[at]), "ns").astype("datetime64[s]"))
            compared += 1
    assert compared == 3 * 2 * market.n_symbols


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_row_that_training_had_is_scanned_with_trainings_own_bits(trained, market, family):
    models, by_sector = trained
    compared = 0
    for sector, (group, test) in by_sector.items():
        part = market.of_group(sector)
        last = part.time_ns[test].max()
        place = {int(row): k for k, row in enumerate(test)}
        by_label = {label: k for k, label in enumerate(group.labels)}
        for signal in scan(models, part, family, day_of(last)).signals:
            s = part.symbols.index(signal.symbol)
            row = int(part.offsets[s]) + int(
                np.searchsorted(part.time_ns[part.offsets[s] : part.offsets[s + 1]], last, side="right")
            ) - 1  # fmt: skip
            if row in place:
                expected = group.test[family][place[row], by_label[f"label_{signal.label}"]]
                assert [signal.p_sell, signal.p_hold, signal.p_buy] == expected.tolist()
                compared += 1
    assert compared >= 2 * market.n_symbols - 2


def test_agreement_counts_the_other_families_that_say_the_same(models, market):
    by_family = {family: scan(models, market, family).signals for family in FAMILIES}
    for k, signal in enumerate(by_family["linear"]):
        others = [by_family[family][k].side == signal.side for family in FAMILIES if family != "linear"]
        assert signal.agreement == np.mean(others)
    assert len({signal.agreement for signal in by_family["linear"]}) > 2


def test_one_thread_says_the_same(models, market):
    alone = load(models.out, threads=1)
    stages = [stage for by_label in alone.by_group["energy"].values() for stage in by_label["xgb_joint"].model.stages]
    for stage in stages:
        assert json.loads(stage.booster.save_config())["learner"]["generic_param"]["nthread"] == "1"
    for family in FAMILIES:
        signals, expected = (scan(some_models, market, family).signals for some_models in (alone, models))
        assert list(map(plain, signals)) == list(map(plain, expected))


def test_the_steps_of_a_scan_are_timed(models, market):
    assert set(scan(models, market, "linear").seconds) == {"features", *FAMILIES, "signals"}


def test_sides_of_f1_are_called_by_the_models_own_cutoffs(models, market):
    without_scores = dataclasses.replace(models, expected_returns={})
    scanned = scan(without_scores, market, "linear", rule=registry.rule("f1"))
    sides = {"SELL": 0, "HOLD": 1, "BUY": 2}
    for signal in scanned.signals:
        label = f"label_{signal.label}"
        buy, sell = models.cutoffs[signal.sector, label, "linear"]
        folder = models.target.folder(models.target.names.index(label), signal.sector)
        about = json.loads((models.out / folder / "metadata.json").read_text())["models"]["linear"]["cutoffs"]
        assert (buy, sell) == (about["buy"], about["sell"])
        probability = np.array([[signal.p_sell, signal.p_hold, signal.p_buy]], np.float32)
        assert calls(probability, {"buy": buy, "sell": sell})[0] == sides[signal.side]
        assert signal.probability == [signal.p_sell, signal.p_hold, signal.p_buy][sides[signal.side]]
        assert np.isnan(signal.expected_net_return)
    assert {signal.side for signal in scanned.signals} == set(sides)


@pytest.mark.parametrize("text", ["score", "score:0", "top:3", "top:10%/sector", "topk-dropout:5,2", "f1"])
def test_a_called_symbol_is_expected_to_earn_by_every_rule(models, market, text):
    scanned = scan(models, market, "meta_learner", rule=registry.rule(text))
    called = [signal for signal in scanned.signals if signal.side != "HOLD"]
    assert all(signal.expected_net_return > 0 and signal.uncertainty > 0 for signal in called)
    assert [signal.symbol for signal in scanned.top(5)] == [
        signal.symbol for signal in sorted(scanned.top(99), key=lambda one: -one.expected_net_return)
    ][:5]
    silent = {signal.label for signal in scanned.signals} - {signal.label for signal in called}
    for label in silent:
        assert any(f"meta_learner_{label}" in sentence for sentence in scanned.without_calls)


def test_a_signal_explains_itself(models, market):
    scanned = scan(models, market, "linear", rule=registry.rule("top:5"))
    whole = models.predict(market, ["linear"])
    natr = compute_features(market, "natr_14").values[:, 0]
    last = market.offsets[1:] - 1
    for label in ("1d_2pct", "2d_2pct"):
        learned = [models.expected_returns[sector, f"label_{label}", "linear"] for sector in SECTORS]
        assert all(item is learned[0] for item in learned)  # the sectors of a pool are compared with each other
        said = whole.of(f"linear_{label}")[last]
        scores = learned[0].scores(said, lean_of(said), natr[last], np.zeros(len(last), np.int64))
        for signal in (item for item in scanned.signals if item.label == label):
            s = market.symbols.index(signal.symbol)
            side = {"BUY": 0, "SELL": 1}.get(signal.side, int(scores.expected[s, 1] > scores.expected[s, 0]))
            assert signal.expected_net_return == pytest.approx(Rules().net(scores.expected[s, side], side + 1))
            shares = json.loads((models.out / f"trained_2pct/{signal.sector}/1d/metadata.json").read_text())
            if label == "1d_2pct":
                assert signal.base_buy == shares["class_shares"]["train"]["BUY"]


def test_no_price_of_a_signal_is_below_0():
    levels = Levels(stop_atr=2.0, target=3.0, band_atr=0.5)
    assert levels.prices(1, 10.0, 1.0) == (9.5, 10.5, 8.0, 16.0)
    low, high, stop, target = levels.prices(1, 1.0, 4.0)
    assert (low, high, target) == (0.0, 3.0, 25.0) and np.isnan(stop)
    assert np.isnan(levels.prices(-1, 1.0, 4.0)[3])


def test_prices_of_a_signal_by_hand(models, market):
    levels = Levels(stop_atr=2.0, target=3.0, band_atr=0.5)
    scanned = scan(models, market, "linear", levels=levels, rule=registry.rule("top:10"))
    assert scanned.top(100)
    for signal in scanned.top(100):
        atr = (signal.entry_high - signal.entry_low) / (2 * 0.5)
        assert 0 < atr < signal.close
        sign = 1 if signal.side == "BUY" else -1
        assert signal.stop == pytest.approx(max(signal.close - sign * 2 * atr, 0), rel=1e-6)
        assert signal.target == pytest.approx(max(signal.close + sign * 6 * atr, 0), rel=1e-6)
        assert (signal.entry_high + signal.entry_low) / 2 == pytest.approx(signal.close, rel=1e-6)
    assert all(np.isnan(signal.stop) for signal in scanned.signals if signal.side == "HOLD")
    earned = [signal.expected_net_return for signal in scanned.top(100)]
    assert earned == sorted(earned, reverse=True) and len(scanned.top(2)) == 2
    assert len({signal.symbol for signal in scanned.top(100)}) == len(scanned.top(100))


def test_stop_target_and_band_are_of_the_bars_own_atr_and_the_target_is_two_and_a_half_stops_away(models, market):
    natr = compute_features(market, "natr_14").values[:, 0]
    scanned = scan(dataclasses.replace(models, expected_returns={}), market, "linear", rule=registry.rule("f1")).top(
        100
    )
    for signal in scanned:
        row = market.offsets[market.symbols.index(signal.symbol) + 1] - 1
        atr, sign = natr[row] / 100 * market.close[row], 1 if signal.side == "BUY" else -1
        close, band = signal.close, 0.25 * atr
        assert [signal.entry_low, signal.entry_high] == pytest.approx([close - band, close + band])
        assert sign * (close - signal.stop) == pytest.approx(1.5 * atr, rel=1e-5)
        assert sign * (signal.target - close) == pytest.approx(2.5 * sign * (close - signal.stop), rel=1e-5)
    assert {signal.side for signal in scanned} == {"BUY", "SELL"}


def test_later_bars_are_not_looked_at(models, market):
    day = str(np.datetime64(int(np.unique(market.time_ns)[-30]), "ns").astype("datetime64[D]"))
    before = scan(models, market, "linear", day)
    end = (np.datetime64(day) + 1).astype("datetime64[ns]").astype(np.int64)
    later = market.time_ns >= end
    columns = {name: getattr(market, name) for name in ("close", "volume")}
    changed = market.replace(**{n: np.where(later, column[::-1], column) for n, column in columns.items()})
    after = scan(models, changed, "linear", day)
    assert list(map(plain, after.signals)) == list(map(plain, before.signals))
    assert list(map(plain, scan(models, market, "linear").signals)) != list(map(plain, before.signals))


def test_one_active_signal_a_symbol(market, tmp_path):
    path = str(tmp_path / "signals.sqlite")
    symbol, other = market.symbols[:2]
    times = [str(np.datetime64(int(t), "ns").astype("datetime64[s]")) for t in np.unique(market.time_ns)]

    def kept(n: int, *signals: Signal) -> list[tuple[str, str]]:
        end = np.datetime64(times[n], "ns").astype(np.int64)
        return keep_active(path, Scanned(signals, (), ()), market.until(int(end)))

    def there() -> dict[str, tuple[str, str, str, str]]:
        with sqlite3.connect(path) as database:
            rows = database.execute("select symbol, side, status, created, updated from active_signals").fetchall()
        return {row[0]: row[1:] for row in rows}

    first = (
        signal(symbol, "BUY", times[10]),
        signal(other, "SELL", times[10]),
        signal(symbol, "SELL", times[10], 0.011),
    )
    assert kept(10, *first) == [("CREATED", symbol), ("CREATED", other)]
    assert there()[symbol] == ("BUY", "CREATED", times[10], times[10])  # the better of two
    assert kept(10, *first) == []  # the same again
    assert kept(11, signal(symbol, "BUY", times[11])) == [("UPDATED", symbol)]  # the other is one bar old: kept
    assert there() == {
        symbol: ("BUY", "UPDATED", times[10], times[11]), other: ("SELL", "CREATED", times[10], times[10])
    }  # fmt: skip
    assert kept(12, signal(symbol, "SELL", times[12])) == [("FLIPPED", symbol), ("EXPIRED", other)]
    assert there() == {symbol: ("SELL", "FLIPPED", times[12], times[12])}
    assert kept(11, signal(symbol, "BUY", times[11])) == []  # an earlier bar


def without_the_last(market, symbol: str, n: int):
    """The market, in which a symbol stopped trading n bars before the end."""
    k = market.symbols.index(symbol)
    keep = np.ones(market.n_rows, dtype=bool)
    keep[market.offsets[k + 1] - n : market.offsets[k + 1]] = False
    offsets = np.concatenate([[0], np.cumsum(keep)])[market.offsets]
    columns = ("open", "high", "low", "close", "volume", "time_ns")
    return market.replace(**{name: getattr(market, name)[keep] for name in columns}, offsets=offsets)


def test_a_symbol_that_stopped_trading_is_no_signal_and_its_active_one_expires(models, market, tmp_path):
    times = np.unique(market.time_ns)
    scanned = scan(models, market, "linear")
    assert scanned.stale == () and (scanned.since_ns, scanned.until_ns) == (times[-5], times[-1])
    symbol = scanned.top(1)[0].symbol
    path = str(tmp_path / "a.sqlite")
    keep_active(path, scanned, market)
    for n, gone in ((4, False), (5, True), (40, True)):
        shorter = without_the_last(market, symbol, n)
        after = scan(models, shorter, "linear")
        assert (symbol in {item.symbol for item in after.signals}) != gone
        assert after.stale == ((symbol,) if gone else ()) and symbol not in after.unpredicted
        # The other symbols have the same signals, except for features that compare them with this symbol.
        assert {item.symbol for item in scanned.signals} - {item.symbol for item in after.signals} == {symbol} - {
            item.symbol for item in after.signals
        }
    shorter = without_the_last(market, symbol, 1)
    assert scan(models, shorter, "linear", max_age=1).stale == (symbol,)
    assert scan(models, shorter, "linear", max_age=2).stale == ()
    # As of a day on which it was still traded it is not stale.
    day = day_of(times[-45])
    assert scan(models, without_the_last(market, symbol, 40), "linear", day).stale == ()
    with pytest.raises(UserError, match="--max-age 0"):
        scan(models, market, "linear", max_age=0)


def test_active_signals_of_stopped_symbols_expire_and_those_of_later_bars_stay(market, tmp_path):
    path = str(tmp_path / "a.sqlite")
    symbol, other = market.symbols[:2]
    times = [str(np.datetime64(int(t), "ns").astype("datetime64[s]")) for t in np.unique(market.time_ns)]

    def kept(n: int, *signals: Signal, stale=()) -> list[tuple[str, str]]:
        at = [int(np.datetime64(times[k], "ns").astype(np.int64)) for k in (n - 4, n)]
        return keep_active(path, Scanned(signals, (), (), {}, tuple(stale), 5, *at), stopped)

    stopped = without_the_last(market, symbol, len(times) - 11)  # its last bar is number 10
    stopped = stopped.where([name != other for name in stopped.symbols])  # which is not in the data at all
    first = [signal(name, "BUY", times[10], horizon=9) for name in (symbol, other, market.symbols[2])]
    assert len(kept(10, *first)) == 3
    assert kept(9) == []  # a scan of an earlier day: later bars do not count
    assert kept(14) == []
    assert kept(15, stale=[symbol]) == [("EXPIRED", symbol), ("EXPIRED", other)]
    assert kept(18) == [] and kept(19) == [("EXPIRED", market.symbols[2])]  # nine bars of that symbol


def test_a_file_that_is_no_database_is_left_as_it_is(market, tmp_path):
    (tmp_path / "notes.txt").write_text("the user's own " * 100)
    for path in (tmp_path / "notes.txt", tmp_path / "nowhere" / "a.sqlite"):
        with pytest.raises(UserError, match="--active"):
            keep_active(str(path), Scanned((), (), ()), market)
    assert (tmp_path / "notes.txt").read_text() == "the user's own " * 100


def test_a_rule_that_calls_everything_is_refused(models, market):
    low = {key: (1e-9, 1.0) for key in models.cutoffs}
    everything = dataclasses.replace(models, cutoffs=low, expected_returns={})
    scanned = scan(everything, market, "linear", rule=registry.rule("f1"))
    assert not scanned.top(9) and len(scanned.without_calls) == 1
    month = str(market.time_ns.max().astype("datetime64[ns]").astype("datetime64[M]"))
    assert f"calls {market.n_symbols} of the {market.n_symbols} rows of {month}" in scanned.without_calls[0]


def test_a_model_that_says_the_same_of_all_is_called_degenerate(models, market):
    assert scan(models, market, "linear").degenerate == ()
    alike = [dataclasses.replace(signal(name, "HOLD", "2024-01-02T00:00:00"), p_buy=0.3) for name in "ABC"]
    assert "predicts the same for all 3 symbols" in _degenerate(alike)[0]
    assert _degenerate([*alike, dataclasses.replace(alike[0], symbol="D", p_buy=0.4)]) == []


def test_the_command(models, tmp_path, capsys):
    data = "simulated:symbols=30,bars=260,signal=1"
    options = ["scan", "--models", str(models.out), "--data", data, "--family", "linear", "--call", "top:4"]
    assert main.main([*options, "--top", "3", "--active", str(tmp_path / "a.sqlite")]) == 0
    printed = capsys.readouterr().out
    assert "called BUY or SELL by linear" in printed and "CREATED" in printed
    tables = []
    for name in ("s.parquet", "s.csv", "s.json"):
        assert main.main([*options, "--quiet", "--to", str(tmp_path / name)]) == 0
    tables = [
        pyarrow.parquet.read_table(tmp_path / "s.parquet").to_pylist(),
        pyarrow.csv.read_csv(tmp_path / "s.csv").to_pylist(), json.loads((tmp_path / "s.json").read_text()),
    ]  # fmt: skip
    assert len({len(table) for table in tables}) == 1 and len(tables[0]) > 10
    assert [row["symbol"] for row in tables[0]] == [row["symbol"] for row in tables[2]]
    assert [row["stop"] for row in tables[0]] == [row["stop"] for row in tables[2]]
    from gpupipe.cli.console import console
    from gpupipe.cli.scan import show

    show(console(False), Scanned((), (), (), {}, tuple("ABCDEFG"), 5, 86_400 * 10**9, 2 * 86_400 * 10**9), 3)
    words = " ".join(capsys.readouterr().out.split())
    assert "7 symbols without a bar at the last 5 times of the data (since 1970-01-02)" in words
    assert "A, B, C, D, E, ..." in words
    assert main.main([*options, "--json", "--top", "2"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    for more, words in (
        (["--family", "nobody"], "no model 'nobody'"), (["--as-of", "1999-01-01"], "the data begin later"),
        (["--as-of", "soon"], "expected a date"), (["--top", "0"], "--top 0"), (["--to", "x.txt"], "--to x.txt"),
        (["--stop-atr", "-1"], "--stop-atr"),
    ):  # fmt: skip
        assert main.main([*options, *more]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    with pytest.raises(UserError, match="begin later"):
        scan(models, tiny_market(), "linear", "1990-01-01")
    assert set(SECTORS) == {key[0] for key in models.cutoffs}


def test_the_benchmark_resizes_a_panel_with_its_sectors_and_the_shape_of_its_bars(market):
    few, many = resized(market, 12), resized(market, 70)
    assert (few.n_symbols, many.n_symbols) == (12, 70)
    assert set(few.groups) == set(many.groups) == set(SECTORS) and list(many.symbols) == sorted(many.symbols)
    for k, name in enumerate(many.symbols):
        original, _, copy = name.partition("~")
        s = market.symbols.index(original)
        before, after = (panel.high[slice(*panel.offsets[at : at + 2])] / panel.low[slice(*panel.offsets[at : at + 2])]
                         for panel, at in ((market, s), (many, k)))  # fmt: skip
        assert many.sector[k] == market.sector[s]
        np.testing.assert_allclose(after, before, rtol=1e-6)
        same = np.array_equal(many.close[slice(*many.offsets[k : k + 2])],
                              market.close[slice(*market.offsets[s : s + 2])])  # fmt: skip
        assert same == (not copy)
