/* Buffers of one thread, and moving a group's signals into and out of them. Included by each
   target's translation unit, inside its namespace, after product.h. */

template <int LANES, int ACC, int TILE, int ROWS>
struct Scratch {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;
  static constexpr int COLUMNS = ACC / ROWS;

  int64_t left;      /* zeros before the first token: the most that any scale needs */
  int64_t row;       /* distance between rows of dz: the taps before a tile, the tile, slack */
  int64_t sum_row;   /* distance between rows of kernel_sums: half the taps, in whole blocks */
  int64_t half_span; /* distance between the halves of a signal */
  int64_t elements;  /* size of all buffers */
  Float *x;           /* input, padded */
  Float *pairs;       /* of bfloat16: each token of x and the next one; see PairedTaps */
  Float *low;         /* y as bfloat16, in the low half */
  Float *y;           /* output; in the backward pass its gradient */
  Float *lost;        /* rounding errors of the sums in y, or in dx_halves */
  Float *gains;       /* one vector per filter, unless they differ by token */
  /* Used only in the backward pass; see half_length.h. */
  Float *dx;          /* gradient of the input */
  Float *x_halves;    /* (HALVES, half_span) */
  Float *dx_halves;   /* (HALVES, half_span) */
  Float *dz;          /* (HALVES, ROWS, row): gradient of the responses of ROWS filters to a tile */
  Float *kernel_sums; /* (M, HALVES, sum_row): gradient of kernels, or shares (see short_kernels.h),
                         not yet summed over lanes */
  float *kernels;     /* for each scale in turn (M, HALVES, half of its taps), see Halves */
  uint32_t *paired;   /* for each scale in turn (M, half of its taps), see PairedTaps */

  Scratch(const Bank &bank, void *memory) {
    int64_t taps = 1;
    left = 0;
    for (int64_t s = 0; s < bank.scales; ++s) {
      const int64_t k = bank.shapes[2 * s + 1];
      taps = k > taps ? k : taps;
      left = left_padding(bank, k) > left ? left_padding(bank, k) : left;
    }
    /* Products run over whole blocks, so every buffer has slack to read and write. */
    const int64_t half = half_of(taps);
    const int64_t length = bank.tokens + 2 * taps + TILE + 2 * ACC;
    half_span = length / 2 + ACC;
    row = half + 1 + TILE / 2 + 2 * ACC;
    sum_row = (half + COLUMNS - 1) / COLUMNS * COLUMNS;
    x = static_cast<Float *>(memory);
    pairs = x + length;
    low = pairs + (bank.half ? length : 0);
    y = low + (bank.half ? length : 0);
    lost = y + length;
    gains = lost + HALVES * half_span;
    dx = gains + (bank.gain_shape == GAIN_TOKEN ? 0 : count_filters(bank));
    x_halves = dx + length;
    dx_halves = x_halves + HALVES * half_span;
    dz = dx_halves + HALVES * half_span;
    kernel_sums = dz + HALVES * ROWS * row;
    Float *end = sums_of(count_filters(bank));
    kernels = reinterpret_cast<float *>(end);
    const int64_t sequences = HALVES + (bank.half ? 1 : 0);
    paired = reinterpret_cast<uint32_t *>(kernels + count_filters(bank) * HALVES * half);
    elements = end - x + (count_filters(bank) * sequences * half + LANES - 1) / LANES;
  }

  int64_t filter_row() const { return HALVES * sum_row; }
  Float *sums_of(int64_t m) const { return kernel_sums + m * filter_row(); }

  static void clear(Float *from, int64_t count) {
    __builtin_memset(from, 0, count * sizeof(Float));
  }

  /* Padded tokens become zeros; lanes past the last dimension are zeros. */
  static void pack(const Bank &bank, const Signal &from, int64_t item, int64_t first, Float *to) {
    bank.half ? pack_as<true>(bank, from, item, first, to)
              : pack_as<false>(bank, from, item, first, to);
  }

  /* Padded tokens become zeros. With `residual` its tokens are added, including padded ones. */
  static void unpack(const Bank &bank, const Float *from, int64_t item, int64_t first,
                     const Signal &to, const Signal *residual) {
    bank.half ? unpack_as<true>(bank, from, item, first, to, residual)
              : unpack_as<false>(bank, from, item, first, to, residual);
  }

  void pack_pairs(const Bank &bank) {
    for (int64_t t = left > 0 ? left - 1 : 0; t < left + bank.tokens; ++t)
      pairs[t] = V::pair(x[t], x[t + 1]);
  }

  void pack_low(const Bank &bank) {
    for (int64_t t = 0; t < bank.tokens; ++t) low[t] = V::pair(y[t], Float{});
  }

  /* Rounds kernels to bfloat16. */
  void pair_kernels(const Bank &bank) {
    const float *h = bank.kernels;
    uint32_t *to = paired;
    for (int64_t s = 0; s < bank.scales; ++s) {
      const int64_t taps = bank.shapes[2 * s + 1];
      for (int64_t m = 0; m < bank.shapes[2 * s]; ++m, h += taps)
        for (int64_t k = 0; k < taps; k += 2)
          *to++ = round_half(h[k]) | (k + 1 < taps ? round_half(h[k + 1]) << 16 : 0);
    }
  }

  void pack_gains(const Bank &bank, int64_t first) {
    if (bank.gain_shape == GAIN_TOKEN) return;
    const int64_t count = count_filters(bank), lanes = valid(bank, first);
    for (int64_t m = 0; m < count; ++m)
      gains[m] = bank.gain_shape == GAIN_DIM ? V::load(bank.gains + first * count + m, lanes, count)
                                             : V::splat(bank.gains[m]);
  }

  static int64_t valid(const Bank &bank, int64_t first) {
    return bank.dim - first < LANES ? bank.dim - first : LANES;
  }

 private:
  static int64_t start(const Signal &signal, int64_t item, int64_t first) {
    return item * signal.batch_stride + first * signal.dim_stride;
  }

  template <bool HALF>
  static void pack_as(const Bank &bank, const Signal &from, int64_t item, int64_t first,
                      Float *to) {
    const uint8_t *mask = bank.mask ? bank.mask + item * bank.tokens : nullptr;
    const int64_t lanes = valid(bank, first), at = start(from, item, first);
    for (int64_t t = 0; t < bank.tokens; ++t)
      to[t] = mask && mask[t] ? Float{}
                              : Stored<LANES, HALF>::load(from.data, at + t * from.token_stride,
                                                          lanes, from.dim_stride);
  }

  template <bool HALF>
  static void unpack_as(const Bank &bank, const Float *from, int64_t item, int64_t first,
                        const Signal &to, const Signal *residual) {
    typedef Stored<LANES, HALF> S;
    const uint8_t *mask = bank.mask ? bank.mask + item * bank.tokens : nullptr;
    const int64_t lanes = valid(bank, first), at = start(to, item, first);
    const int64_t own = residual ? start(*residual, item, first) : 0;
    for (int64_t t = 0; t < bank.tokens; ++t) {
      Float value = mask && mask[t] ? Float{} : from[t];
      if (residual)
        value += S::load(residual->data, own + t * residual->token_stride, lanes,
                         residual->dim_stride);
      S::store(to.data, at + t * to.token_stride, lanes, to.dim_stride, value);
    }
  }
};
