/* The three products of a filterbank, register-blocked. Lanes hold neighbouring dimensions, so taps
   and gains are broadcast, nothing is transposed, and vectors are summed across lanes only once per
   kernel tap. Included by each target's translation unit, inside its namespace, after half_length.h.

   ACC accumulators fill the register file: ROWS filters by ACC / ROWS positions (or taps). A block
   is always computed whole; values beyond the end are discarded, and buffers are that much longer.
   Measured against filters in the lanes, which need x transposed, a sum across lanes per position,
   and an overlap-add across lanes in the backward pass. */

/* The taps of some filters, one per step. */
template <int LANES>
struct SingleTaps {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;

  const float *h; /* (rows, steps) */
  int64_t steps;
  const Float *x;

  inline Float weight(int i, int64_t k) const { return V::splat(h[i * steps + k]); }
  inline Float value(int64_t t, int64_t k) const { return x[t + k]; }
  static inline Float add(Float sum, Float weight, Float value) { return sum + weight * value; }
};

/* Two taps per step, in bfloat16, if the processor adds two such products in one instruction. */
template <int LANES>
struct PairedTaps {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;

  const uint32_t *h; /* (rows, steps): the later tap of a pair in the high half */
  int64_t steps;
  const Float *x; /* x[t] and x[t + 1], likewise */

  inline Float weight(int i, int64_t k) const { return V::splat_bits(h[i * steps + k]); }
  inline Float value(int64_t t, int64_t k) const { return x[t + 2 * k]; }
  static inline Float add(Float sum, Float weight, Float value) {
    return V::add_pairs(sum, weight, value);
  }
};

template <int LANES, int ACC>
struct Product {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;

  /* sum += value by Kahan's compensated summation. A result is the sum of many filters, and would
     otherwise round once per three filters; this costs a few additions per 96 multiply-adds. */
  static inline void add(Float value, Float &sum, Float &lost) {
    const Float corrected = value - lost;
    const Float next = sum + corrected;
    lost = (next - sum) - corrected;
    sum = next;
  }

  /* z[i][t] = sum_k h[i][k] x[t + k], for t in [0, count), handed over block by block:
     sink.take(t, z) gets ROWS by COLUMNS values, from t on, while they are in registers. `taps` is
     one of the two structs above. */
  template <int ROWS, class Taps, class Sink>
  __attribute__((noinline)) static void convolve(const Taps &taps, int64_t count,
                                                 const Sink &sink) {
    constexpr int COLUMNS = ACC / ROWS;
    int64_t t = 0;
    for (; t + COLUMNS / 2 < count; t += COLUMNS) respond<ROWS, COLUMNS>(taps, t, sink);
    if (t < count) respond<ROWS, COLUMNS / 2>(taps, t, sink);
  }

  /* One block of the convolution. */
  template <int ROWS, int COLUMNS, class Taps, class Sink>
  static inline void respond(const Taps &taps, int64_t t, const Sink &sink) {
    const Taps own = taps; /* its fields in registers */
    Float acc[ROWS][COLUMNS] = {};
    for (int64_t k = 0; k < own.steps; ++k) {
      Float weight[ROWS];
#pragma GCC unroll 4
      for (int i = 0; i < ROWS; ++i) weight[i] = own.weight(i, k);
#pragma GCC unroll 32
      for (int j = 0; j < COLUMNS; ++j) {
        const Float value = V::in_register(own.value(t + j, k));
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; ++i) acc[i][j] = Taps::add(acc[i][j], weight[i], value);
      }
    }
    sink.take(t, acc);
  }

  /* sums[i][k] += sum_t dz[i][t] x[t + k], for k in [0, taps) and t in [0, count). H is a struct of
     half_length.h and defines the products. */
  template <class H, int ROWS, int COLUMNS>
  __attribute__((noinline)) static void correlate(const Float *dz, int64_t dz_stride,
                                                  const Float *x, int64_t count, int64_t taps,
                                                  Float *sums, int64_t sums_stride) {
    for (int64_t k = 0; k < taps; k += COLUMNS) {
      Float acc[ROWS][COLUMNS] = {}; /* added at the end: two short sums round less than a long one */
      for (int64_t t = 0; t < count; ++t) {
        Float weight[ROWS];
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; ++i) weight[i] = dz[i * dz_stride + t];
#pragma GCC unroll 32
        for (int j = 0; j < COLUMNS; ++j) {
          const Float value = V::in_register(x[t + k + j]);
#pragma GCC unroll 4
          for (int i = 0; i < ROWS; ++i) acc[i][j] = H::add(acc[i][j], weight[i], value);
        }
      }
#pragma GCC unroll 4
      for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 32
        for (int j = 0; j < COLUMNS; ++j) sums[i * sums_stride + k + j] += acc[i][j];
    }
  }

  /* dx[p] += sum_i sum_k h[i][k] dz[i][p - k], for p in [0, count). */
  template <class H, int ROWS>
  __attribute__((noinline)) static void spread(const float *h, int64_t h_stride, int64_t taps,
                                               const Float *dz, int64_t dz_stride, int64_t count,
                                               Float *dx, Float *lost) {
    int64_t p = 0;
    for (; p + 2 * ACC / 3 < count; p += ACC)
      gather<H, ROWS, ACC>(h, h_stride, taps, dz + p, dz_stride, count - p, dx + p, lost + p);
    if (p + ACC / 3 < count)
      gather<H, ROWS, 2 * ACC / 3>(h, h_stride, taps, dz + p, dz_stride, count - p, dx + p, lost + p);
    else if (p < count)
      gather<H, ROWS, ACC / 3>(h, h_stride, taps, dz + p, dz_stride, count - p, dx + p, lost + p);
  }

  /* One block of `spread`. Two taps per step: each loaded dz then serves two multiply-adds, which
     keeps the load ports off the critical path. */
  template <class H, int ROWS, int COLUMNS>
  static inline void gather(const float *h, int64_t h_stride, int64_t taps, const Float *dz,
                            int64_t dz_stride, int64_t valid, Float *dx, Float *lost) {
    Float acc[COLUMNS] = {};
    int64_t k = 0;
    for (; k + 1 < taps; k += 2) {
#pragma GCC unroll 4
      for (int i = 0; i < ROWS; ++i) {
        const float *weight = h + i * h_stride + k;
        const Float near = H::weight(weight), far = H::weight(weight + 1);
        const Float *from = dz + i * dz_stride - k;
        Float value = V::in_register(from[-1]);
        acc[0] = H::add(acc[0], far, value);
#pragma GCC unroll 32
        for (int j = 1; j < COLUMNS; ++j) {
          value = V::in_register(from[j - 1]);
          acc[j - 1] = H::add(acc[j - 1], near, value);
          acc[j] = H::add(acc[j], far, value);
        }
        acc[COLUMNS - 1] = H::add(acc[COLUMNS - 1], near, from[COLUMNS - 1]);
      }
    }
    if (k < taps) {
#pragma GCC unroll 4
      for (int i = 0; i < ROWS; ++i) {
        const Float last = H::weight(h + i * h_stride + k);
        const Float *from = dz + i * dz_stride - k;
#pragma GCC unroll 32
        for (int j = 0; j < COLUMNS; ++j) acc[j] = H::add(acc[j], last, from[j]);
      }
    }
#pragma GCC unroll 32
    for (int j = 0; j < COLUMNS; ++j)
      if (j < valid) add(acc[j], dx[j], lost[j]);
  }
};
