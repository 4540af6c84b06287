#include "target.h"

#if defined(__x86_64__) || defined(_M_X64)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
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
typedef Entry<8, 12, 96> Here;
}  // namespace

const Target target_avx2 = Here::target();

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
