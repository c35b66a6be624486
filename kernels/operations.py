"""Operation codes of kernels.program: features.lowering writes programs of them, the kernel executes them."""

# Fields of an operation.
CODE, OUT, A, B, N, C, D, NEED = range(8)
# Operations. Sources:
OPEN, HIGH, LOW, CLOSE, VOLUME, DAY, TIME_OF_DAY, CONSTANT = range(8)
# On one register:
LAG, ABSOLUTE, ROOT, LOGARITHM, SIGN, FLOOR, FILL = range(10, 17)
# On two registers, the second lagged by N rows:
ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM, GREATER, AT_LEAST, EQUAL = range(20, 29)
# On three registers:
WHERE = 30
# Over windows of N rows, row by row:
ABSOLUTE_DEVIATION, RANK, QUANTILE = range(40, 43)
# Recursive, with a state from row to row; B: the size of the group that starts here, 0 for its other members:
MOVING, DECAYING = range(50, 52)
# From registers to memory:
STORE = 60

MISSING = 255  # the bin of NaN
