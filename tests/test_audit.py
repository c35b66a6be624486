"""The look-ahead audit: clean columns pass, planted leaks are found and named; features of one's own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import random_panel

from gpupipe import cli, expressions, feature, panel_feature
from gpupipe.audit import audit
from gpupipe.features import compute_features, warm_up_of
from gpupipe.formulas import FEATURES
from gpupipe.formulas.registry import load_module, unregister


@pytest.fixture
def own():
    """Forget what the test registers."""
    before = set(FEATURES)
    yield
    unregister([name for name in FEATURES if name not in before])


def test_every_default_feature_and_label_passes():
    found = audit(random_panel((320, 300, 50, 320)), "default")
    assert len(found) > 156 and {one.kind for one in found} == {"feature", "label"}
    assert [one.name for one in found if not one.clean] == []
    assert all(one.n_compared > 1000 for one in found)


def test_planted_leaks_are_found_and_named(own):
    @panel_feature("momentum", "a mistake")
    def tomorrow(panel):
        """close[-1] / close - 1"""
        return np.append(panel.close[1:] / panel.close[:-1] - 1, np.float32(np.nan))

    @panel_feature("momentum", "a mistake that is harder to see")
    def standard(panel):
        """close less the mean of all of history"""
        return (panel.close - np.nanmean(panel.close)) / np.nanstd(panel.close)

    found = {one.name: one for one in audit(random_panel((200, 200)), ["roc_1", "tomorrow", "standard"])}
    alone = [one for one in audit(random_panel((200,)), "tomorrow") if not one.clean]
    assert [one.name for one in alone] == ["tomorrow"]
    assert found["roc_1"].clean and not found["tomorrow"].clean and not found["standard"].clean
    assert found["tomorrow"].n_changed < found["standard"].n_changed
    assert "S000 1970-" in found["standard"].where and "scrambled after" in found["standard"].where


def test_an_own_formula_is_a_feature_like_the_others(own):
    @feature("volatility", "own", [10, 20])
    def mid_volatility(bar, n):
        """std of {n} mid prices / their mean"""
        mid = (bar.high + bar.low) / 2.0
        return expressions.deviation(mid, n) / expressions.mean(mid, n)

    panel = random_panel((120, 80))
    assert warm_up_of("mid_volatility_20") == 19 and FEATURES["mid_volatility_20"].formula.startswith("std of 20 mid")
    mid = (panel.high[:120].astype(np.float64) + panel.low[:120]) / 2
    expected = np.std(mid[100:120]) / np.mean(mid[100:120])
    assert compute_features(panel, "mid_volatility_20").values[119, 0] == pytest.approx(expected, rel=1e-6)
    assert all(one.clean for one in audit(panel, "mid_volatility_*"))


def test_a_formula_cannot_look_ahead():
    with pytest.raises(ValueError, match="lag is -1"):
        expressions.lag(expressions.BAR.close, -1)


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "is not a file"),
        ("x = 1", "registers no feature"),
        ("def f(:", "cannot be run: SyntaxError"),
        ("import there_is_no_such_module", "cannot be run: ModuleNotFoundError"),
        ("from gpupipe import feature\n@feature('momentum', 's')\ndef bar_range(bar):\n    return bar.low", "already"),
        ("from gpupipe import feature\n@feature('nothing', 's')\ndef mine(bar):\n    return bar.close", "no family"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused(own, tmp_path, text, message):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_module(str(path))


def test_the_command_names_the_leak_and_exits_with_1(own, tmp_path, capsys):
    path = tmp_path / "leaky.py"
    path.write_text(
        "from gpupipe import feature, panel_feature\n"
        "import numpy as np\n"
        "@feature('momentum', 'own')\ndef calm(bar):\n    'close / open'\n    return bar.close / bar.open\n"
        "@panel_feature('momentum', 'own')\ndef peek(panel):\n    'next close'\n    return np.roll(panel.close, -1)\n"
    )
    simulated = ["--data", "simulated", "--symbols", "5"]
    assert cli.main(["audit", "--module", str(path), *simulated]) == 1
    said = capsys.readouterr().out
    assert "peek" in said and "LOOK AHEAD" in said and "calm" in said
    assert cli.main(["audit", "--features", "rsi_14", "sector_rank_roc_5", *simulated, "--json"]) == 0
    names = {one["name"] for one in json.loads(capsys.readouterr().out)}
    assert names >= {"rsi_14", "sector_rank_roc_5", "label_5d_10pct"}
    assert cli.main(["audit", "--features", "rsi_144", *simulated]) == 2
    assert "nearest is 'rsi_14'" in capsys.readouterr().err
