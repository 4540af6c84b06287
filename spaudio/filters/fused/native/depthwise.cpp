/* The depthwise filter: tasks for the threads, and sums over items. */
#include "target.h"
#include "threads.h"

namespace {

constexpr int64_t PARTS = 16; /* of the batch; sums are kept by part and added in order */
constexpr int64_t BLOCK = 32; /* dimensions: two of the widest vectors */
constexpr int64_t CACHED = 1 << 17; /* bytes of a task's tokens that stay in a core's cache */

/* Divides the dimensions of some batch items, or parts of the batch, into tasks: a task has all,
   unless there are too few items for the threads, or kernels are so long that the cache does not
   hold the tokens below them. Sums do not depend on it. */
struct Blocks {
  int64_t dim, size, count; /* `count` blocks of `size` dimensions, the last one smaller */

  Blocks(const Depthwise &d, int64_t items) : dim(d.dim) {
    const int64_t tasks = items > 0 ? (4 * d.threads + items - 1) / items : 1;
    const int64_t shared = (d.dim + tasks - 1) / tasks;
    const int64_t cached = CACHED / (d.taps * static_cast<int64_t>(sizeof(float)));
    const int64_t most = shared < cached ? shared : cached;
    size = most < BLOCK ? BLOCK : most / BLOCK * BLOCK;
    count = (dim + size - 1) / size;
  }
  int64_t first(int64_t task) const { return task % count * size; }
  int64_t last(int64_t task) const {
    const int64_t end = first(task) + size;
    return end < dim ? end : dim;
  }
};

/* Calls run(task, scratch) for all tasks on all threads. */
template <class Run>
struct Tasks {
  const Run &run;
  int64_t count, scratch_bytes;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};

  static void work(void *argument) {
    Tasks &tasks = *static_cast<Tasks *>(argument);
    int64_t task = tasks.next++;
    if (task >= tasks.count) return;
    Memory scratch(tasks.scratch_bytes);
    if (!scratch.data()) {
      tasks.failed = true;
      return;
    }
    for (; task < tasks.count; task = tasks.next++) tasks.run(task, scratch.data());
  }
};

template <class Run>
int share(ParallelRegion parallel, int64_t threads, int64_t count, int64_t scratch_bytes,
          const Run &run) {
  Tasks<Run> tasks{run, count, scratch_bytes};
  run_on_threads(parallel, threads < count ? threads : count, Tasks<Run>::work, &tasks);
  return tasks.failed ? 1 : 0;
}

/* Kernels as (taps, row), so that neighbouring dimensions are adjacent in memory. */
struct Turned {
  int64_t row;
  Memory memory;
  explicit Turned(const Depthwise &d)
      : row((d.dim + 15) / 16 * 16), memory(d.taps * row * static_cast<int64_t>(sizeof(float))) {
    for (int64_t i = 0; memory.data() && i < d.dim; ++i)
      for (int64_t k = 0; k < d.taps; ++k) data()[k * row + i] = d.kernels[i * d.taps + k];
  }
  float *data() const { return static_cast<float *>(memory.data()); }
};

}  // namespace

int spaudio_depthwise(const Depthwise *depthwise, const void *x, void *y) {
  const Depthwise &d = *depthwise;
  const DepthwiseTarget &target = pick(d.lanes)->depthwise[d.half != 0];
  const Turned kernels(d);
  if (!kernels.data()) return 1;
  const Blocks blocks(d, d.batch);
  return share(d.parallel, d.threads, d.batch * blocks.count, target.scratch_bytes(d),
               [&](int64_t task, void *scratch) {
                 target.forward(d, kernels.data(), kernels.row, x, y, task / blocks.count,
                                blocks.first(task), blocks.last(task), scratch);
               });
}

int spaudio_depthwise_backward(const Depthwise *depthwise, const void *x, const void *grad_y,
                               void *grad_x, float *grad_kernels) {
  const Depthwise &d = *depthwise;
  const DepthwiseTarget &target = pick(d.lanes)->depthwise[d.half != 0];
  const Turned kernels(d);
  const int64_t parts = d.batch < PARTS ? d.batch : PARTS, size = d.taps * kernels.row;
  const Blocks blocks(d, parts);
  const Memory memory(parts * size * static_cast<int64_t>(sizeof(float)));
  float *const sums = static_cast<float *>(memory.data());
  if (!kernels.data() || !sums) return 1;
  const auto run = [&](int64_t task, void *scratch) {
    const int64_t part = task / blocks.count;
    float *const to = grad_kernels ? sums + part * size : nullptr;
    for (int64_t item = d.batch * part / parts; item < d.batch * (part + 1) / parts; ++item)
      target.backward(d, kernels.data(), kernels.row, x, grad_y, grad_x, to, item,
                      blocks.first(task), blocks.last(task), scratch);
  };
  const int failed =
      share(d.parallel, d.threads, parts * blocks.count, target.scratch_bytes(d), run);
  for (int64_t i = 0; grad_kernels && !failed && i < d.dim; ++i)
    for (int64_t k = 0; k < d.taps; ++k) {
      double sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += sums[part * size + k * kernels.row + i];
      grad_kernels[i * d.taps + k] = static_cast<float>(sum);
    }
  return failed;
}
