/* Signals are stored as float or, if HALF, as bfloat16, and computed as float. Included by each
   target's translation unit, inside its namespace, after vector.h. */

template <int LANES, bool HALF>
struct Stored {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;
  typedef typename Lanes<LANES>::Word Word;
  typedef typename Lanes<LANES>::Short Short;

  static inline Float load(const void *from, int64_t at, int64_t lanes, int64_t stride) {
    if (!HALF) return V::load(static_cast<const float *>(from) + at, lanes, stride);
    Short value{};
    const uint16_t *data = static_cast<const uint16_t *>(from) + at;
    if (stride == 1 && lanes == LANES)
      __builtin_memcpy(&value, data, sizeof value);
    else
      for (int64_t lane = 0; lane < lanes; ++lane) value[lane] = data[lane * stride];
    return (Float)(__builtin_convertvector(value, Word) << 16);
  }

  /* Rounds as torch does. */
  static inline void store(void *to, int64_t at, int64_t lanes, int64_t stride, Float value) {
    if (!HALF) return V::store(static_cast<float *>(to) + at, lanes, stride, value);
    const Short rounded = __builtin_convertvector(V::rounded(value) >> 16, Short);
    uint16_t *data = static_cast<uint16_t *>(to) + at;
    if (stride == 1 && lanes == LANES)
      __builtin_memcpy(data, &rounded, sizeof rounded);
    else
      for (int64_t lane = 0; lane < lanes; ++lane) data[lane * stride] = rounded[lane];
  }
};
