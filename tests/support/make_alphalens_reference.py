"""Writes alphalens_reference.npz: what alphalens says about scores whose measures by date we compute too.

    pip install alphalens-reloaded==0.5.1      in an environment of its own
    python tests/support/make_alphalens_reference.py

It imports nothing of gpupipe. Scores and returns are random, without ties (alphalens refuses to cut quantiles on equal
scores), and a tenth of the rows is missing.
"""

from __future__ import annotations

import importlib.metadata
import pathlib

import numpy as np
import pandas as pd
from alphalens import performance, utils

N_DATES, N_SYMBOLS, N_GROUPS, QUANTILES = 30, 37, 4, 5
PERIODS = (1, 3)  # lags of turnover and autocorrelation


def main() -> None:
    rng = np.random.default_rng(11)
    n = N_DATES * N_SYMBOLS
    kept = rng.random(n) > 0.1
    date, symbol = (x.ravel()[kept] for x in np.indices((N_DATES, N_SYMBOLS)))
    score, forward_return = rng.normal(size=(2, len(date)))
    forward_return = 0.02 * (forward_return + 0.3 * score)
    group = symbol % N_GROUPS
    given = {"date": date, "symbol": symbol, "group": group, "score": score, "forward_return": forward_return}
    index = pd.MultiIndex.from_arrays([pd.to_datetime("2020-01-01") + pd.to_timedelta(date, "D"), symbol],
                                      names=["date", "asset"])  # fmt: skip
    frame = pd.DataFrame({"1D": forward_return, "factor": score, "group": group.astype(str)}, index=index)
    frame["factor_quantile"] = utils.quantize_factor(frame, quantiles=QUANTILES)
    own_group = [frame.index.get_level_values("date"), frame["group"]]
    neutral = frame.assign(factor=frame["factor"] - frame.groupby(own_group)["factor"].transform("mean"))
    by_quantile, _ = performance.mean_return_by_quantile(frame, by_date=True)
    spread, _ = performance.compute_mean_returns_spread(by_quantile, QUANTILES, 1)
    values = {
        "rank_ic": performance.factor_information_coefficient(frame)["1D"],
        "rank_ic_neutral": performance.factor_information_coefficient(neutral, group_adjust=True)["1D"],
        "quantile": frame["factor_quantile"] - 1,
        "quantile_returns": by_quantile["1D"].unstack("factor_quantile"),
        "half_spread": spread["1D"],
    }
    for lag in PERIODS:
        values[f"autocorrelation_{lag}"] = performance.factor_rank_autocorrelation(frame, lag)
        for name, quantile in (("bottom", 1), ("top", QUANTILES)):
            values[f"turnover_{name}_{lag}"] = performance.quantile_turnover(frame["factor_quantile"], quantile, lag)
    version = importlib.metadata.version("alphalens-reloaded")
    arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
    path = pathlib.Path(__file__).with_name("alphalens_reference.npz")
    np.savez_compressed(path, version=np.array(version), **given, **arrays)  # type: ignore[arg-type]
    print(version, {name: value.shape for name, value in arrays.items()})


if __name__ == "__main__":
    main()
