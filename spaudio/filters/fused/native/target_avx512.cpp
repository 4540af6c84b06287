#include "target.h"

#if defined(__x86_64__) || defined(_M_X64)
/* SPAUDIO_ANY_PROCESSOR is for tests: the same code on processors without AVX-512. */
#if defined(SPAUDIO_ANY_PROCESSOR)
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,fma")
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
typedef Entry<16, 24, 96> Here;
}  // namespace

const Target target_avx512 = Here::target();

#if defined(__clang__) && !defined(SPAUDIO_ANY_PROCESSOR)
#pragma clang attribute pop
#endif
#endif
