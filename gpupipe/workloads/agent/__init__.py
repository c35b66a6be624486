"""Agent: one symbol, a market that is a kernel, and a policy that learns to trade in it."""

from gpupipe.pipeline.steps import StepsWorkload
from gpupipe.workloads.agent import recipe, results
from gpupipe.workloads.agent.settings import PROFILES, catalogue

AGENT = StepsWorkload(
    name="agent",
    place="gpupipe.workloads.agent:AGENT",
    catalogue=catalogue,
    steps=recipe.steps,
    conclude=results.conclude,
    kernels=recipe.kernels_of,
    check=recipe.require,
)

__all__ = ["AGENT", "PROFILES", "catalogue"]
