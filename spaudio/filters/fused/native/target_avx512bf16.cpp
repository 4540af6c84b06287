#include "target.h"

#if defined(__x86_64__) || defined(_M_X64)
/* As target_avx512.cpp, with products of bfloat16. */
#if defined(SPAUDIO_ANY_PROCESSOR)
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512bf16,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512bf16,fma")
#endif
#define SPAUDIO_PAIRS
#if !defined(SPAUDIO_ANY_PROCESSOR)
#include <immintrin.h>
#endif
namespace {
#include "vector.h"
#include "storage.h"
#include "half_length.h"
#include "product.h"
#include "scratch.h"
#include "epilogue.h"
#include "short_kernels.h"
#include "depthwise.h"
#include "group.h"
typedef Entry<16, 24, 96, true> Here;
}  // namespace

const Target target_avx512bf16 = Here::target();

#if defined(__clang__) && !defined(SPAUDIO_ANY_PROCESSOR)
#pragma clang attribute pop
#endif
#endif
