/* The backward pass of a scale of short kernels: all that a few tokens need stays in registers. A
   filter stores nothing but sums of its own gradients, and the gradient of the input is stored once
   for many filters. Included by each target's translation unit, inside its namespace, after
   scratch.h. */

/* Whether a scale goes this way. In half as many registers halves.h is faster; gains by token and
   GELU take their time elsewhere. */
template <int ACC>
inline bool is_brief(const Bank &bank, int64_t taps) {
  return ACC >= 24 && taps <= 4 && bank.gain_shape != GAIN_TOKEN &&
         bank.activation != ACT_GELU;
}

template <int LANES>
struct BriefSignals {
  typedef typename Vector<LANES>::Float Float;

  const Float *x;     /* padded: token t sees x[t] and on; zeros past the last token, as dy */
  const Float *dy;
  Float *dx, *lost;   /* of padded tokens; what rounding took from them. dx null: not wanted */
  const Float *gains; /* a vector a filter, as gain_sums */
  Float *gain_sums;
  Float *kernel_sums; /* a vector a tap, or null */
  int64_t sums_row;   /* distance of two filters' kernel_sums */
};

template <int LANES, int ACC, int64_t ACTIVATION, int TAPS>
struct Brief {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;
  typedef Activate<LANES, ACTIVATION> A;
  static constexpr int TOKENS = 6; /* at once: with their inputs they fill 32 registers */
  static constexpr int SPAN = TOKENS + TAPS - 1;
  static constexpr int64_t FILTERS = 24; /* in turn: their sums stay in first-level cache */

  BriefSignals<LANES> signals;
  const float *h; /* (filters, TAPS) */

  __attribute__((noinline)) void run(int64_t filters, int64_t tokens) const {
    for (int64_t first = 0; first < filters; first += FILTERS) {
      const int64_t end = first + FILTERS < filters ? first + FILTERS : filters;
      for (int64_t t = 0; t < tokens; t += TOKENS) block(first, end, t);
    }
  }

 private:
  inline void block(int64_t first, int64_t end, int64_t t) const {
    const Float *x = signals.x + t, *dy = signals.dy + t;
    Float seen[SPAN], back[SPAN] = {};
#pragma GCC unroll 16
    for (int j = 0; j < SPAN; ++j) seen[j] = V::in_register(x[j]);
    for (int64_t m = first; m < end; ++m) {
      const Float gain = signals.gains[m];
      Float weight[TAPS], dz[TOKENS], shares = V::zero();
#pragma GCC unroll 4
      for (int k = 0; k < TAPS; ++k) weight[k] = V::splat(h[m * TAPS + k]);
#pragma GCC unroll 16
      for (int j = 0; j < TOKENS; ++j) {
        Float z = weight[0] * seen[j];
#pragma GCC unroll 4
        for (int k = 1; k < TAPS; ++k) z += weight[k] * seen[j + k];
        shares += A::value(z) * dy[j];
        dz[j] = A::gradient(z, gain * dy[j]);
#pragma GCC unroll 4
        for (int k = 0; k < TAPS; ++k) back[j + k] += weight[k] * dz[j];
      }
      signals.gain_sums[m] += shares;
      if (!signals.kernel_sums) continue;
      Float *sums = signals.kernel_sums + m * signals.sums_row;
#pragma GCC unroll 4
      for (int k = 0; k < TAPS; ++k) {
        Float tap = dz[0] * seen[k];
#pragma GCC unroll 16
        for (int j = 1; j < TOKENS; ++j) tap += dz[j] * seen[j + k];
        sums[k] += tap;
      }
    }
    if (!signals.dx) return;
#pragma GCC unroll 16
    for (int j = 0; j < SPAN; ++j)
      Product<LANES, ACC>::add(back[j], signals.dx[t + j], signals.lost[t + j]);
  }
};
