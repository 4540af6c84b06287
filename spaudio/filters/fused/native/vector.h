/* Vectors of LANES floats with the compiler's vector extension, so that one source serves every
   instruction set. Included by each target's translation unit, inside its namespace. */

/* Spelt out, since compilers differ on attributes that depend on a template argument. */
template <int LANES>
struct Lanes;
template <>
struct Lanes<4> {
  typedef float Float __attribute__((vector_size(16)));
  typedef int32_t Int __attribute__((vector_size(16)));
  typedef uint32_t Word __attribute__((vector_size(16)));
  typedef uint16_t Short __attribute__((vector_size(8)));
};
template <>
struct Lanes<8> {
  typedef float Float __attribute__((vector_size(32)));
  typedef int32_t Int __attribute__((vector_size(32)));
  typedef uint32_t Word __attribute__((vector_size(32)));
  typedef uint16_t Short __attribute__((vector_size(16)));
};
template <>
struct Lanes<16> {
  typedef float Float __attribute__((vector_size(64)));
  typedef int32_t Int __attribute__((vector_size(64)));
  typedef uint32_t Word __attribute__((vector_size(64)));
  typedef uint16_t Short __attribute__((vector_size(32)));
};

/* Rounds to bfloat16, in the low half; to nearest, ties to even. */
inline uint32_t round_half(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return value == value ? (bits + ((bits >> 16 & 1) + 0x7fff)) >> 16 : 0x7fc0;
}

template <int LANES>
struct Vector {
  typedef typename Lanes<LANES>::Float Float;
  typedef typename Lanes<LANES>::Int Int;
  typedef typename Lanes<LANES>::Word Word;

  /* x - 0 is x for every x, so this compiles to one broadcast. */
  static inline Float splat(float value) { return value - Float{}; }

  static inline Float splat_bits(uint32_t bits) { return (Float)(bits - Word{}); }

  /* Two bfloat16 values per lane, `first` in the low half; both must be exact in bfloat16. */
  static inline Float pair(Float first, Float second) {
    return (Float)(((Word)first >> 16) | ((Word)second & 0xffff0000u));
  }

  /* The same for any values, rounded to nearest, ties to even. */
  static inline Float round_pair(Float first, Float second) {
#if defined(SPAUDIO_PAIRS) && !defined(SPAUDIO_ANY_PROCESSOR)
    typedef uint16_t Halves __attribute__((vector_size(64)));
    static const Halves order = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512bh both = _mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    return (Float)_mm512_permutexvar_epi16((__m512i)order, (__m512i)both);
#else
    return (Float)((rounded(first) >> 16) | (rounded(second) & 0xffff0000u));
#endif
  }

  /* Rounds to bits whose high halves are bfloat16; a NaN stays a NaN. */
  static inline Word rounded(Float value) {
    const Word bits = (Word)value;
    const Word sum = bits + (((bits >> 16) & 1) + 0x7fff);
    return value == value ? sum : bits - bits + 0x7fc00000u;
  }

  /* sum + the product of the low halves + the product of the high halves. */
  static inline Float add_pairs(Float sum, Float a, Float b) {
#if defined(SPAUDIO_PAIRS) && !defined(SPAUDIO_ANY_PROCESSOR)
    return (Float)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    const Float low_a = (Float)((Word)a << 16), low_b = (Float)((Word)b << 16);
    const Float high_a = (Float)((Word)a & 0xffff0000u), high_b = (Float)((Word)b & 0xffff0000u);
    return sum + low_a * low_b + high_a * high_b;
#endif
  }

  /* One load for all uses of a value: otherwise gcc folds a load into each multiply-add, and the
     load ports, not the multipliers, are the bottleneck. */
  static inline Float in_register(Float value) {
#if defined(__x86_64__) && !defined(SPAUDIO_ANY_PROCESSOR)
    asm("" : "+x"(value));
#endif
    return value;
  }

  /* A sum that a product is added to, in one instruction: for some processors gcc would use two if
     every addition waits for the one before. */
  static inline Float fused(Float sum) { return in_register(sum); }

  /* Zero, loaded where it is used: gcc would keep it in a register that an accumulator needs. */
  static inline Float zero() {
    static const Float value{};
    const Float *address = &value;
    asm volatile("" : "+r"(address));
    return *address;
  }

  static inline Float load(const float *from, int64_t lanes, int64_t stride) {
    Float value{};
    if (stride == 1 && lanes == LANES)
      __builtin_memcpy(&value, from, sizeof value);
    else
      for (int64_t lane = 0; lane < lanes; ++lane) value[lane] = from[lane * stride];
    return value;
  }

  static inline void store(float *to, int64_t lanes, int64_t stride, Float value) {
    if (stride == 1 && lanes == LANES)
      __builtin_memcpy(to, &value, sizeof value);
    else
      for (int64_t lane = 0; lane < lanes; ++lane) to[lane * stride] = value[lane];
  }

  /* Stores to an aligned address in memory, past the caches. */
  static inline void stream(float *to, Float value) {
#if !defined(__x86_64__) || defined(SPAUDIO_ANY_PROCESSOR)
    __builtin_memcpy(to, &value, sizeof value);
#else
    if constexpr (LANES > 4)
      asm("vmovntps %1, %0" : "=m"(*reinterpret_cast<Float *>(to)) : "x"(value));
    else
      asm("movntps %1, %0" : "=m"(*reinterpret_cast<Float *>(to)) : "x"(value));
#endif
  }

  /* Makes what was streamed visible to other threads. */
  static inline void end_stream() {
#if defined(__x86_64__) && !defined(SPAUDIO_ANY_PROCESSOR)
    asm volatile("sfence" ::: "memory");
#endif
  }

  static inline float sum(Float value) {
    typedef typename Lanes<4>::Float Quarter;
    Quarter parts[LANES / 4];
    __builtin_memcpy(parts, &value, sizeof value);
    for (int i = 1; i < LANES / 4; ++i) parts[0] += parts[i];
    return (parts[0][0] + parts[0][2]) + (parts[0][1] + parts[0][3]);
  }

  static inline Float clamp(Float value, float low, float high) {
    value = value < splat(low) ? splat(low) : value;
    return value > splat(high) ? splat(high) : value;
  }

  /* exp by 2^n * exp(r), |r| <= log(2)/2, with the polynomial of Cephes' expf (Moshier, 1984). */
  static inline Float exp(Float x) {
    x = clamp(x, -87.0f, 88.0f);
    /* Adding 1.5 * 2^23 rounds to the nearest integer, which then lies in the low bits. */
    const Float magic = splat(12582912.0f);
    Float shifted = x * 1.44269504088896341f + magic;
    Float n = shifted - magic;
    Float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    Float p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    Int power = ((Int)shifted - (Int)magic + 127) << 23;
    return p * (Float)power;
  }

  /* erf by a rational minimax fit on |x| < 4, beyond which float32 rounds it to 1 (the one of
     Eigen's and XLA's vector code). */
  static inline Float erf(Float x) {
    x = clamp(x, -4.0f, 4.0f);
    Float s = x * x;
    Float p = splat(-2.72614225801306e-10f);
    p = p * s + 2.77068142495902e-08f;
    p = p * s + -2.10102402082508e-06f;
    p = p * s + -5.69250639462346e-05f;
    p = p * s + -7.34990630326855e-04f;
    p = p * s + -2.95459980854025e-03f;
    p = p * s + -1.60960333262415e-02f;
    Float q = splat(-1.45660718464996e-05f);
    q = q * s + -2.13374055278905e-04f;
    q = q * s + -1.68282697438203e-03f;
    q = q * s + -7.37332916720468e-03f;
    q = q * s + -1.42647390514189e-02f;
    return x * p / q;
  }

  /* Not inlined: a block would hold dozens of copies. */
  __attribute__((noinline)) static Float normal_cdf(Float z) {
    return 0.5f + 0.5f * erf(z * 0.70710678118654752f);
  }

  __attribute__((noinline)) static Float gelu_slope(Float z) {
    const float density = 0.39894228040143268f; /* 1 / sqrt(2 pi) */
    return normal_cdf(z) + z * density * exp(z * z * -0.5f);
  }
};

/* An activation's value, and its gradient given that of the value. NaN passes through as in torch,
   hence comparisons that are false for NaN. */
template <int LANES, int64_t ACTIVATION>
struct Activate {
  typedef Vector<LANES> V;
  typedef typename V::Float Float;

  static inline Float value(Float z) {
    if (ACTIVATION == ACT_RELU) {
      const Float zero = V::zero();
      return zero > z ? zero : z;
    }
    if (ACTIVATION == ACT_GELU) return z * V::normal_cdf(z);
    return z;
  }

  static inline Float gradient(Float z, Float grad) {
    if (ACTIVATION == ACT_RELU) {
      const Float zero = V::zero();
      return z <= zero ? zero : grad;
    }
    if (ACTIVATION == ACT_GELU) return grad * V::gelu_slope(z);
    return grad;
  }
};
