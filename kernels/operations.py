"""What kernels.program can do, by number: the language that features.expressions writes and the machine reads."""

# Fields of an operation.
CODE, OUT, A, B, N, C, D, NEED = range(8)
# Operations. Sources:
OPEN, HIGH, LOW, CLOSE, VOLUME, DAY, TIME_OF_DAY, CONSTANT = range(8)
# Of one register:
LAG, ABSOLUTE, ROOT, LOGARITHM, SIGN, FLOOR, FILL = range(10, 17)
# Of two registers, the second N rows before:
ADD, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM, GREATER, AT_LEAST, EQUAL = range(20, 29)
# Of three:
WHERE = 30
# Of windows of N rows, each row by itself:
ABSOLUTE_DEVIATION, RANK, QUANTILE = range(40, 43)
# That go on from row to row; B: how many are done together from this one on, 0 of the others:
MOVING, DECAYING = range(50, 52)
# Out of the machine:
STORE = 60

MISSING = 255  # the bin of what is not known
