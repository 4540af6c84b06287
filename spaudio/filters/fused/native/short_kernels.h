/* A scale of short kernels: all that a few tokens need stays in registers. Output and gradient of
   the input are stored once for many filters; in the backward pass, a filter stores only the sums
   for its own gradients. Included by each target's translation unit, inside its namespace, after
   scratch.h. */

/* Whether a scale is computed this way. With gains by token or GELU the time is spent elsewhere. */
inline bool is_brief(const Bank &bank, int64_t taps) {
  return taps <= 4 && bank.gain_shape != GAIN_TOKEN && bank.activation != ACT_GELU;
}

template <int LANES>
struct BriefSignals {
  typedef typename Vector<LANES>::Float Float;

  Float *y, *lost;    /* output, or gradient of padded tokens, and its rounding errors; y is null
                         if not wanted */
  const Float *gains; /* one vector per filter */
  /* For the backward pass: */
  const Float *dy;    /* zeros past the last token */
  const Float *low;   /* with PAIRS: dy as bfloat16 in the low half */
  Float *shares;      /* one vector per tap, or null */
  int64_t row;        /* distance between two filters' shares */
};

/* Where their slope is one, ReLU and identity are linear in each tap. So the part of dy that a
   filter passes, correlated with x, determines its gradients: these shares times the gain for the
   taps, and times the taps for the gain. */
template <int LANES, int ACC, int64_t ACTIVATION, int TAPS, bool PAIRS>
struct Brief {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;
  typedef typename V::Word Word;
  typedef Activate<LANES, ACTIVATION> A;
  typedef typename std::conditional<PAIRS, PairedTaps<LANES>, SingleTaps<LANES>>::type Taps;
  static constexpr int STEPS = PAIRS ? (TAPS + 1) / 2 : TAPS; /* of a response */
  static constexpr int STRIDE = PAIRS ? 2 : 1;                /* tokens from one to the next */
  static constexpr int MORE = STRIDE * (STEPS - 1);           /* tokens seen past the last */
  /* Tokens per block: with their inputs they fill 32 registers. Half as many registers do not hold
     all sums, but then the multipliers, not the loads, are the bottleneck. */
  static constexpr int TOKENS = ACC >= 24 ? 10 : 8; /* or half of them, at the end */
  static constexpr int TOKENS_BACK = ACC >= 24 ? 6 : 4;
  /* Filters per pass: longer sums would round more; shares stay in first-level cache. */
  static constexpr int64_t FILTERS = 12;
  static constexpr int64_t FILTERS_BACK = 24;

  BriefSignals<LANES> signals;
  const float *h; /* (filters, TAPS) */
  Taps taps;      /* the same, in the form that responses need */

  __attribute__((noinline)) void forward(int64_t filters, int64_t tokens) const {
    for (int64_t first = 0; first < filters; first += FILTERS) {
      const int64_t end = first + FILTERS < filters ? first + FILTERS : filters;
      int64_t t = 0;
      for (; t + TOKENS / 2 < tokens; t += TOKENS) respond<TOKENS>(first, end, t);
      if (t < tokens) respond<TOKENS / 2>(first, end, t);
    }
  }

  __attribute__((noinline)) void backward(int64_t filters, int64_t tokens) const {
    for (int64_t first = 0; first < filters; first += FILTERS_BACK) {
      const int64_t end = first + FILTERS_BACK < filters ? first + FILTERS_BACK : filters;
      for (int64_t t = 0; t < tokens; t += TOKENS_BACK) differentiate(first, end, t);
    }
  }

 private:
  static inline Float response(const Float (&weight)[STEPS], const Float *seen) {
    Float z = Taps::add(Float{}, weight[0], seen[0]);
#pragma GCC unroll 4
    for (int k = 1; k < STEPS; ++k) z = Taps::add(z, weight[k], seen[STRIDE * k]);
    return z;
  }

  template <int COUNT>
  inline void respond(int64_t first, int64_t end, int64_t t) const {
    Float seen[COUNT + MORE], sum[COUNT] = {};
#pragma GCC unroll 16
    for (int j = 0; j < COUNT + MORE; ++j) seen[j] = V::in_register(taps.x[t + j]);
    for (int64_t m = first; m < end; ++m) {
      const Float gain = signals.gains[m];
      Float weight[STEPS];
#pragma GCC unroll 4
      for (int k = 0; k < STEPS; ++k) weight[k] = taps.weight(m, k);
#pragma GCC unroll 16
      for (int j = 0; j < COUNT; ++j) sum[j] += gain * A::value(response(weight, seen + j));
    }
#pragma GCC unroll 16
    for (int j = 0; j < COUNT; ++j)
      Product<LANES, ACC>::add(sum[j], signals.y[t + j], signals.lost[t + j]);
  }

  inline void differentiate(int64_t first, int64_t end, int64_t t) const {
    constexpr int TOKENS = TOKENS_BACK, SPAN = TOKENS + TAPS - 1;
    const Float *dy = signals.dy + t, *low = signals.low + t;
    Float seen[TOKENS + MORE], back[SPAN] = {};
#pragma GCC unroll 16
    for (int j = 0; j < TOKENS + MORE; ++j) seen[j] = V::in_register(taps.x[t + j]);
    for (int64_t m = first; m < end; ++m) {
      Float weight[STEPS], passed[TOKENS], pairs[TOKENS / 2];
#pragma GCC unroll 4
      for (int k = 0; k < STEPS; ++k) weight[k] = taps.weight(m, k);
#pragma GCC unroll 16
      for (int j = 0; j < TOKENS; ++j) {
        const Float z = response(weight, seen + j);
        passed[j] = A::gradient(z, dy[j]);
        if (!PAIRS) continue;
        if (j % 2)
          pairs[j / 2] = (Float)((Word)pairs[j / 2] | (Word)passed[j]);
        else
          pairs[j / 2] = A::gradient(z, low[j]);
      }
      const Float gain = signals.gains[m];
#pragma GCC unroll 4
      for (int k = 0; k < TAPS; ++k) {
        const Float scaled = gain * V::splat(h[m * TAPS + k]);
#pragma GCC unroll 16
        for (int j = 0; j < TOKENS; ++j) back[j + k] += scaled * passed[j];
      }
      if (!signals.shares) continue;
      Float *shares = signals.shares + m * signals.row;
#pragma GCC unroll 4
      for (int k = 0; k < TAPS; ++k) {
        Float share{};
#pragma GCC unroll 16
        for (int j = 0; j < TOKENS; j += STRIDE)
          share = Taps::add(share, PAIRS ? pairs[j / 2] : passed[j], seen[j + k]);
        shares[k] += share;
      }
    }
    if (!signals.y) return;
#pragma GCC unroll 16
    for (int j = 0; j < SPAN; ++j)
      Product<LANES, ACC>::add(back[j], signals.y[t + j], signals.lost[t + j]);
  }
};
