"""The eleven steps on bonds as a workload."""

from gpupipe.pipeline.steps import StepsWorkload
from gpupipe.workloads.bonds import recipe, results
from gpupipe.workloads.bonds.settings import catalogue

BONDS = StepsWorkload(
    name="bonds",
    place="gpupipe.workloads.bonds:BONDS",
    catalogue=catalogue,
    steps=recipe.steps,
    conclude=results.conclude,
    kernels=recipe.kernels_of,
    check=recipe.require,
    peak_bytes=recipe.peak_bytes,
    less_memory="give fewer bonds or dates",
    on_workers=True,
)
