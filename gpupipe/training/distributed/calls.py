"""Results of calls on workers of a Dask cluster, any of which may be lost before its result is here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any

from gpupipe.training.distributed import sharded_worker

POLL_S = 0.5  # between two checks that the workers of a call are alive


class LostError(Exception):
    """A worker was lost, or did not hold the rows of a call."""


def results(client: Any, calls: Sequence[tuple[str, Any]], there: Callable[[], set[str]]) -> list[Any]:
    """The results of calls, in their order. Raises the first error that no lost worker has caused.

    client: Dask's.  calls: (the worker's address, the future).  there: the addresses that the scheduler has now.
    """
    from distributed import wait

    try:
        while waiting := [(address, call) for address, call in calls if not call.done()]:
            try:
                with client.as_current():
                    wait([call for _, call in waiting], timeout=POLL_S, return_when="FIRST_COMPLETED")
            except TimeoutError:
                now = there()
                if gone := [address for address, _ in waiting if address not in now]:
                    raise LostError(f"{gone[0]} is lost") from None
        errors = [_error_of(call) for _, call in calls]
        for error in sorted(filter(None, errors), key=lambda item: isinstance(item, LostError)):
            raise error
        return [_fetched(call, address, there) for address, call in calls]
    finally:
        for _, call in calls:
            call.cancel()


def _fetched(call: Any, address: str, there: Callable[[], set[str]]) -> Any:
    """Fetch the result of a finished call; raises LostError where its worker is lost before the fetch.

    Dask would wait for a lost worker without end. The timeout doubles after each failure, because an interrupted fetch
    starts from the beginning.
    """
    seconds = POLL_S
    while True:
        try:
            return call.result(timeout=seconds)
        except TimeoutError:
            if address not in there():
                raise LostError(f"{address} is lost") from None
            seconds *= 2
        except CancelledError:
            raise LostError(f"a result of {address} is lost") from None
        except Exception as error:  # of a repeated call
            raise _error_of(call) or error from None


def _error_of(call: Any) -> BaseException | None:
    """The error of a finished call, None without one; a LostError where this or another worker was lost."""
    from distributed import KilledWorker
    from distributed.comm import CommClosedError
    from xgboost.core import XGBoostError

    if call.status == "finished":
        return None
    if call.status != "error":
        return LostError(f"{call.key} is {call.status}")
    error = call.exception()
    # XGBoost raises the same error for a lost peer as for other failures.
    lost = isinstance(error, (KilledWorker, CommClosedError, XGBoostError, sharded_worker.NotHeldError))
    return LostError(f"{type(error).__name__}: {error}") if lost else error
