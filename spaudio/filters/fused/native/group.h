/* Forward and backward of one group: one batch item, LANES neighbouring dimensions, all tokens.
   Included by each target's translation unit, inside its namespace, after product.h, scratch.h.

   Filters go by threes, tokens by tiles that stay in first-level cache; the response of three
   filters to a tile is all that is ever held of the time-frequency representation. */

template <int LANES, int ACC, int TILE>
struct Group {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;
  typedef Product<LANES, ACC> P;
  static constexpr int ROWS = 3;
  static_assert(TILE % ACC == 0 && ACC % 6 == 0, "a tile is whole blocks");
  typedef Scratch<LANES, ACC, TILE, ROWS> Buffers;

  /* The gains of one filter: a vector of lanes, or a scalar, by token or not. */
  template <int64_t SHAPE>
  struct Gain {
    Float lanes;
    const float *tokens;
    int64_t stride;

    Gain(const Bank &bank, const Buffers &buffers, int64_t item, int64_t m) {
      stride = count_filters(bank);
      tokens = bank.gains + item * bank.tokens * stride + m;
      if (SHAPE == GAIN_FILTER) lanes = V::splat(bank.gains[m]);
      if (SHAPE == GAIN_DIM) lanes = buffers.gains[m];
    }
    Float at(int64_t token) const {
      return SHAPE == GAIN_TOKEN ? V::splat(tokens[token * stride]) : lanes;
    }
  };

  template <int64_t ACTIVATION, int64_t SHAPE>
  static void forward(const Bank &bank, const Signal &x, const Signal &y, int64_t item,
                      int64_t first, void *memory) {
    Buffers buffers(bank, memory);
    Buffers::pack(bank, x, item, first, buffers.x + buffers.left);
    buffers.pack_gains(bank, first);
    Buffers::clear(buffers.y, bank.tokens);
    const float *h = bank.kernels;
    int64_t m = 0;
    for (int64_t s = 0; s < bank.scales; ++s) {
      const int64_t count = bank.shapes[2 * s], taps = bank.shapes[2 * s + 1];
      const Float *window = buffers.x + buffers.left - left_padding(bank, taps);
      for (int64_t done = 0, rows; done < count; done += rows, m += rows, h += rows * taps) {
        rows = count - done < ROWS ? count - done : ROWS;
        for (int64_t start = 0; start < bank.tokens; start += TILE) {
          const int64_t tokens = tokens_left(bank, start);
          convolve(rows, h, taps, window + start, tokens, buffers.z, buffers.row);
          if (rows == 3) weigh<ACTIVATION, SHAPE, 3>(bank, buffers, item, m, start, tokens);
          if (rows == 2) weigh<ACTIVATION, SHAPE, 2>(bank, buffers, item, m, start, tokens);
          if (rows == 1) weigh<ACTIVATION, SHAPE, 1>(bank, buffers, item, m, start, tokens);
        }
      }
    }
    Buffers::unpack(bank, buffers.y, item, first, y);
  }

  template <int64_t ACTIVATION, int64_t SHAPE>
  static void backward(const Bank &bank, const Signal &x, const Signal &grad_y,
                       const Signal *grad_x, const Gradients &to, int64_t item, int64_t first,
                       void *memory) {
    Buffers buffers(bank, memory);
    Buffers::pack(bank, x, item, first, buffers.x + buffers.left);
    Buffers::pack(bank, grad_y, item, first, buffers.y);
    buffers.pack_gains(bank, first);
    Buffers::clear(buffers.dx, bank.tokens);
    float *kernel_sums = to.kernels;
    const float *h = bank.kernels;
    int64_t m = 0;
    for (int64_t s = 0; s < bank.scales; ++s) {
      const int64_t count = bank.shapes[2 * s], taps = bank.shapes[2 * s + 1];
      for (int64_t done = 0, rows; done < count; done += rows, m += rows, h += rows * taps) {
        rows = count - done < ROWS ? count - done : ROWS;
        Float gain_sums[ROWS] = {};
        backward_rows<ACTIVATION, SHAPE>(bank, buffers, item, h, m, rows, taps, grad_x != nullptr,
                                         to, gain_sums);
        if (kernel_sums) {
          for (int64_t i = 0; i < rows; ++i)
            for (int64_t k = 0; k < taps; ++k)
              *kernel_sums++ += V::sum(buffers.kernel_sums[i * buffers.sum_row + k]);
        }
        if (to.gains && SHAPE != GAIN_TOKEN) {
          for (int64_t i = 0; i < rows; ++i)
            add_gain<SHAPE>(bank, gain_sums[i], first, m + i, to.gains);
        }
      }
    }
    if (grad_x) Buffers::unpack(bank, buffers.dx, item, first, *grad_x);
  }

 private:
  template <int64_t ACTIVATION, int64_t SHAPE, int COUNT>
  static void weigh(const Bank &bank, const Buffers &buffers, int64_t item, int64_t m,
                    int64_t start, int64_t tokens) {
    typedef Gain<SHAPE> G;
    const G gains[3] = {G(bank, buffers, item, m), G(bank, buffers, item, m + (COUNT > 1)),
                        G(bank, buffers, item, m + COUNT - 1)};
    Float *y = buffers.y + start;
    for (int64_t t = 0; t < tokens; ++t) {
      Float sum = y[t];
#pragma GCC unroll 3
      for (int i = 0; i < COUNT; ++i)
        sum += gains[i].at(start + t) *
               Activate<LANES, ACTIVATION>::value(buffers.z[i * buffers.row + t]);
      y[t] = sum;
    }
  }

  /* Everything that `rows` filters from filter m on contribute. A tile of z is computed anew, turned
     into its own gradient, and used for both remaining products while in cache. The last taps - 1
     gradients of a tile are kept before the next one, so that no token of dx is visited twice. */
  template <int64_t ACTIVATION, int64_t SHAPE>
  static void backward_rows(const Bank &bank, const Buffers &buffers, int64_t item, const float *h,
                            int64_t m, int64_t rows, int64_t taps, bool wants_x,
                            const Gradients &to, Float *gain_sums) {
    const int64_t left = left_padding(bank, taps), before = taps - 1;
    const int64_t filters = count_filters(bank);
    const Float *window = buffers.x + buffers.left - left;
    Float *tile = buffers.z + before;
    for (int64_t i = 0; i < rows; ++i) {
      Buffers::clear(buffers.z + i * buffers.row, before);
      Buffers::clear(buffers.kernel_sums + i * buffers.sum_row, taps);
    }
    const int64_t end = bank.tokens + (wants_x ? left : 0);
    for (int64_t start = 0; start < end; start += TILE) {
      const int64_t tokens = tokens_left(bank, start);
      if (tokens > 0) convolve(rows, h, taps, window + start, tokens, tile, buffers.row);
      for (int64_t i = 0; i < rows; ++i) {
        const Gain<SHAPE> gain(bank, buffers, item, m + i);
        float *by_token = SHAPE == GAIN_TOKEN && to.gains ? to.gains + m + i : nullptr;
        Float *z = tile + i * buffers.row;
        const Float *dy = buffers.y + start;
        Float sum = gain_sums[i];
        for (int64_t t = 0; t < tokens; ++t) {
          typedef Activate<LANES, ACTIVATION> A;
          const Float share = A::value(z[t]) * dy[t];
          if (SHAPE != GAIN_TOKEN) sum += share;
          if (SHAPE == GAIN_TOKEN && by_token)
            by_token[(start + t) * filters] += V::sum(share);
          z[t] = A::gradient(z[t], gain.at(start + t) * dy[t]);
        }
        gain_sums[i] = sum;
        Buffers::clear(z + tokens, TILE - tokens);
      }
      if (to.kernels && tokens > 0)
        correlate(rows, tile, buffers.row, window + start, tokens, taps, buffers.kernel_sums,
                  buffers.sum_row);
      if (!wants_x) continue;
      const int64_t from = start > left ? start : left;
      const int64_t until = start + TILE < end ? start + TILE : end;
      if (from < until)
        P::spread(h, rows, taps, tile + from - start, buffers.row, until - from,
                  buffers.dx + from - left);
      for (int64_t i = 0; i < rows; ++i)
        __builtin_memmove(buffers.z + i * buffers.row, buffers.z + i * buffers.row + TILE,
                          before * sizeof(Float));
    }
  }

  template <int64_t SHAPE>
  static void add_gain(const Bank &bank, Float sum, int64_t first, int64_t m, float *gains) {
    if (SHAPE == GAIN_FILTER) {
      gains[m] += V::sum(sum);
      return;
    }
    const int64_t lanes = Buffers::valid(bank, first), filters = count_filters(bank);
    for (int64_t lane = 0; lane < lanes; ++lane)
      gains[(first + lane) * filters + m] += sum[lane];
  }

  static int64_t tokens_left(const Bank &bank, int64_t start) {
    const int64_t tokens = bank.tokens - start < TILE ? bank.tokens - start : TILE;
    return tokens > 0 ? tokens : 0;
  }

  static void convolve(int64_t rows, const float *h, int64_t taps, const Float *x, int64_t count,
                       Float *z, int64_t stride) {
    if (rows == 3) return P::template convolve<3>(h, taps, x, count, z, stride);
    if (rows == 2) return P::template convolve<2>(h, taps, x, count, z, stride);
    P::template convolve<1>(h, taps, x, count, z, stride);
  }

  static void correlate(int64_t rows, const Float *dz, int64_t dz_stride, const Float *x,
                        int64_t count, int64_t taps, Float *sums, int64_t stride) {
    if (rows == 3) return P::template correlate<3>(dz, dz_stride, x, count, taps, sums, stride);
    if (rows == 2) return P::template correlate<2>(dz, dz_stride, x, count, taps, sums, stride);
    P::template correlate<1>(dz, dz_stride, x, count, taps, sums, stride);
  }
};

/* The entry points of a target: the activation and the shape of the gains picked once a group. */
template <int LANES, int ACC, int TILE>
struct Entry {
  typedef Group<LANES, ACC, TILE> G;

  static int64_t scratch_bytes(const Bank &bank) {
    typename G::Buffers buffers(bank, nullptr);
    return buffers.elements * static_cast<int64_t>(sizeof(typename G::Float));
  }

  static void forward(const Bank &bank, const Signal &x, const Signal &y, int64_t item,
                      int64_t first, void *scratch) {
    typedef void (*Run)(const Bank &, const Signal &, const Signal &, int64_t, int64_t, void *);
    static constexpr Run table[3][3] = {
        {G::template forward<0, 1>, G::template forward<0, 2>, G::template forward<0, 3>},
        {G::template forward<1, 1>, G::template forward<1, 2>, G::template forward<1, 3>},
        {G::template forward<2, 1>, G::template forward<2, 2>, G::template forward<2, 3>}};
    table[bank.activation][bank.gain_shape - 1](bank, x, y, item, first, scratch);
  }

  static void backward(const Bank &bank, const Signal &x, const Signal &grad_y,
                       const Signal *grad_x, const Gradients &to, int64_t item, int64_t first,
                       void *scratch) {
    typedef void (*Run)(const Bank &, const Signal &, const Signal &, const Signal *,
                        const Gradients &, int64_t, int64_t, void *);
    static constexpr Run table[3][3] = {
        {G::template backward<0, 1>, G::template backward<0, 2>, G::template backward<0, 3>},
        {G::template backward<1, 1>, G::template backward<1, 2>, G::template backward<1, 3>},
        {G::template backward<2, 1>, G::template backward<2, 2>, G::template backward<2, 3>}};
    table[bank.activation][bank.gain_shape - 1](bank, x, grad_y, grad_x, to, item, first, scratch);
  }

  static double peak(int64_t steps, float *sink) {
    typedef Vector<LANES> V;
    typename V::Float acc[ACC], factor = V::splat(sink[0]), offset = V::splat(sink[1]);
    for (int j = 0; j < ACC; ++j) acc[j] = V::splat(static_cast<float>(j));
    for (int64_t step = 0; step < steps; ++step)
#pragma GCC unroll 32
      for (int j = 0; j < ACC; ++j) acc[j] = acc[j] * factor + offset;
    typename V::Float total{};
    for (int j = 0; j < ACC; ++j) total += acc[j];
    sink[0] = V::sum(total);
    return 2.0 * LANES * ACC * static_cast<double>(steps);
  }
};
