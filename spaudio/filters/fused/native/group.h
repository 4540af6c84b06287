/* Forward and backward of one group: one batch item, LANES neighbouring dimensions, all tokens.
   Included by each target's translation unit, inside its namespace, after epilogue.h.

   Filters are processed three at a time (the remainder one by one), tokens in tiles that stay in
   first-level cache. In the forward pass a response never leaves the registers. In the backward
   pass only the responses of three filters to one tile are ever stored of the time-frequency
   representation. With PAIRS all products are of bfloat16. */

template <int LANES, int ACC, int TILE, bool PAIRS>
struct Group {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;
  typedef Product<LANES, ACC> P;
  typedef typename std::conditional<PAIRS, PairedHalves<LANES>, Halves<LANES>>::type H;
  static constexpr int ROWS = 3;
  static_assert(TILE % ACC == 0 && ACC % (2 * ROWS) == 0, "a tile is whole blocks of pairs");
  typedef Scratch<LANES, ACC, TILE, ROWS> Buffers;

  template <int64_t ACTIVATION, bool BY_TOKEN>
  static void forward(const Bank &bank, const Signal &x, const Signal &y, int64_t item,
                      int64_t first, void *memory) {
    Buffers buffers(bank, memory);
    Buffers::pack(bank, x, item, first, buffers.x + buffers.left);
    if (PAIRS) buffers.pack_pairs(bank);
    buffers.pack_gains(bank, first);
    const int64_t tokens = unpadded(bank, item);
    Buffers::clear(buffers.y, tokens);
    Buffers::clear(buffers.lost, tokens);
    const float *h = bank.kernels;
    const uint32_t *paired = buffers.paired;
    int64_t m = 0;
    for (int64_t s = 0; s < bank.scales; ++s) {
      const int64_t count = bank.shapes[2 * s], taps = bank.shapes[2 * s + 1];
      const int64_t start = buffers.left - left_padding(bank, taps);
      if (is_brief(bank, taps)) {
        const BriefSignals<LANES> signals{buffers.y, buffers.lost, buffers.gains + m,
                                          nullptr,   nullptr,      nullptr, 0};
        const auto own = taps_of(buffers, h, paired, taps, start);
        run_brief<ACTIVATION>(signals, h, own, taps, [&](const auto &brief) {
          brief.forward(count, tokens);
        });
        h += count * taps, paired += count * half_of(taps), m += count;
        continue;
      }
      for (int64_t done = 0, rows; done < count; done += rows, m += rows) {
        rows = count - done < ROWS ? 1 : ROWS;
        convolve(buffers, rows, h, paired, taps, start, tokens,
                 Weigh<LANES, ACC, ACTIVATION, BY_TOKEN>{
                     {bank, buffers.gains, item, m}, buffers.y, buffers.lost});
        h += rows * taps, paired += rows * half_of(taps);
      }
    }
    Buffers::unpack(bank, buffers.y, item, first, y, bank.residual ? &x : nullptr);
  }

  template <int64_t ACTIVATION, bool BY_TOKEN>
  static void backward(const Bank &bank, const Signal &x, const Signal &grad_y,
                       const Signal *grad_x, const Gradients &to, int64_t item, int64_t first,
                       void *memory) {
    Buffers buffers(bank, memory);
    Buffers::pack(bank, x, item, first, buffers.x + buffers.left);
    if (PAIRS) buffers.pack_pairs(bank);
    Buffers::pack(bank, grad_y, item, first, buffers.y);
    if (PAIRS) buffers.pack_low(bank);
    buffers.pack_gains(bank, first);
    const int64_t tokens = unpadded(bank, item);
    Buffers::clear(buffers.dx, tokens);
    const float *h = bank.kernels, *h_halves = buffers.kernels;
    const uint32_t *paired = buffers.paired;
    int64_t m = 0;
    for (int64_t s = 0; s < bank.scales; ++s) {
      const int64_t count = bank.shapes[2 * s], taps = bank.shapes[2 * s + 1];
      const int64_t left = left_padding(bank, taps);
      const Float *window = buffers.x + buffers.left - left;
      if (is_brief(bank, taps)) {
        backward_brief<ACTIVATION>(bank, buffers, tokens, h, paired, count, taps, m,
                                   grad_x != nullptr, to.kernels || to.gains);
        if (bank.gain_shape == GAIN_DIM) settle(bank, buffers, h, count, taps, first, m, to);
        m += count, h += count * taps, h_halves += count * HALVES * half_of(taps);
        paired += count * half_of(taps);
        continue;
      }
      Float *const x_halves[HALVES] = {buffers.x_halves, buffers.x_halves + buffers.half_span,
                                       buffers.x_halves + 2 * buffers.half_span};
      H::split_signal(PAIRS ? buffers.pairs + (window - buffers.x) : window,
                      (tokens + taps + ACC) / 2, x_halves);
      Buffers::clear(buffers.dx_halves, HALVES * buffers.half_span);
      Buffers::clear(buffers.lost, HALVES * buffers.half_span);
      const int64_t half = half_of(taps), kind = ROWS * buffers.row;
      const int64_t before = half - 1 + H::EXTRA;
      for (int64_t i = 0; i < HALVES * ROWS; ++i)
        Buffers::clear(buffers.dz + i * buffers.row, before);
      for (int64_t done = 0, rows; done < count; done += rows, m += rows) {
        rows = count - done < ROWS ? 1 : ROWS;
        Float gain_sums[ROWS] = {};
        const Differentiate<LANES, H, ACTIVATION, BY_TOKEN> sink{
            {bank, buffers.gains, item, m},
            buffers.y,
            {buffers.dz + before, buffers.dz + kind + before, buffers.dz + 2 * kind + before},
            buffers.row,
            gain_sums,
            BY_TOKEN && to.gains ? to.gains + m : nullptr,
            0};
        backward_rows(bank, buffers, tokens, h, h_halves, paired, rows, taps, grad_x != nullptr,
                      to.kernels ? buffers.sums_of(m) : nullptr, sink);
        h += rows * taps, h_halves += rows * HALVES * half, paired += rows * half;
        if (to.gains && !BY_TOKEN)
          for (int64_t i = 0; i < rows; ++i)
            add_gain(bank, gain_sums[i], first, m + i, to.gains);
      }
      if (grad_x) {
        const Float *const dx = buffers.dx_halves, *const lost = buffers.lost;
        const int64_t span = buffers.half_span;
        const Float *const halves[HALVES] = {dx, dx + span, dx + 2 * span};
        const Float *const rests[HALVES] = {lost, lost + span, lost + 2 * span};
        H::merge(halves, rests, left, tokens, buffers.dx);
      }
    }
    if (grad_x)
      Buffers::unpack(bank, buffers.dx, item, first, *grad_x, bank.residual ? &grad_y : nullptr);
  }

  static void begin(const Bank &bank, bool backward, void *memory) {
    Buffers buffers(bank, memory);
    if (PAIRS) buffers.pair_kernels(bank);
    if (!backward) return;
    const float *h = bank.kernels;
    float *to = buffers.kernels;
    for (int64_t s = 0; s < bank.scales; ++s) {
      const int64_t count = bank.shapes[2 * s], taps = bank.shapes[2 * s + 1];
      for (int64_t m = 0; m < count; ++m, h += taps, to += HALVES * half_of(taps))
        H::split_kernel(h, taps, to);
    }
  }

  static void flush(const Bank &bank, const Gradients &to, void *memory) {
    Buffers buffers(bank, memory);
    const float *h = bank.kernels;
    int64_t m = 0;
    for (int64_t s = 0; s < bank.scales; ++s) {
      const int64_t count = bank.shapes[2 * s], taps = bank.shapes[2 * s + 1];
      if (is_brief(bank, taps)) {
        if (bank.gain_shape == GAIN_FILTER) settle(bank, buffers, h, count, taps, 0, m, to);
      } else if (to.kernels) {
        float *const grads = to.kernels + (h - bank.kernels);
        for (int64_t i = 0; i < count * taps; ++i)
          grads[i] += H::tap(buffers.sums_of(m + i / taps), buffers.sum_row, i % taps);
        Buffers::clear(buffers.sums_of(m), count * buffers.filter_row());
      }
      m += count, h += count * taps;
    }
  }

 private:
  /* All contributions of `rows` filters. A tile of responses is recomputed, turned into its
     gradient, and used for both remaining products while in cache. The last gradients, which the
     next tile's products reach back to, are kept before it, so that nothing is visited twice;
     before the first tile they are zeros, on entry and on return. */
  template <class Sink>
  static void backward_rows(const Bank &bank, const Buffers &buffers, int64_t tokens,
                            const float *h, const float *h_halves, const uint32_t *paired,
                            int64_t rows, int64_t taps, bool wants_x, Float *kernel_sums,
                            Sink sink) {
    const int64_t left = left_padding(bank, taps), half = half_of(taps);
    const int64_t before = half - 1 + H::EXTRA;
    /* Pairs of padded tokens whose gradient belongs to a token: the first, and past the last. */
    const int64_t lowest = left > 0 ? (left - 1) / 2 : 0;
    const int64_t end = wants_x ? (tokens + left + 1) / 2 : (tokens + 1) / 2;
    for (int64_t pair = 0; pair < end; pair += TILE / 2) {
      const int64_t start = 2 * pair, ahead = tokens - start;
      const int64_t count = ahead < 0 ? 0 : ahead < TILE ? ahead : TILE;
      sink.start = start;
      convolve(buffers, rows, h, paired, taps, buffers.left - left + start, count, sink);
      const int64_t until = pair + TILE / 2 < end ? pair + TILE / 2 : end;
      for (int64_t i = 0; i < rows; ++i) end_tile(sink, i, count, until - pair);
      if (kernel_sums)
        for (int kind = 0; kind < H::KINDS; ++kind)
          correlate(rows, sink.dz[H::correlated(kind)], buffers.row,
                    buffers.x_halves + kind * buffers.half_span + pair, (count + 1) / 2, half,
                    kernel_sums + kind * buffers.sum_row, HALVES * buffers.sum_row);
      if (!wants_x) continue;
      const int64_t from = pair > lowest ? pair : lowest;
      for (int kind = 0; kind < H::KINDS; ++kind) {
        const int64_t at = kind * buffers.half_span + from;
        if (from < until)
          spread(rows, H::spread_by(h_halves, kind, half), HALVES * half, half,
                 sink.dz[kind] + from - pair,
                 buffers.row, until - from, buffers.dx_halves + at, buffers.lost + at);
        for (int64_t i = 0; i < rows && end > TILE / 2; ++i) {
          Float *kept = sink.dz[kind] + i * buffers.row - before;
          if (until < end)
            __builtin_memmove(kept, kept + TILE / 2, before * sizeof(Float));
          else
            Buffers::clear(kept, before);
        }
      }
    }
  }

  /* What the filters of one scale of short kernels add to dx, and their shares; see
     short_kernels.h. */
  template <int64_t ACTIVATION>
  static void backward_brief(const Bank &bank, const Buffers &buffers, int64_t tokens,
                             const float *h, const uint32_t *paired, int64_t filters, int64_t taps,
                             int64_t m, bool wants_x, bool wants_shares) {
    const int64_t left = left_padding(bank, taps);
    Buffers::clear(buffers.dx_halves, HALVES * buffers.half_span);
    Buffers::clear(buffers.lost, HALVES * buffers.half_span);
    const BriefSignals<LANES> signals{wants_x ? buffers.dx_halves : nullptr,
                                      buffers.lost,
                                      buffers.gains + m,
                                      buffers.y,
                                      buffers.low,
                                      wants_shares ? buffers.sums_of(m) : nullptr,
                                      buffers.filter_row()};
    const auto own = taps_of(buffers, h, paired, taps, buffers.left - left);
    run_brief<ACTIVATION>(signals, h, own, taps, [&](const auto &brief) {
      brief.backward(filters, tokens);
    });
    for (int64_t t = 0; wants_x && t < tokens; ++t)
      buffers.dx[t] += buffers.dx_halves[t + left] - buffers.lost[t + left];
  }

  template <int64_t ACTIVATION, class Taps, class Run>
  static void run_brief(const BriefSignals<LANES> &signals, const float *h, const Taps &own,
                        int64_t taps, const Run &run) {
    switch (taps) {
      case 1: return run(Brief<LANES, ACC, ACTIVATION, 1, PAIRS>{signals, h, own});
      case 2: return run(Brief<LANES, ACC, ACTIVATION, 2, PAIRS>{signals, h, own});
      case 3: return run(Brief<LANES, ACC, ACTIVATION, 3, PAIRS>{signals, h, own});
      default: run(Brief<LANES, ACC, ACTIVATION, 4, PAIRS>{signals, h, own});
    }
  }

  /* Turns the shares of filters from m on, with taps `h`, into gradients. If gains differ by
     dimension, this is called after each group. */
  static void settle(const Bank &bank, const Buffers &buffers, const float *h, int64_t filters,
                     int64_t taps, int64_t first, int64_t m, const Gradients &to) {
    for (int64_t i = 0; i < filters; ++i) {
      const Float *shares = buffers.sums_of(m + i);
      Float gain_sum{};
      for (int64_t k = 0; k < taps; ++k) {
        const int64_t tap = i * taps + k;
        if (to.kernels)
          to.kernels[h + tap - bank.kernels] += V::sum(buffers.gains[m + i] * shares[k]);
        gain_sum += V::splat(h[tap]) * shares[k];
      }
      if (to.gains) add_gain(bank, gain_sum, first, m + i, to.gains);
    }
    Buffers::clear(buffers.sums_of(m), filters * buffers.filter_row());
  }

  /* Past the last token the gradient is zero, whatever a block computed there; up to pair `end` it
     will be read. */
  template <class Sink>
  static void end_tile(const Sink &sink, int64_t i, int64_t tokens, int64_t end) {
    Float *dz[HALVES];
    for (int kind = 0; kind < HALVES; ++kind) dz[kind] = sink.dz[kind] + i * sink.dz_row;
    H::end(dz, tokens, end);
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

  /* Computes the responses of `rows` filters to tokens from padded token `start` on. */
  template <class Sink>
  static void convolve(const Buffers &buffers, int64_t rows, const float *h,
                       const uint32_t *paired, int64_t taps, int64_t start, int64_t count,
                       const Sink &sink) {
    respond(rows, taps_of(buffers, h, paired, taps, start), count, sink);
  }

  /* Taps, and the signal from padded token `start` on, in the form that responses need. */
  static auto taps_of(const Buffers &buffers, const float *h, const uint32_t *paired, int64_t taps,
                      int64_t start) {
    if constexpr (PAIRS)
      return PairedTaps<LANES>{paired, half_of(taps), buffers.pairs + start};
    else
      return SingleTaps<LANES>{h, taps, buffers.x + start};
  }

  template <class Taps, class Sink>
  static void respond(int64_t rows, const Taps &taps, int64_t count, const Sink &sink) {
    if (rows == ROWS) return P::template convolve<ROWS>(taps, count, sink);
    P::template convolve<1>(taps, count, sink);
  }

  /* A block of taps is always computed whole, so short kernels use smaller blocks. */
  static void correlate(int64_t rows, const Float *dz, int64_t dz_row, const Float *x,
                        int64_t count, int64_t taps, Float *sums, int64_t sum_row) {
    constexpr int COLUMNS = Buffers::COLUMNS; /* of the largest block; sum_row is a multiple */
    if (rows == ROWS && 4 * taps <= COLUMNS)
      return P::template correlate<H, ROWS, COLUMNS / 4>(dz, dz_row, x, count, taps, sums, sum_row);
    if (rows == ROWS && 2 * taps <= COLUMNS)
      return P::template correlate<H, ROWS, COLUMNS / 2>(dz, dz_row, x, count, taps, sums, sum_row);
    if (rows == ROWS)
      return P::template correlate<H, ROWS, COLUMNS>(dz, dz_row, x, count, taps, sums, sum_row);
    P::template correlate<H, 1, COLUMNS>(dz, dz_row, x, count, taps, sums, sum_row);
  }

  static void spread(int64_t rows, const float *h, int64_t h_row, int64_t taps, const Float *dz,
                     int64_t dz_row, int64_t count, Float *dx, Float *lost) {
    if (rows == ROWS) return P::template spread<H, ROWS>(h, h_row, taps, dz, dz_row, count, dx, lost);
    P::template spread<H, 1>(h, h_row, taps, dz, dz_row, count, dx, lost);
  }
};

/* The entry points of a target: activation and kind of gains are selected once per group. */
template <int LANES, int ACC, int TILE, bool PAIRS = false>
struct Entry {
  typedef Group<LANES, ACC, TILE, PAIRS> G;

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

  static void begin(const Bank &bank, bool backward, void *scratch) {
    G::begin(bank, backward, scratch);
  }

  static void flush(const Bank &bank, const Gradients &to, void *scratch) {
    G::flush(bank, to, scratch);
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

  template <bool HALF>
  static constexpr DepthwiseTarget depthwise() {
    typedef Apart<LANES, HALF> A;
    return {A::scratch_bytes, A::forward, A::backward};
  }

  static constexpr Target target() {
    return {LANES, scratch_bytes, begin, forward, backward, flush, peak,
            {depthwise<false>(), depthwise<true>()}};
  }
};
