/* What a translated kernel calls: the arithmetic that C leaves open, accesses to memory, the barrier. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float f32_of_bits(uint32_t b) { float f; memcpy(&f, &b, 4); return f; }
static inline double f64_of_bits(uint64_t b) { double f; memcpy(&f, &b, 8); return f; }
static inline uint32_t bits_of_f32(float f) { uint32_t b; memcpy(&b, &f, 4); return b; }
static inline uint64_t bits_of_f64(double f) { uint64_t b; memcpy(&b, &f, 8); return b; }

void barrier(int line);
uint64_t division_by_zero(int line);
float fmaf_down(float a, float b, float c);
float ex2_approx(float x);
double rcp_approx(double x);

/* NaNs that are computed: a GPU's payloads and signs are not those of a CPU, so results must not depend on them. A
   checked kernel has two kinds of them, by the order of its launch. */
#ifdef CHECKED
extern uint32_t nan_f32;
extern uint64_t nan_f64;
static inline float computed_f32(float x) { return x != x ? f32_of_bits(nan_f32) : x; }
static inline double computed_f64(double x) { return x != x ? f64_of_bits(nan_f64) : x; }
#else
static inline float computed_f32(float x) { return x; }
static inline double computed_f64(double x) { return x; }
#endif

static inline float saturated(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; } /* of NaN 0 */

/* Minima and maxima of floats: the operand that is a number, and -0.0 is less than 0.0. */
#define EXTREME(T, F) \
    static inline T min_##F(T a, T b) { return a != a ? b : b != b ? a : a == b ? (signbit(a) ? a : b) : a < b ? a : b; } \
    static inline T max_##F(T a, T b) { return a != a ? b : b != b ? a : a == b ? (signbit(a) ? b : a) : a > b ? a : b; }
EXTREME(float, f32)
EXTREME(double, f64)

/* Whole floats as integers: clamped. NaN is 0, or the highest bit alone where source or target has 64 bits. */
#define OF_WHOLE(KIND, T, LOW, HIGH) \
    static inline T KIND##_of_whole(double x, int nan_is_high_bit) { \
        if (x != x) return nan_is_high_bit ? (T)((uint64_t)1 << (8 * sizeof(T) - 1)) : 0; \
        return x <= (double)(LOW) ? (LOW) : x >= (double)(HIGH) ? (HIGH) : (T)x; \
    }
OF_WHOLE(s16, int16_t, INT16_MIN, INT16_MAX)
OF_WHOLE(u16, uint16_t, 0, UINT16_MAX)
OF_WHOLE(s32, int32_t, INT32_MIN, INT32_MAX)
OF_WHOLE(u32, uint32_t, 0, UINT32_MAX)
OF_WHOLE(s64, int64_t, INT64_MIN, INT64_MAX)
OF_WHOLE(u64, uint64_t, 0, UINT64_MAX)

/* Integer division truncates; the lowest number by -1 wraps, which is a trap in C. A GPU has no result of x / 0. */
#define DIVISION(KIND, T, U, SIGNED) \
    static inline T div_##KIND(T a, T b, int line) { \
        if (b == 0) return (T)division_by_zero(line); \
        return SIGNED && b == (T)-1 ? (T)(0 - (U)a) : a / b; \
    } \
    static inline T rem_##KIND(T a, T b, int line) { \
        if (b == 0) return (T)division_by_zero(line); \
        return SIGNED && b == (T)-1 ? 0 : a % b; \
    }
DIVISION(s16, int16_t, uint16_t, 1)
DIVISION(u16, uint16_t, uint16_t, 0)
DIVISION(s32, int32_t, uint32_t, 1)
DIVISION(u32, uint32_t, uint32_t, 0)
DIVISION(s64, int64_t, uint64_t, 1)
DIVISION(u64, uint64_t, uint64_t, 0)

/* b with the lowest bits of a from a position on. */
#define INSERTED(KIND, T) \
    static inline T bfi_##KIND(T a, T b, uint32_t position, uint32_t length) { \
        for (uint32_t k = 0, at = position & 255; k < (length & 255) && at < 8 * sizeof(T); k++, at++) \
            b = (b & ~((T)1 << at)) | (a >> k & 1) << at; \
        return b; \
    }
INSERTED(b32, uint32_t)
INSERTED(b64, uint64_t)

#ifdef CHECKED
/* Whether the access may be made; what is wrong with it is counted. */
int may_load(uint64_t address, int size, int line);
int may_store(uint64_t address, int size, int line, const void *value);
#define LOAD(T, ADDRESS, LINE) \
    ({ uint64_t address_ = (ADDRESS); may_load(address_, sizeof(T), LINE) ? *(T *)address_ : (T)0; })
#define STORE(T, ADDRESS, VALUE, LINE) \
    do { \
        uint64_t address_ = (ADDRESS); \
        T value_ = (VALUE); \
        if (may_store(address_, sizeof(T), LINE, &value_)) *(T *)address_ = value_; \
    } while (0)
#else
#define LOAD(T, ADDRESS, LINE) (*(T *)(ADDRESS))
#define STORE(T, ADDRESS, VALUE, LINE) (*(T *)(ADDRESS) = (VALUE))
#endif
