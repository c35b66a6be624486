"""The look-ahead audit: clean columns pass, planted leaks are detected and named; user-defined features."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gpupipe import feature, panel_feature
from gpupipe.cli import main
from gpupipe.dataset.audit import audit
from gpupipe.features import expressions
from gpupipe.features.formulas import FEATURES
from gpupipe.features.formulas.registry import FeatureError
from gpupipe.features.matrix import compute_features, warm_up_of
from tests.support.panels import random_panel


def test_every_default_feature_and_label_passes():
    findings = audit(random_panel((420, 400, 50, 420)), "default")
    assert len(findings) > 156 and {finding.kind for finding in findings} == {"feature", "label"}
    assert [finding.name for finding in findings if not finding.clean] == []
    assert all(finding.n_compared > 1000 for finding in findings)


def test_planted_leaks_are_detected_and_named(clean_registry):
    @panel_feature("momentum", "a mistake")
    def tomorrow(panel):
        """close[-1] / close - 1"""
        return np.append(panel.close[1:] / panel.close[:-1] - 1, np.float32(np.nan))

    @panel_feature("momentum", "a mistake that is harder to see")
    def standard(panel):
        """close less the mean of all of history"""
        return (panel.close - np.nanmean(panel.close)) / np.nanstd(panel.close)

    findings = {finding.name: finding for finding in audit(random_panel((200, 200)), ["roc_1", "tomorrow", "standard"])}
    leaks = [finding for finding in audit(random_panel((200,)), "tomorrow") if not finding.clean]
    assert [finding.name for finding in leaks] == ["tomorrow"]
    assert findings["roc_1"].clean and not findings["tomorrow"].clean and not findings["standard"].clean
    assert findings["tomorrow"].n_changed < findings["standard"].n_changed
    assert "S000 1970-" in findings["standard"].where and "scrambled after" in findings["standard"].where


def test_a_user_defined_formula_is_a_feature(clean_registry):
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
    assert all(finding.clean for finding in audit(panel, "mid_volatility_*"))


def test_a_formula_cannot_look_ahead():
    with pytest.raises(ValueError, match="lag is -1"):
        expressions.lag(expressions.BAR.close, -1)


def test_the_command_names_the_leak_and_exits_with_1(clean_registry, tmp_path, capsys):
    path = tmp_path / "leaky.py"
    path.write_text(
        "from gpupipe import feature, panel_feature\n"
        "import numpy as np\n"
        "@feature('momentum', 'own')\ndef calm(bar):\n    'close / open'\n    return bar.close / bar.open\n"
        "@panel_feature('momentum', 'own')\ndef peek(panel):\n    'next close'\n    return np.roll(panel.close, -1)\n"
    )
    simulated = ["--data", "simulated", "--symbols", "5"]
    assert main.main(["audit", "--module", str(path), *simulated]) == 1
    output = capsys.readouterr().out
    assert "peek" in output and "LOOK AHEAD" in output and "calm" in output
    assert main.main(["audit", "--features", "rsi_14", "sector_rank_roc_5", *simulated, "--json"]) == 0
    names = {finding["name"] for finding in json.loads(capsys.readouterr().out)}
    assert names >= {"rsi_14", "sector_rank_roc_5", "label_5d_10pct"}
    assert main.main(["audit", "--features", "rsi_144", *simulated]) == 2
    assert "nearest is 'rsi_14'" in capsys.readouterr().err


def test_a_failing_panel_function_is_named_with_its_line(clean_registry, tmp_path, capsys):
    @panel_feature("momentum", "own")
    def broken(panel):
        return panel.close / panel.clsoe

    @panel_feature("momentum", "own")
    def shorter(panel):
        return panel.close[1:]

    @panel_feature("momentum", "own")
    def words(panel):
        return panel.symbols

    panel = random_panel((30,))
    with pytest.raises(FeatureError, match=r"broken cannot be computed: AttributeError: .*'clsoe'.* \(line \d+\)"):
        compute_features(panel, "broken")
    with pytest.raises(FeatureError, match=r"shorter returned float32 \(29,\), expected float32 \(30,\)"):
        compute_features(panel, "shorter")
    with pytest.raises(FeatureError, match="words returned tuple, expected"):
        compute_features(panel, "words")
    path = tmp_path / "mine.py"
    path.write_text(
        "from gpupipe import panel_feature\n@panel_feature('range', 'own')\ndef add_none(panel):\n    return None + 1\n"
    )
    assert main.main(["audit", "--module", str(path), "--data", "simulated", "--symbols", "2"]) == 2
    assert capsys.readouterr().err == (
        "gpupipe: feature add_none cannot be computed: TypeError: unsupported operand type(s) for +: 'NoneType' and "
        "'int' (line 4)\n"
    )


@pytest.mark.parametrize(
    "words, arguments",
    [
        ("--symbols 0: expected 1 or more", ["--symbols", "0"]),
        ("--symbols -1: expected 1 or more", ["--symbols", "-1"]),
        ("nowhere.parquet", ["--data", "nowhere.parquet"]),
        ("nowhere.py cannot be read", ["--module", "nowhere.py"]),
        ("no feature or family 'momentun'", ["--features", "momentun"]),
        (
            "label_5d_5pct, label_5d_10pct, label_5d_2vol: audit them on data with more bars",
            ["--features", "roc_1", "--data", "simulated:symbols=11,bars=4"],
        ),
    ],
)
def test_errors_of_the_user_are_one_line(clean_registry, capsys, words, arguments):
    assert main.main(["audit", *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("gpupipe: ") and errors.count("\n") == 1 and words in errors


def test_a_bug_is_not_reported_as_an_error_of_the_user(clean_registry, monkeypatch):
    def bug(*arguments):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr("gpupipe.dataset.audit.audit", bug)
    with pytest.raises(ValueError, match="broadcast"):
        main.main(["audit", "--data", "simulated", "--symbols", "2"])
