"""Three ordered classes, lower, middle and upper: what the estimators of kind "classes" are written for.

The kernels of losses and gradients take three margins a target; boosted trees model them as activity (either outer
class against the middle one) and direction (the upper against the lower one).
"""

LOWER, MIDDLE, UPPER = 0, 1, 2
CLASS_COUNT = 3
