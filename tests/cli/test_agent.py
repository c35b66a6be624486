"""gpupipe agent: what its options set, what a run prints, what it refuses in one line before anything is written."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="policies are trained by Torch, which has no CPU build for this Python")

from gpupipe.cli import agent, main
from gpupipe.store.content_store import Store
from tests.support.agent_market import made_bars
from tests.support.agent_run import N_ROWS, OPTIONS

# The options of the system that this one replaces, each with a value, the setting that it changes, and the change.
OF_ORIGIN = {
    "--total-timesteps": ("20000", "agent.total_timesteps", 20_000),
    "--min-timesteps": ("9000", "agent.min_timesteps", 9_000),
    "--initial-window": ("3000", "agent.initial_window", 3_000),
    "--step-size": ("250", "agent.step_size", 250),
    "--validation-size": ("0.3", "agent.validation_size", 0.3),
    "--eval-freq": ("700", "agent.eval_freq", 700),
    "--early-stopping-patience": ("7", "agent.early_stopping_patience", 7),
    "--convergence-threshold": ("0.02", "agent.convergence_threshold", 0.02),
    "--learning-rate": ("0.002", "ppo.learning_rate", 0.002),
    "--no-adaptive-timesteps": (None, "agent.adaptive_timesteps", False),
    "--no-warm-start": (None, "agent.warm_start", False),
    "--no-progressive": (None, "agent.progressive", False),
    "--no-cache-environments": (None, "agent.cache_environments", False),
    "--parallel-candidates": ("4", "agent.candidates", 4),
    "--use-original-training": (None, "agent.original", True),
    "--benchmark-mode": (None, "agent.benchmark", True),
    "--initial-balance": ("500", "market.initial_balance", 500.0),
}
OTHERS = {
    "--no-convergence-stop": (None, "agent.convergence_stop", False),
    "--no-adaptive-evaluation": (None, "agent.adaptive_evaluation", False),
    "--no-fast-comparison": (None, "agent.fast_comparison", False),
    "--spread": ("2 bps", "market.spread", "2 bps"),
    "--point-size": ("0.01", "market.point_size", 0.01),
    "--commission": ("3", "market.commission", 3.0),
    "--slippage": ("4", "market.slippage", 4.0),
    "--size": ("2", "market.size", 2.0),
    "--max-drawdown": ("0.2", "market.max_drawdown", 0.2),
    "--fill": ("close", "market.fill", "close"),
    "--reward": ("legacy", "market.reward", "legacy"),
    "--features": ("core", "features.names", ("core",)),
}


def request_of(*arguments):
    return agent.request_of(main.parser_for(["agent"]).parse_args(["agent", *arguments]))


def settings_of(*arguments):
    return request_of(*arguments).job.settings()


def write_bars(path, panel=None, without=()):
    panel = made_bars(N_ROWS) if panel is None else panel
    panel = panel.replace(time_ns=panel.time_ns + 1_700_000_100_000_000_000)
    pq.write_table(panel.to_arrow().drop_columns(["sector", *without]), path)
    return path


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    return write_bars(tmp_path_factory.mktemp("bars") / "made.parquet")


def call(capsys, *arguments):
    """Exit code, standard output and standard error of the command."""
    capsys.readouterr()
    code = main.main(["agent", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.mark.parametrize("option", [*OF_ORIGIN, *OTHERS])
def test_an_option_sets_one_value_and_only_that(option):
    value, name, expected = {**OF_ORIGIN, **OTHERS}[option]
    before, after = settings_of().as_dict(), settings_of(option, *([] if value is None else [value])).as_dict()
    section, field = name.split(".")
    kept = after[section].pop(field)
    assert (tuple(kept) if isinstance(kept, list) else kept) == expected != before[section].pop(field)
    assert after == before


def test_the_defaults_are_those_of_the_issue():
    chosen = settings_of()
    assert (chosen.preset, chosen.features.names) == ("balanced", ("session",))
    own = chosen.agent
    assert (own.total_timesteps, own.min_timesteps, own.initial_window, own.step_size) == (50_000, 15_000, 2_500, 500)
    assert (own.validation_size, own.eval_freq, own.early_stopping_patience) == (0.2, 5_000, 3)
    assert (own.convergence_threshold, chosen.ppo.size, chosen.ppo.heads) == (0.001, 128, (64, 32))
    request = request_of("--seed", "3", "--device", "cpu", "--resume", "--profile", "ultra_fast", "--jobs", "2")
    assert request.resume and request.job.device == "cpu" and request.job.jobs == 2
    assert request.job.settings().seed == 3 and request.job.settings().preset == "ultra_fast"


def test_the_help_lists_every_option(capsys):
    with pytest.raises(SystemExit) as done:
        main.main(["agent", "--help"])
    printed = capsys.readouterr().out
    assert done.value.code == 0
    for option in (*OF_ORIGIN, *OTHERS, "--data", "--out", "--profile", "--resume", "--seed", "--device", "--clear"):
        assert f"{option} " in printed or f"{option}\n" in printed, option
    assert "conservative,balanced,aggressive,ultra_fast" in printed


def far_apart():
    panel = made_bars(N_ROWS)
    time_ns = panel.time_ns.copy()
    time_ns[100:] += 9 * 86_400_000_000_000
    return panel.replace(time_ns=time_ns)


def two_symbols():
    panel = made_bars(N_ROWS)
    columns = {name: np.tile(column, 2) for name, column in panel.columns.items()}
    return panel.replace(
        columns=columns, time_ns=np.tile(panel.time_ns, 2), offsets=np.array([0, N_ROWS, 2 * N_ROWS]),
        symbols=("MADE", "OTHER"), attributes={"sector": ("unknown",) * 2},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("panel", "arguments", "message"),
    [
        (made_bars(100), OPTIONS, "fewer than a window of 150 and 10 bars"),
        (two_symbols(), OPTIONS, "the agent trades one instrument, and the data hold 2: name it, as --symbol MADE"),
        (far_apart(), OPTIONS, "has no bar for 9.0 days, from "),
        (None, OPTIONS, "has no column of the spread and none is given"),
        (None, (*OPTIONS, "--spread", "sprad"), "spread 'sprad': no column of the panel"),
        (None, (*OPTIONS, "--spread", "30 points"), "pass point_size"),
        (None, (*OPTIONS, "--spread", "-1"), "spread"),
        (None, (*OPTIONS, "--features", "rsi_14,roc_one"), "roc_one"),
        (None, (*OPTIONS, "--features", "sesion"), "sesion"),
        (None, ("--total-timesteps", "100"), "agent.min_timesteps"),
        (None, (*OPTIONS, "--fill", "noon"), "market.fill"),
        (None, (*OPTIONS, "--validation-size", "1.5"), "agent.validation_size"),
        (None, (*OPTIONS, "--step-size", "0"), "agent.step_size"),
        (None, (*OPTIONS, "--eval-freq", "0"), "agent.eval_freq"),
        (None, (*OPTIONS, "--set", "ppo.n_environments=0"), "ppo.n_environments"),
        (None, (*OPTIONS, "--parallel-candidates", "0"), "agent.candidates"),
        (None, (*OPTIONS, "--size", "-1"), "market.size"),
        (None, (*OPTIONS, "--commission", "10000"), "commission"),
        (None, (*OPTIONS, "--set", "ppo.heads=8"), "ppo.heads"),
        (None, (*OPTIONS, "--set", "ppo.minibatch=30"), "ppo.minibatch"),
        (None, (*OPTIONS, "--set", "ppo.sise=8"), "sise"),
        (None, (*OPTIONS, "--resume"), "holds no run to go on with"),
        (None, (*OPTIONS, "--clear"), "--clear"),
        (None, (*OPTIONS, "--benchmark-mode", "--use-original-training"), "leave --use-original-training out"),
        (None, ("cash", "OUT"), "expected options alone, or `cache OUT`"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)  # fmt: skip
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(capsys, tmp_path, panel, arguments, message):
    data = write_bars(tmp_path / "made.parquet", panel, without=("spread",))
    if "no column of the spread" in message:
        at = arguments.index("market.spread=2 bps")
        arguments = (*arguments[: at - 1], *arguments[at + 1 :])
    code, printed, errors = call(capsys, *arguments, "--data", data, "--out", tmp_path / "OUT", "--quiet")
    assert code == 2 and printed == "" and errors.startswith("gpupipe: ") and errors.count("\n") == 1, errors
    assert message in errors
    assert [path.name for path in tmp_path.iterdir()] == ["made.parquet"]


def test_an_unknown_profile_is_refused(capsys, bars, tmp_path):
    with pytest.raises(SystemExit) as done:
        call(capsys, "--profile", "fastest", "--data", bars, "--out", tmp_path / "OUT")
    assert done.value.code == 2 and "invalid choice: 'fastest'" in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()


def test_an_out_that_another_run_holds_is_refused(capsys, bars, tmp_path):
    with Store(tmp_path / "OUT").lock():
        code, _, errors = call(capsys, *OPTIONS, "--data", bars, "--out", tmp_path / "OUT", "--quiet")
    assert code == 2 and errors.count("\n") == 1 and "OUT" in errors
    assert not (tmp_path / "OUT" / "positions.parquet").exists()


def test_a_run_is_shown_and_found_finished(capsys, bars, tmp_path):
    out = tmp_path / "OUT"
    arguments = (*OPTIONS, "--data", bars, "--out", out, "--skip-plots", "--skip-onnx", "--jobs", "1")
    code, printed, errors = call(capsys, *arguments)
    assert code == 0, errors
    words = " ".join(printed.split())
    assert "3 iterations: one policy of at most 384 steps on 120 bars, chosen on 30, tested on the next 40" in words
    for part in ("iteration_002", "sealed tests, one after the other", "Environment cache:", "buy and hold"):
        assert part in words
    assert "as long on the same bars" not in words  # no speed-up without a measurement
    code, printed, _ = call(capsys, *arguments, "--resume")
    assert code == 0 and "Nothing to do" in printed
    code, printed, errors = call(capsys, *arguments, "--json")
    whole = json.loads(printed)
    assert code == 0 and len(whole["agent"]["iterations"]) == 3 and errors == ""
    assert whole == json.loads((out / "summary.json").read_bytes())
    assert call(capsys, *arguments, "--quiet")[1] == ""


def test_the_cache_of_an_out_is_shown_and_removed(capsys, bars, tmp_path):
    out = tmp_path / "OUT"
    code, _, errors = call(capsys, "cache", out)
    assert code == 2 and errors == f"gpupipe: {out} is no folder of a run\n" and not out.exists()
    assert call(capsys, *OPTIONS, "--data", bars, "--out", out, "--quiet", "--skip-plots", "--skip-onnx")[0] == 0
    code, printed, _ = call(capsys, "cache", out)
    assert code == 0 and "keeps 1 feature matrices and 3 scalers of environments" in " ".join(printed.split())
    kept = json.loads(call(capsys, "cache", out, "--json")[1])
    assert kept["features"] == 1 and kept["scalers"] == 3 and kept["bytes"] > 0
    with Store(out).lock():
        code, _, errors = call(capsys, "cache", out, "--clear")
    assert code == 2 and errors.count("\n") == 1 and json.loads(call(capsys, "cache", out, "--json")[1]) == kept
    assert json.loads(call(capsys, "cache", out, "--clear", "--json")[1]) == kept
    assert json.loads(call(capsys, "cache", out, "--json")[1]) == {"features": 0, "scalers": 0, "bytes": 0}


def test_one_of_several_symbols_is_traded(capsys, tmp_path):
    data = write_bars(tmp_path / "both.parquet", two_symbols())
    arguments = (*OPTIONS, "--total-timesteps", "128", "--data", data, "--out", tmp_path / "OUT", "--skip-plots",
                 "--skip-onnx", "--quiet")  # fmt: skip
    code, _, errors = call(capsys, *arguments, "--symbol", "OTHER")
    assert code == 0, errors
    assert set(pq.read_table(tmp_path / "OUT" / "positions.parquet")["symbol"].to_pylist()) == {"OTHER"}
