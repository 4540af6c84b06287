/* Forward and backward of one group: one batch item, LANES neighbouring dimensions, all tokens.
   Included by each target's translation unit, inside its namespace, after sink.h.

   Filters go by threes (what is left over, one by one), tokens by tiles that stay in first-level
   cache. Going forward a response never leaves the registers; going backward those of three filters
   to a tile are all that is ever held of the time-frequency representation. */

template <int LANES, int ACC, int TILE>
struct Group {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;
  typedef Product<LANES, ACC> P;
  static constexpr int ROWS = 3;
  static_assert(TILE % ACC == 0 && ACC % ROWS == 0, "a tile is whole blocks");
  typedef Scratch<LANES, ACC, TILE, ROWS> Buffers;

  template <int64_t ACTIVATION, bool BY_TOKEN>
  static void forward(const Bank &bank, const Signal &x, const Signal &y, int64_t item,
                      int64_t first, void *memory) {
    Buffers buffers(bank, memory);
    Buffers::pack(bank, x, item, first, buffers.x + buffers.left);
    buffers.pack_gains(bank, first);
    Buffers::clear(buffers.y, bank.tokens);
    Buffers::clear(buffers.lost, bank.tokens);
    const float *h = bank.kernels;
    int64_t m = 0;
    for (int64_t s = 0; s < bank.scales; ++s) {
      const int64_t count = bank.shapes[2 * s], taps = bank.shapes[2 * s + 1];
      const Float *window = buffers.x + buffers.left - left_padding(bank, taps);
      for (int64_t done = 0, rows; done < count; done += rows, m += rows, h += rows * taps) {
        rows = count - done < ROWS ? 1 : ROWS;
        convolve(rows, h, taps, window, bank.tokens,
                 Weigh<LANES, ACC, ACTIVATION, BY_TOKEN>{
                     {bank, buffers.gains, item, m}, buffers.y, buffers.lost});
      }
    }
    Buffers::unpack(bank, buffers.y, item, first, y);
  }

  template <int64_t ACTIVATION, bool BY_TOKEN>
  static void backward(const Bank &bank, const Signal &x, const Signal &grad_y,
                       const Signal *grad_x, const Gradients &to, int64_t item, int64_t first,
                       void *memory) {
    Buffers buffers(bank, memory);
    Buffers::pack(bank, x, item, first, buffers.x + buffers.left);
    Buffers::pack(bank, grad_y, item, first, buffers.y);
    buffers.pack_gains(bank, first);
    Buffers::clear(buffers.dx, bank.tokens);
    Buffers::clear(buffers.lost, bank.tokens);
    float *grad_kernels = to.kernels;
    const float *h = bank.kernels;
    int64_t m = 0;
    for (int64_t s = 0; s < bank.scales; ++s) {
      const int64_t count = bank.shapes[2 * s], taps = bank.shapes[2 * s + 1];
      for (int64_t done = 0, rows; done < count; done += rows, m += rows, h += rows * taps) {
        rows = count - done < ROWS ? 1 : ROWS;
        Float gain_sums[ROWS] = {};
        const Differentiate<LANES, ACTIVATION, BY_TOKEN> sink{
            {bank, buffers.gains, item, m},
            buffers.y,
            buffers.z + taps - 1,
            buffers.row,
            gain_sums,
            BY_TOKEN && to.gains ? to.gains + m : nullptr,
            0};
        backward_rows(bank, buffers, h, rows, taps, grad_x != nullptr, grad_kernels != nullptr,
                      sink);
        if (grad_kernels)
          for (int64_t i = 0; i < rows; ++i)
            for (int64_t k = 0; k < taps; ++k)
              *grad_kernels++ += V::sum(buffers.kernel_sums[i * buffers.sum_row + k]);
        if (to.gains && !BY_TOKEN)
          for (int64_t i = 0; i < rows; ++i)
            add_gain(bank, gain_sums[i], first, m + i, to.gains);
      }
    }
    if (grad_x) Buffers::unpack(bank, buffers.dx, item, first, *grad_x);
  }

 private:
  /* All that `rows` filters contribute. A tile of responses is computed anew, turned into its
     gradient, and used for both remaining products while in cache. The last taps - 1 gradients are
     kept before the next tile, so that no token of dx is visited twice. */
  template <class Sink>
  static void backward_rows(const Bank &bank, const Buffers &buffers, const float *h, int64_t rows,
                            int64_t taps, bool wants_x, bool wants_kernels, Sink sink) {
    const int64_t left = left_padding(bank, taps), before = taps - 1;
    const Float *window = buffers.x + buffers.left - left;
    for (int64_t i = 0; i < rows; ++i) {
      Buffers::clear(buffers.z + i * buffers.row, before);
      Buffers::clear(buffers.kernel_sums + i * buffers.sum_row, taps);
    }
    const int64_t end = bank.tokens + (wants_x ? left : 0);
    for (int64_t start = 0; start < end; start += TILE) {
      const int64_t ahead = bank.tokens - start;
      const int64_t tokens = ahead < 0 ? 0 : ahead < TILE ? ahead : TILE;
      sink.start = start;
      convolve(rows, h, taps, window + start, tokens, sink);
      for (int64_t i = 0; i < rows; ++i)
        Buffers::clear(sink.z + i * buffers.row + tokens, TILE - tokens);
      if (wants_kernels)
        correlate(rows, sink.z, buffers.row, window + start, tokens, taps, buffers.kernel_sums,
                  buffers.sum_row);
      if (!wants_x) continue;
      const int64_t from = start > left ? start : left;
      const int64_t until = start + TILE < end ? start + TILE : end;
      if (from < until)
        spread(rows, h, taps, sink.z + from - start, buffers.row, until - from,
               buffers.dx + from - left, buffers.lost + from - left);
      for (int64_t i = 0; i < rows; ++i)
        __builtin_memmove(buffers.z + i * buffers.row, buffers.z + i * buffers.row + TILE,
                          before * sizeof(Float));
    }
  }

  static void add_gain(const Bank &bank, Float sum, int64_t first, int64_t m, float *gains) {
    if (bank.gain_shape == GAIN_FILTER) {
      gains[m] += V::sum(sum);
      return;
    }
    const int64_t lanes = Buffers::valid(bank, first), filters = count_filters(bank);
    for (int64_t lane = 0; lane < lanes; ++lane)
      gains[(first + lane) * filters + m] += sum[lane];
  }

  template <class Sink>
  static void convolve(int64_t rows, const float *h, int64_t taps, const Float *x, int64_t count,
                       const Sink &sink) {
    if (rows == ROWS) return P::template convolve<ROWS>(h, taps, x, count, sink);
    P::template convolve<1>(h, taps, x, count, sink);
  }

  static void correlate(int64_t rows, const Float *dz, int64_t dz_row, const Float *x,
                        int64_t count, int64_t taps, Float *sums, int64_t sum_row) {
    if (rows == ROWS) return P::template correlate<ROWS>(dz, dz_row, x, count, taps, sums, sum_row);
    P::template correlate<1>(dz, dz_row, x, count, taps, sums, sum_row);
  }

  static void spread(int64_t rows, const float *h, int64_t taps, const Float *dz, int64_t dz_row,
                     int64_t count, Float *dx, Float *lost) {
    if (rows == ROWS) return P::template spread<ROWS>(h, taps, dz, dz_row, count, dx, lost);
    P::template spread<1>(h, taps, dz, dz_row, count, dx, lost);
  }
};

/* The entry points of a target: the activation and the kind of gains picked once a group. */
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
    static constexpr Run table[3][2] = {
        {G::template forward<ACT_RELU, false>, G::template forward<ACT_RELU, true>},
        {G::template forward<ACT_GELU, false>, G::template forward<ACT_GELU, true>},
        {G::template forward<ACT_IDENTITY, false>, G::template forward<ACT_IDENTITY, true>}};
    table[bank.activation][bank.gain_shape == GAIN_TOKEN](bank, x, y, item, first, scratch);
  }

  static void backward(const Bank &bank, const Signal &x, const Signal &grad_y,
                       const Signal *grad_x, const Gradients &to, int64_t item, int64_t first,
                       void *scratch) {
    typedef void (*Run)(const Bank &, const Signal &, const Signal &, const Signal *,
                        const Gradients &, int64_t, int64_t, void *);
    static constexpr Run table[3][2] = {
        {G::template backward<ACT_RELU, false>, G::template backward<ACT_RELU, true>},
        {G::template backward<ACT_GELU, false>, G::template backward<ACT_GELU, true>},
        {G::template backward<ACT_IDENTITY, false>, G::template backward<ACT_IDENTITY, true>}};
    table[bank.activation][bank.gain_shape == GAIN_TOKEN](bank, x, grad_y, grad_x, to, item, first,
                                                          scratch);
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
