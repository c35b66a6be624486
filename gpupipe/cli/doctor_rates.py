"""Rates of this machine, as `gpupipe doctor --measure` measures them and `gpupipe doctor` shows them."""

from __future__ import annotations

import datetime
import sys
from typing import TYPE_CHECKING

from gpupipe.cli.doctor import Finding
from gpupipe.runtime.errors import UserError

if TYPE_CHECKING:
    from gpupipe.runtime.device import Device

MEASURE = "gpupipe doctor --measure"
STEP_OF = {"boosting": "a round", "forest": "a tree", "regression": "an iteration"}


def known(device: Device) -> Finding:
    """Whether the rates of this machine with a GPU were measured."""
    from gpupipe.training import rates

    known_rates = rates.known(device)
    if known_rates.rates.are_measured:
        return Finding("device", "rates", "ok", f"measured on {known_rates.when}", "placing stages")
    return Finding("device", "rates", "absent", "estimates, not measured here", "placing stages", MEASURE)


def measured() -> list[Finding]:
    """Measure every device that is there, keep the rates, and say what they are; progress goes to standard error."""
    from gpupipe.runtime.device import pick
    from gpupipe.training import rate_measurement, rates

    device = pick("auto")
    devices = [pick("cpu"), *([device] if device.kind == "cuda" else [])]
    result = rate_measurement.measure(devices, lambda text: print(f"measuring: {text}", file=sys.stderr, flush=True))
    use = "placing stages of runs with a GPU"
    try:
        path = rates.remember(device, result.rates, result.copy_bytes_s, datetime.date.today().isoformat())
        kept = Finding("rates", "kept in", "ok", str(path), use)
    except (OSError, UserError) as error:
        fix = "set XDG_CACHE_HOME to a folder that can be written"
        kept = Finding("rates", "kept in", "warning", f"nowhere ({error})", use, fix)
    findings = []
    for kind, of_kind in result.rates.items():
        for work, rate in of_kind.items():
            of_one = ", one thread" if kind == "cpu" else ""
            text = f"{1e3 * rate.step_s:.2g} ms {STEP_OF[work]} and {1e9 * rate.value_s:.2g} ns a value{of_one}"
            findings.append(Finding("rates", f"{work} on {kind}", "ok", text))
    for way, rate_of_way in result.copy_bytes_s.items():
        findings.append(Finding("rates", way.replace("_", " "), "ok", f"{rate_of_way / 1e9:.2g} GB/s"))
    if device.kind == "cpu":
        findings.append(Finding("rates", "GPU", "absent", f"nothing to measure: {device.reason}"))
    return [*findings, kept]
