/* C interface of the fused filterbank, y[t] = sum_m g_m act(sum_k h_m[k] x[t - left + k]), with or
   without x[t].

   No torch headers: the library compiles in seconds and outlives torch's versions. Sizes and strides
   count values. */
#pragma once
#include <cstdint>
#include <type_traits>

extern "C" {

enum GainShape : int64_t { GAIN_FILTER = 1, GAIN_DIM = 2, GAIN_TOKEN = 3 };
enum Activation : int64_t { ACT_RELU = 0, ACT_GELU = 1, ACT_IDENTITY = 2 };

/* GOMP_parallel of the OpenMP library that torch itself runs on, or null. */
typedef void (*ParallelRegion)(void (*body)(void *), void *argument, unsigned threads, unsigned);

struct Bank {
  int64_t batch, tokens, dim;
  int64_t scales;
  const int64_t *shapes;  /* filters and taps of each scale, in turn */
  const float *kernels;   /* (filters, taps) of each scale, one after the other */
  const float *gains;     /* (M), (dim, M) or (batch, tokens, M), contiguous */
  const uint8_t *mask;    /* (batch, tokens), nonzero where a token is padding; or null */
  int64_t gain_shape;     /* GainShape */
  int64_t activation;     /* Activation */
  int64_t causal;
  int64_t half;           /* signals are bfloat16, and responses may be computed from bfloat16 */
  int64_t residual;       /* y is x plus the output of the filters */
  int64_t threads;
  int64_t lanes; /* vector width to use: one that spaudio_lanes returns, or a narrower one */
  ParallelRegion parallel;
};

struct Signal {
  void *data; /* float or, if `half`, bfloat16 */
  int64_t batch_stride, token_stride, dim_stride;
};

/* One kernel per dimension, and the residual: y[t] = x[t] + sum_k h[k] x[t - left + k]. Signals are
   contiguous (batch, tokens, dim), of float or, if `half`, of bfloat16. */
struct Depthwise {
  int64_t batch, tokens, dim, taps, left;
  const float *kernels; /* (dim, taps) */
  const uint8_t *mask;  /* as for a bank: padding counts as zeros, and passes unchanged; or null */
  int64_t half, threads, lanes;
  ParallelRegion parallel;
};

/* Raise it with any change in this file, so that a library of older source is not called. */
enum { SPAUDIO_INTERFACE = 4 };
int64_t spaudio_interface(void);

/* Widest vector, in floats, that this processor can run: 16 (AVX-512), 8 (AVX2) or 4. */
int64_t spaudio_lanes(void);

/* All return 0, or 1 if memory ran out. A null gradient is not computed. */
int spaudio_forward(const Bank *bank, const Signal *x, const Signal *y);
int spaudio_backward(const Bank *bank, const Signal *x, const Signal *grad_y, const Signal *grad_x,
                     float *grad_kernels, float *grad_gains);

int spaudio_depthwise(const Depthwise *depthwise, const void *x, void *y);
int spaudio_depthwise_backward(const Depthwise *depthwise, const void *x, const void *grad_y,
                               void *grad_x, float *grad_kernels);

/* Floating point operations per second of independent multiply-adds in registers. */
double spaudio_peak(int64_t lanes, int64_t threads, double seconds, ParallelRegion parallel);
}
