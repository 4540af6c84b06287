#include "target.h"

namespace {
#include "vector.h"
#include "product.h"
#include "halves.h"
#include "scratch.h"
#include "sink.h"
#include "group.h"
typedef Entry<4, 12, 192> Here;
}  // namespace

const Target target_generic = {4,
                              Here::scratch_bytes,
                              Here::begin_backward,
                              Here::forward,
                              Here::backward,
                              Here::flush_kernels,
                              Here::peak};

