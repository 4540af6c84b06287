#include "target.h"

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
typedef Entry<4, 12, 192> Here;
}  // namespace

const Target target_generic = Here::target();

