/* The two products of the backward pass at three quarters of their multiply-adds, by the fast FIR
   algorithm (Mou & Duhamel, "Short-length FIR filters and their use in fast nonrecursive filtering",
   IEEE Trans. Signal Processing 39(6), 1991): of signal and kernel take the even half, the odd half
   and a third sequence made of both; three products of half the length serve in place of four.

   Sums get half as long, which makes up in rounding for what the third sequence adds to it. The
   responses themselves are not computed so: they would need twice the registers or be stored.
   Included by each target's translation unit, inside its namespace, after product.h. */

enum Half { EVEN, ODD, BOTH, HALVES };

template <int LANES>
struct Halves {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;

  static int64_t taps(int64_t whole) { return (whole + 1) / 2; }

  /* A kernel of `whole` taps as even taps, odd taps and their sum: (HALVES, half). */
  static void split_kernel(const float *h, int64_t whole, float *to) {
    const int64_t half = taps(whole);
    for (int64_t j = 0; j < half; ++j) {
      const float even = h[2 * j];
      const float odd = 2 * j + 1 < whole ? h[2 * j + 1] : 0.0f;
      to[EVEN * half + j] = even;
      to[ODD * half + j] = odd;
      to[BOTH * half + j] = even + odd;
    }
  }

  /* What the three halves of the responses' gradient are correlated with. */
  static void split_signal(const Float *x, int64_t count, Float *const to[HALVES]) {
    for (int64_t i = 0; i < count; ++i) {
      const Float odd = x[2 * i + 1];
      to[EVEN][i] = x[2 * i] - odd;
      to[ODD][i] = x[2 * i + 2] - odd;
      to[BOTH][i] = odd;
    }
  }

  /* Gradient of a kernel's tap k, from the sums (HALVES, stride) of the three correlations. */
  static float tap(const Float *sums, int64_t stride, int64_t k) {
    return V::sum(sums[BOTH * stride + k / 2] + sums[(k % 2 ? ODD : EVEN) * stride + k / 2]);
  }

  /* dx[t] += the gradient of padded token t + left, from the three spread products and from what
     rounding took from them. */
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
