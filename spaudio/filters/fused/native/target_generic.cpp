#include "target.h"

namespace {
#include "vector.h"
#include "stored.h"
#include "halves.h"
#include "product.h"
#include "scratch.h"
#include "sink.h"
#include "brief.h"
#include "apart.h"
#include "group.h"
typedef Entry<4, 12, 192> Here;
}  // namespace

const Target target_generic = Here::target();

