/* One kernel per dimension: the time goes into reading and writing, so tokens are read in their
   order in memory. Included by each target's translation unit, inside its namespace, after
   storage.h. */

template <int LANES, bool HALF>
struct Apart {
  typedef Stored<LANES, HALF> S;
  typedef Vector<LANES> V;
  typedef typename V::Float Float;
  static constexpr int64_t SIZE = HALF ? sizeof(uint16_t) : sizeof(float);
  static constexpr int64_t STEP = 16; /* tokens per backward step, which the cache holds */
  static constexpr int64_t AHEAD = 8; /* tokens between one that is read and one prefetched */
  /* Bytes from which a result is stored past the caches: they would not hold it until it is read,
     and would first read what it overwrites. */
  static constexpr int64_t STREAMED = 16 << 20;

  static int64_t scratch_bytes(const Depthwise &d) { return Buffers(d, nullptr).bytes; }

  /* `kernels` are (taps, row), of which those of dimensions [first, last) are used. */
  static void forward(const Depthwise &d, const float *kernels, int64_t row, const void *x, void *y,
                      int64_t item, int64_t first, int64_t last, void *memory) {
    const Buffers own(d, memory);
    set_rows(d, x, item, d.left, own.zeros, own.x_rows);
    convolve(d, kernels, row, own.x_rows, x, y, item, first, last, 0, d.tokens);
    V::end_stream();
  }

  /* Adds the kernels' gradient of this item and these dimensions to grad_kernels (taps, row). */
  static void backward(const Depthwise &d, const float *kernels, int64_t row, const void *x,
                       const void *grad_y, void *grad_x, float *grad_kernels, int64_t item,
                       int64_t first, int64_t last, void *memory) {
    const Buffers own(d, memory);
    const int64_t right = d.taps - 1 - d.left;
    const float *const reversed = kernels + (d.taps - 1) * row;
    set_rows(d, grad_y, item, right, own.zeros, own.grad_rows);
    if (grad_kernels) {
      set_rows(d, x, item, d.left, own.zeros, own.x_rows);
      __builtin_memset(own.sums, 0, d.taps * own.sum_row * sizeof(float));
    }
    for (int64_t t = 0; t < d.tokens; t += STEP) {
      const int64_t end = t + STEP < d.tokens ? t + STEP : d.tokens;
      if (grad_x)
        convolve(d, reversed, -row, own.grad_rows, grad_y, grad_x, item, first, last, t, end);
      if (grad_kernels) correlate(d, own, own.grad_rows + right, first, last, t, end);
    }
    V::end_stream();
    for (int64_t k = 0; grad_kernels && k < d.taps; ++k)
      for (int64_t i = first; i < last; ++i)
        grad_kernels[k * row + i] += own.sums[k * own.sum_row + i];
  }

 private:
  struct Buffers {
    float *sums; /* (taps, sum_row): gradient of the kernels */
    const void *zeros; /* one token */
    const void **x_rows, **grad_rows; /* see set_rows */
    int64_t sum_row, dim, bytes;

    Buffers(const Depthwise &d, void *memory) : sum_row((d.dim + 15) / 16 * 16), dim(d.dim) {
      char *const start = static_cast<char *>(memory);
      const int64_t positions = d.tokens + d.taps - 1;
      sums = static_cast<float *>(memory);
      zeros = sums + d.taps * sum_row;
      x_rows = reinterpret_cast<const void **>(sums + (d.taps + 1) * sum_row);
      grad_rows = x_rows + positions;
      bytes = reinterpret_cast<char *>(grad_rows + positions) - start;
    }
  };

  /* How much of a vector is read and written: all of it, or what is left of the dimensions. */
  struct Whole {
    static int64_t lanes() { return LANES; }
  };
  struct Rest {
    int64_t count;
    int64_t lanes() const { return count; }
  };

  /* Where each token of the padded signal is: rows of zeros around it, and instead of padding. */
  static void set_rows(const Depthwise &d, const void *from, int64_t item, int64_t before,
                       const void *zeros, const void **to) {
    const uint8_t *mask = d.mask ? d.mask + item * d.tokens : nullptr;
    const char *data = static_cast<const char *>(from) + item * d.tokens * d.dim * SIZE;
    for (int64_t p = 0; p < d.tokens + d.taps - 1; ++p) {
      const int64_t t = p - before;
      const bool is_zero = t < 0 || t >= d.tokens || (mask && mask[t]);
      to[p] = is_zero ? zeros : data + t * d.dim * SIZE;
    }
  }

  /* Rows are too short for the processor to foresee the next one. An address past the end of the
     signal is not read. */
  template <int VECTORS, int WRITE>
  static inline void prefetch(const void *data, int64_t at) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(at * SIZE);
    for (int64_t byte = 0; byte < VECTORS * LANES * SIZE; byte += 64)
      __builtin_prefetch(reinterpret_cast<const void *>(address + byte), WRITE);
  }

  /* to[t] = from[t] + sum_k kernels[k] rows[t + k], for t in [begin, end); padding is copied. `step`
     is the distance from tap to tap. */
  static void convolve(const Depthwise &d, const float *kernels, int64_t step,
                       const void *const *rows, const void *from, void *to, int64_t item,
                       int64_t first, int64_t last, int64_t begin, int64_t end) {
    const uint8_t *mask = d.mask ? d.mask + item * d.tokens : nullptr;
    const bool streams = !HALF && d.batch * d.tokens * d.dim * SIZE >= STREAMED &&
                         d.dim % LANES == 0 &&
                         reinterpret_cast<uintptr_t>(to) % (LANES * SIZE) == 0;
    for (int64_t t = begin; t < end;) {
      const int64_t at = (item * d.tokens + t) * d.dim;
      const Place place = {kernels, step, d.taps, rows + t, from, to, at, d.dim, streams};
      if (mask && mask[t]) {
        __builtin_memcpy(static_cast<char *>(to) + (at + first) * SIZE,
                         static_cast<const char *>(from) + (at + first) * SIZE,
                         (last - first) * SIZE);
        ++t;
      } else if (t + 4 <= end && !(mask && (mask[t + 1] || mask[t + 2] || mask[t + 3]))) {
        respond<4>(place, first, last);
        t += 4;
      } else {
        respond<1>(place, first, last);
        ++t;
      }
    }
  }

  /* What is the same for all dimensions of some tokens. */
  struct Place {
    const float *kernels;
    int64_t step, taps;
    const void *const *rows;
    const void *from;
    void *to;
    int64_t at, dim; /* where the first token is in `from` and `to`, and the distance to the next */
    bool streams;    /* whether the result is stored past the caches */
  };

  template <int TOKENS>
  static void respond(const Place &place, int64_t first, int64_t last) {
    int64_t i = first;
    for (; i + 2 * LANES <= last; i += 2 * LANES) respond_to<TOKENS, 2>(place, i, Whole());
    for (; i + LANES <= last; i += LANES) respond_to<TOKENS, 1>(place, i, Whole());
    if (i < last) respond_to<TOKENS, 1>(place, i, Rest{last - i});
  }

  /* `place` is a copy, so that the compiler knows that a store does not change it. */
  template <int TOKENS, int VECTORS, class Valid>
  static inline void respond_to(const Place place, int64_t i, const Valid &valid) {
#pragma GCC unroll 4
    for (int j = 0; j < TOKENS; ++j) {
      prefetch<VECTORS, 0>(place.from, place.at + (j + AHEAD) * place.dim + i);
      if (LANES < 16 && !place.streams)
        prefetch<VECTORS, 1>(place.to, place.at + (j + AHEAD) * place.dim + i);
    }
    Float sums[TOKENS][VECTORS] = {};
    const void *const *rows = place.rows;
    const float *kernel = place.kernels + i;
    for (int64_t k = 0; k < place.taps; ++k, ++rows, kernel += place.step) {
      Float taps[VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) taps[v] = V::load(kernel + v * LANES, LANES, 1);
#pragma GCC unroll 4
      for (int j = 0; j < TOKENS; ++j)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v)
          sums[j][v] = V::fused(sums[j][v]) +
                       taps[v] * S::load(rows[j], i + v * LANES, valid.lanes(), 1);
    }
#pragma GCC unroll 4
    for (int j = 0; j < TOKENS; ++j)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v) {
        const int64_t at = place.at + j * place.dim + i + v * LANES;
        const Float own = S::load(place.from, at, valid.lanes(), 1);
        if (!HALF && place.streams)
          V::stream(static_cast<float *>(place.to) + at, own + sums[j][v]);
        else
          S::store(place.to, at, valid.lanes(), 1, own + sums[j][v]);
      }
  }

  /* sums[k] += sum of grads[t] x[t + k] over t in [begin, end). */
  static void correlate(const Depthwise &d, const Buffers &own, const void *const *grads,
                        int64_t first, int64_t last, int64_t begin, int64_t end) {
    int64_t i = first;
    for (; i + 2 * LANES <= last; i += 2 * LANES)
      correlate_all<2>(d, own, grads, i, Whole(), begin, end);
    for (; i + LANES <= last; i += LANES) correlate_all<1>(d, own, grads, i, Whole(), begin, end);
    if (i < last) correlate_all<1>(d, own, grads, i, Rest{last - i}, begin, end);
  }

  template <int VECTORS, class Valid>
  static inline void correlate_all(const Depthwise &d, const Buffers &own,
                                   const void *const *grads, int64_t i, const Valid &valid,
                                   int64_t begin, int64_t end) {
    int64_t k = 0;
    for (; k + 4 <= d.taps; k += 4) correlate_taps<4, VECTORS>(own, grads, k, i, valid, begin, end);
    for (; k < d.taps; ++k) correlate_taps<1, VECTORS>(own, grads, k, i, valid, begin, end);
  }

  template <int TAPS, int VECTORS, class Valid>
  static inline void correlate_taps(const Buffers &own, const void *const *grads, int64_t first_tap,
                                    int64_t i, const Valid &valid, int64_t begin, int64_t end) {
    const int64_t sum_row = own.sum_row, ahead = STEP * own.dim + i;
    float *const to = own.sums + first_tap * sum_row + i;
    const void *const *rows = own.x_rows + first_tap;
    Float sums[TAPS][VECTORS];
#pragma GCC unroll 4
    for (int k = 0; k < TAPS; ++k)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v)
        sums[k][v] = V::load(to + k * sum_row + v * LANES, LANES, 1);
    for (int64_t t = begin; t < end; ++t) {
      prefetch<VECTORS, 0>(rows[t], ahead);
      Float grad[VECTORS];
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v)
        grad[v] = S::load(grads[t], i + v * LANES, valid.lanes(), 1);
#pragma GCC unroll 4
      for (int k = 0; k < TAPS; ++k)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v)
          sums[k][v] = V::fused(sums[k][v]) +
                       grad[v] * S::load(rows[t + k], i + v * LANES, valid.lanes(), 1);
    }
#pragma GCC unroll 4
    for (int k = 0; k < TAPS; ++k)
#pragma GCC unroll 2
      for (int v = 0; v < VECTORS; ++v)
        V::store(to + k * sum_row + v * LANES, LANES, 1, sums[k][v]);
  }
};
