/* What one instruction set provides to filterbank.cpp and depthwise.cpp. Each is compiled in its
   own translation unit (target_*.cpp) and called only if the processor supports it. */
#pragma once

/* Otherwise gcc reuses loads across iterations and spills accumulators. clang has no such option. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-predictive-commoning")
#endif
#include "filterbank.h"

/* Where a group adds its gradients, or null. For gains by token: this item's (tokens, M). */
struct Gradients {
  float *kernels, *gains;
};

/* The depthwise filter, see depthwise.h: dimensions [first, last) of one batch item, all tokens.
   Kernels are (taps, row). */
struct DepthwiseTarget {
  int64_t (*scratch_bytes)(const Depthwise &d);
  void (*forward)(const Depthwise &d, const float *kernels, int64_t row, const void *x, void *y,
                  int64_t item, int64_t first, int64_t last, void *scratch);
  void (*backward)(const Depthwise &d, const float *kernels, int64_t row, const void *x,
                   const void *grad_y, void *grad_x, float *grad_kernels, int64_t item,
                   int64_t first, int64_t last, void *scratch);
};

struct Target {
  int64_t lanes;
  /* Bytes that one thread needs: zeroed, and aligned to 64. */
  int64_t (*scratch_bytes)(const Bank &bank);
  /* Fills in what is the same for all groups; called before the first forward or backward pass. */
  void (*begin)(const Bank &bank, bool backward, void *scratch);
  /* One group: dimensions [first, first + lanes) of one batch item, all tokens. */
  void (*forward)(const Bank &bank, const Signal &x, const Signal &y, int64_t item, int64_t first,
                  void *scratch);
  void (*backward)(const Bank &bank, const Signal &x, const Signal &grad_y, const Signal *grad_x,
                   const Gradients &to, int64_t item, int64_t first, void *scratch);
  /* Adds what backward has accumulated in `scratch` to the gradients. */
  void (*flush)(const Bank &bank, const Gradients &to, void *scratch);
  /* Runs `steps` multiply-adds on independent registers; returns floating point operations. */
  double (*peak)(int64_t steps, float *sink);
  DepthwiseTarget depthwise[2]; /* for float and for bfloat16 */
};

/* The widest target that has at most `lanes` lanes and runs on this processor; with `half`, the one
   with products of bfloat16 if there is one. */
const Target *pick(int64_t lanes, bool half = false);

inline int64_t left_padding(const Bank &bank, int64_t taps) {
  return bank.causal ? taps - 1 : (taps - 1) / 2;
}

/* Tokens of one batch item up to the last that is no padding. Nothing is computed for those after
   it: their outputs and their gradients are zero. */
inline int64_t unpadded(const Bank &bank, int64_t item) {
  int64_t tokens = bank.tokens;
  const uint8_t *mask = bank.mask ? bank.mask + item * bank.tokens : nullptr;
  while (mask && tokens > 0 && mask[tokens - 1]) --tokens;
  return tokens;
}

inline int64_t count_filters(const Bank &bank) {
  int64_t total = 0;
  for (int64_t s = 0; s < bank.scales; ++s) total += bank.shapes[2 * s];
  return total;
}

inline int64_t count_taps(const Bank &bank) {
  int64_t total = 0;
  for (int64_t s = 0; s < bank.scales; ++s) total += bank.shapes[2 * s] * bank.shapes[2 * s + 1];
  return total;
}

extern const Target target_generic;
#if defined(__x86_64__) || defined(_M_X64)
extern const Target target_avx2;
extern const Target target_avx512;
extern const Target target_avx512bf16;
#endif
