/* The two products of the backward pass, of the responses' gradients with kernels and with the
   signal, computed from sequences of half the length.

   In float they take three quarters of the multiply-adds, by the fast FIR algorithm (Mou & Duhamel,
   "Short-length FIR filters and their use in fast nonrecursive filtering", IEEE Trans. Signal
   Processing 39(6), 1991). Signal and kernel are each split into the even half, the odd half and a
   third sequence made of both; three products of half the length replace four. Sums are half as
   long, which makes up for the rounding errors that the third sequence adds. The responses
   themselves are not computed this way: they would need twice the registers or have to be stored.

   In bfloat16 two values of a sequence form a pair, and one instruction computes two products.
   Gradients and signal have pairs that begin at even tokens and pairs that begin at odd ones.

   Included by each target's translation unit, inside its namespace, after vector.h. */

enum Half { EVEN, ODD, BOTH, HALVES };

inline int64_t half_of(int64_t taps) { return (taps + 1) / 2; }

template <int LANES>
struct Halves {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;

  static constexpr int KINDS = HALVES;
  static constexpr int64_t EXTRA = 0; /* gradients kept before a tile, besides half the taps - 1 */

  static inline Float weight(const float *h) { return V::splat(*h); }
  static inline Float add(Float sum, Float a, Float b) { return sum + a * b; }

  /* The taps that spread one kind of gradients, and the kind of gradients that is correlated with
     one kind of the signal. */
  static const float *spread_by(const float *h, int kind, int64_t half) { return h + kind * half; }
  static int correlated(int kind) { return kind; }

  /* Splits a kernel of `whole` taps into even taps, odd taps and their sum: (HALVES, half). */
  static void split_kernel(const float *h, int64_t whole, float *to) {
    const int64_t half = half_of(whole);
    for (int64_t j = 0; j < half; ++j) {
      const float even = h[2 * j];
      const float odd = 2 * j + 1 < whole ? h[2 * j + 1] : 0.0f;
      to[EVEN * half + j] = even;
      to[ODD * half + j] = odd;
      to[BOTH * half + j] = even + odd;
    }
  }

  /* Splits the signal into what the three halves of the responses' gradient are correlated with. */
  static void split_signal(const Float *x, int64_t count, Float *const to[HALVES]) {
    for (int64_t i = 0; i < count; ++i) {
      const Float odd = x[2 * i + 1];
      to[EVEN][i] = x[2 * i] - odd;
      to[ODD][i] = x[2 * i + 2] - odd;
      to[BOTH][i] = odd;
    }
  }

  /* Stores the gradients of the responses to an even token and to the next one. */
  static inline void store(Float even, Float odd, Float *const dz[HALVES], int64_t at) {
    dz[EVEN][at] = even;
    dz[ODD][at] = odd;
    dz[BOTH][at] = even + odd;
  }

  /* Sets them to zero from token `tokens` on, up to pair `end`. */
  static void end(Float *const dz[HALVES], int64_t tokens, int64_t end) {
    const int64_t pairs = tokens / 2, evens = pairs + tokens % 2;
    if (evens > pairs) dz[BOTH][pairs] = dz[EVEN][pairs];
    for (int64_t pair = pairs; pair < end; ++pair) {
      dz[ODD][pair] = Float{};
      if (pair >= evens) dz[EVEN][pair] = dz[BOTH][pair] = Float{};
    }
  }

  /* Gradient of a kernel's tap k, from the sums (HALVES, stride) of the three correlations. */
  static float tap(const Float *sums, int64_t stride, int64_t k) {
    return V::sum(sums[BOTH * stride + k / 2] + sums[(k % 2 ? ODD : EVEN) * stride + k / 2]);
  }

  /* dx[t] += the gradient of padded token t + left, from the three spread products and their
     rounding errors. */
  static void merge(const Float *const halves[HALVES], const Float *const lost[HALVES],
                    int64_t left, int64_t tokens, Float *dx) {
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t q = (t + left) / 2;
      if ((t + left) % 2) {
        const Float rest = lost[BOTH][q] - (lost[EVEN][q] + lost[ODD][q]);
        dx[t] += (halves[BOTH][q] - (halves[EVEN][q] + halves[ODD][q])) - rest;
      } else if (q > 0) {
        const Float rest = lost[EVEN][q] + lost[ODD][q - 1];
        dx[t] += (halves[EVEN][q] + halves[ODD][q - 1]) - rest;
      } else {
        dx[t] += halves[EVEN][q];
      }
    }
  }
};

/* The same in pairs of bfloat16. EVEN pair i holds tokens 2i and 2i + 1. ODD pair i of the signal
   holds tokens 2i + 1 and 2i + 2; ODD pair i of gradients holds tokens 2i - 1 and 2i, so that both
   are known when it is stored. */
template <int LANES>
struct PairedHalves {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;
  typedef typename V::Word Word;

  static constexpr int KINDS = 2;
  static constexpr int64_t EXTRA = 1;

  static inline Float weight(const float *h) {
    uint32_t bits;
    __builtin_memcpy(&bits, h, sizeof bits);
    return V::splat_bits(bits);
  }
  static inline Float add(Float sum, Float a, Float b) { return V::add_pairs(sum, a, b); }

  static const float *spread_by(const float *h, int, int64_t) { return h; }
  static int correlated(int) { return EVEN; }

  /* Pairs of taps, the later one in the low half: (half,). */
  static void split_kernel(const float *h, int64_t whole, float *to) {
    for (int64_t j = 0; j < whole; j += 2) {
      const uint32_t bits = round_half(h[j]) << 16 | (j + 1 < whole ? round_half(h[j + 1]) : 0);
      __builtin_memcpy(to++, &bits, sizeof bits);
    }
  }

  static void split_signal(const Float *pairs, int64_t count, Float *const to[HALVES]) {
    for (int64_t i = 0; i < count; ++i) {
      to[EVEN][i] = pairs[2 * i];
      to[ODD][i] = pairs[2 * i + 1];
    }
  }

  static inline void store(Float even, Float odd, Float *const dz[HALVES], int64_t at) {
    const Float pair = V::round_pair(even, odd);
    dz[ODD][at] = (Float)(((Word)dz[EVEN][at - 1] >> 16) | ((Word)pair << 16));
    dz[EVEN][at] = pair;
  }

  static void end(Float *const dz[HALVES], int64_t tokens, int64_t end) {
    const int64_t pairs = tokens / 2;
    const bool odd = tokens % 2;
    for (int64_t pair = pairs; pair < end; ++pair) {
      if (pair > pairs || !odd)
        dz[ODD][pair] = pair == pairs ? (Float)((Word)dz[EVEN][pair - 1] >> 16) : Float{};
      dz[EVEN][pair] = pair == pairs && odd ? (Float)((Word)dz[EVEN][pair] & 0xffffu) : Float{};
    }
  }

  static float tap(const Float *sums, int64_t stride, int64_t k) {
    return V::sum(sums[(k % 2 ? ODD : EVEN) * stride + k / 2]);
  }

  static void merge(const Float *const halves[HALVES], const Float *const lost[HALVES],
                    int64_t left, int64_t tokens, Float *dx) {
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t p = t + left, kind = p % 2 ? EVEN : ODD;
      dx[t] += halves[kind][p / 2] - lost[kind][p / 2];
    }
  }
};
