/* One kernel per dimension: the time goes into reading and writing. Included by each target's
   translation unit, inside its namespace, after storage.h. */

template <int LANES, bool HALF>
struct Apart {
  typedef Stored<LANES, HALF> S;
  typedef Vector<LANES> V;
  typedef typename V::Float Float;

  /* A signal with zeros around it, its responses, a second such signal, and sums of taps. */
  static int64_t scratch_bytes(const Depthwise &d) {
    return (3 * d.tokens + 3 * d.taps) * static_cast<int64_t>(sizeof(Float));
  }

  /* `kernels` are (taps, row), of which those of dimensions [first, first + LANES) are used. */
  static void forward(const Depthwise &d, const float *kernels, int64_t row, const void *x,
                        void *y, int64_t item, int64_t first, void *memory) {
    Float *const window = static_cast<Float *>(memory), *const sums = window + d.tokens + d.taps;
    const uint8_t *mask = d.mask ? d.mask + item * d.tokens : nullptr;
    const int64_t lanes = valid(d, first), start = item * d.tokens * d.dim + first;
    pack(d, mask, x, start, lanes, window + d.left);
    convolve(d, kernels + first, row, 1, window, sums);
    for (int64_t t = 0; t < d.tokens; ++t) {
      const Float own = S::load(x, start + t * d.dim, lanes, 1);
      S::store(y, start + t * d.dim, lanes, 1, mask && mask[t] ? own : own + sums[t]);
    }
  }

  /* Adds the kernels' gradient of this item and these dimensions to grad_kernels (taps, row). */
  static void backward(const Depthwise &d, const float *kernels, int64_t row,
                                 const void *x, const void *grad_y, void *grad_x,
                                 float *grad_kernels, int64_t item, int64_t first, void *memory) {
    Float *const window = static_cast<Float *>(memory), *const sums = window + d.tokens + d.taps;
    Float *const grads = sums + d.tokens;
    const uint8_t *mask = d.mask ? d.mask + item * d.tokens : nullptr;
    const int64_t lanes = valid(d, first), start = item * d.tokens * d.dim + first;
    const int64_t right = d.taps - 1 - d.left;
    pack(d, mask, grad_y, start, lanes, grads + right);
    if (grad_x) {
      convolve(d, kernels + first + (d.taps - 1) * row, row, -1, grads, sums);
      for (int64_t t = 0; t < d.tokens; ++t) {
        const Float own = S::load(grad_y, start + t * d.dim, lanes, 1);
        S::store(grad_x, start + t * d.dim, lanes, 1, mask && mask[t] ? own : own + sums[t]);
      }
    }
    if (!grad_kernels) return;
    pack(d, mask, x, start, lanes, window + d.left);
    int64_t k = 0;
    float *to = grad_kernels + first;
    for (; k + 4 <= d.taps; k += 4, to += 4 * row)
      correlate<4>(d, grads + right, window + k, row, to);
    for (; k < d.taps; ++k, to += row) correlate<1>(d, grads + right, window + k, row, to);
  }

 private:
  static int64_t valid(const Depthwise &d, int64_t first) {
    return d.dim - first < LANES ? d.dim - first : LANES;
  }

  static void pack(const Depthwise &d, const uint8_t *mask, const void *from, int64_t start,
                   int64_t lanes, Float *to) {
    for (int64_t t = 0; t < d.tokens; ++t)
      to[t] = mask && mask[t] ? Float{} : S::load(from, start + t * d.dim, lanes, 1);
  }

  /* sums[t] = sum_k kernels[k] window[t + k]; `way` is the step, in rows, from tap to tap. */
  static void convolve(const Depthwise &d, const float *kernels, int64_t row, int64_t way,
                       const Float *window, Float *sums) {
    for (int64_t t = 0; t < d.tokens; ++t) sums[t] = Float{};
    int64_t k = 0;
    for (; k + 4 <= d.taps; k += 4) add<4>(d, kernels + way * k * row, way * row, window + k, sums);
    for (; k < d.taps; ++k) add<1>(d, kernels + way * k * row, way * row, window + k, sums);
  }

  template <int TAPS>
  static void add(const Depthwise &d, const float *kernels, int64_t step, const Float *window,
                  Float *sums) {
    Float taps[TAPS];
    for (int k = 0; k < TAPS; ++k) taps[k] = V::load(kernels + k * step, LANES, 1);
    for (int64_t t = 0; t < d.tokens; ++t) {
      Float sum = sums[t];
#pragma GCC unroll 4
      for (int k = 0; k < TAPS; ++k) sum += taps[k] * window[t + k];
      sums[t] = sum;
    }
  }

  template <int TAPS>
  static void correlate(const Depthwise &d, const Float *grads, const Float *window, int64_t row,
                        float *to) {
    Float sums[TAPS] = {};
    for (int64_t t = 0; t < d.tokens; ++t)
#pragma GCC unroll 4
      for (int k = 0; k < TAPS; ++k) sums[k] += grads[t] * window[t + k];
    for (int k = 0; k < TAPS; ++k)
      V::store(to + k * row, LANES, 1, V::load(to + k * row, LANES, 1) + sums[k]);
  }
};
