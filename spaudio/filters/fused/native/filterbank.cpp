/* The choice of instruction set, tasks for the threads, and the sums over parts. */
#include "filterbank.h"

#include <chrono>

#include "target.h"
#include "threads.h"

const Target *pick(int64_t lanes, bool half) {
#if defined(SPAUDIO_ANY_PROCESSOR)
  if (lanes >= 16) return half ? &target_avx512bf16 : &target_avx512;
#elif defined(__x86_64__) || defined(_M_X64)
  if (lanes >= 16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
    return half && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512bf16")
               ? &target_avx512bf16
               : &target_avx512;
  if (lanes >= 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return &target_avx2;
#endif
  (void)lanes, (void)half;
  return &target_generic;
}

namespace {

/* Tokens summed one by one into a lane before lanes and parts are: longer sums round more. */
constexpr int64_t FLUSH = 2048;
/* Floats that all parts may sum into. With many gains, to clear and add up the sums of sixteen parts
   per thread would take longer than the gradients themselves. */
constexpr int64_t SUMS = 1 << 20;

/* Groups are cut into parts, in order, and threads take part after part. Sums are kept by part and
   added in order, so the result does not depend on which thread computed what. */
struct Job {
  const Bank &bank;
  const Target &target;
  const Signal *x, *y, *grad_y, *grad_x;
  int64_t groups; /* of one batch item */
  int64_t parts = 0;
  int64_t kernel_size = 0, gain_size = 0; /* floats that a part sums into */
  float *kernel_sums = nullptr, *gain_sums = nullptr, *grad_gains = nullptr;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};

  Job(const Bank &b, const Signal *x_, const Signal *y_, const Signal *gy, const Signal *gx)
      : bank(b), target(*pick(b.lanes, b.half)), x(x_), y(y_), grad_y(gy), grad_x(gx) {
    groups = (b.dim + target.lanes - 1) / target.lanes;
    /* Sixteen parts per thread even out other load on the cores. */
    const int64_t wanted = 16 * (b.threads > 1 ? b.threads : 1);
    parts = b.batch * groups < wanted ? b.batch * groups : wanted;
  }

  /* Fewer parts, if each sums into many floats; at least one for each thread. */
  void limit_sums() {
    const int64_t each = kernel_size + gain_size, least = bank.threads > 1 ? bank.threads : 1;
    const int64_t most = SUMS / (each > 1 ? each : 1);
    const int64_t limit = most > least ? most : least;
    if (parts > limit) parts = limit;
  }

  int64_t begin(int64_t part) const { return bank.batch * groups * part / parts; }

  /* Gains by token belong to one batch item. The part with the item's first group writes in place.
     Any other part can only share the item that it starts in, and stores its sums separately. */
  bool shares_first_item(int64_t part) const { return begin(part) % groups != 0; }

  void run_part(int64_t part, void *scratch) {
    int64_t tokens = 0; /* tokens whose gradients are still in `scratch` */
    for (int64_t task = begin(part); task < begin(part + 1); ++task) {
      const int64_t item = task / groups, first = task % groups * target.lanes;
      if (y) {
        target.forward(bank, *x, *y, item, first, scratch);
        continue;
      }
      Gradients to = {kernel_sums ? kernel_sums + part * kernel_size : nullptr,
                      gain_sums ? gain_sums + part * gain_size : nullptr};
      if (grad_gains && bank.gain_shape == GAIN_TOKEN &&
          !(item == begin(part) / groups && shares_first_item(part)))
        to.gains = grad_gains + item * gain_size;
      target.backward(bank, *x, *grad_y, grad_x, to, item, first, scratch);
      tokens += bank.tokens;
      if (tokens >= FLUSH || task + 1 == begin(part + 1)) {
        target.flush(bank, to, scratch);
        tokens = 0;
      }
    }
  }

  static void work(void *argument) {
    Job &job = *static_cast<Job *>(argument);
    int64_t part = job.next++;
    if (part >= job.parts) return;
    Memory scratch(job.target.scratch_bytes(job.bank));
    if (!scratch.data()) {
      job.failed = true;
      return;
    }
    job.target.begin(job.bank, !job.y, scratch.data());
    for (; part < job.parts; part = job.next++) job.run_part(part, scratch.data());
  }

  bool run() {
    const int64_t threads = bank.threads < parts ? bank.threads : parts;
    run_on_threads(bank.parallel, threads, work, this);
    return !failed;
  }
};

void add_parts(const float *sums, int64_t size, int64_t parts, float *total) {
  for (int64_t i = 0; i < size; ++i) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += sums[part * size + i];
    total[i] = static_cast<float>(sum);
  }
}

struct Peak {
  const Target &target;
  double seconds;
  std::atomic<int64_t> operations{0};

  static void work(void *argument) {
    Peak &peak = *static_cast<Peak *>(argument);
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(peak.seconds);
    float sink[2] = {0.5f, 0.25f};
    double done = 0;
    while (std::chrono::steady_clock::now() < until) {
      sink[0] = 0.5f;
      done += peak.target.peak(20000, sink);
    }
    peak.operations += static_cast<int64_t>(done);
  }
};

}  // namespace

int64_t spaudio_interface(void) { return SPAUDIO_INTERFACE; }

int64_t spaudio_lanes(void) { return pick(16)->lanes; }

int spaudio_forward(const Bank *bank, const Signal *x, const Signal *y) {
  Job job(*bank, x, y, nullptr, nullptr);
  return job.run() ? 0 : 1;
}

int spaudio_backward(const Bank *bank, const Signal *x, const Signal *grad_y, const Signal *grad_x,
                     float *grad_kernels, float *grad_gains) {
  Job job(*bank, x, nullptr, grad_y, grad_x);
  const int64_t filters = count_filters(*bank), item_gains = bank->tokens * filters;
  const bool by_token = bank->gain_shape == GAIN_TOKEN;
  job.kernel_size = grad_kernels ? count_taps(*bank) : 0;
  if (grad_gains)
    job.gain_size = by_token ? item_gains : filters * (bank->gain_shape == GAIN_DIM ? bank->dim : 1);
  job.limit_sums();
  Memory sums(job.parts * (job.kernel_size + job.gain_size) * static_cast<int64_t>(sizeof(float)));
  if (!sums.data()) return 1;
  float *data = static_cast<float *>(sums.data());
  if (grad_kernels) job.kernel_sums = data;
  if (grad_gains) job.gain_sums = data + job.parts * job.kernel_size;
  job.grad_gains = grad_gains;
  if (grad_gains && by_token)
    std::memset(grad_gains, 0, static_cast<size_t>(bank->batch * item_gains) * sizeof(float));
  if (!job.run()) return 1;
  if (grad_kernels) add_parts(job.kernel_sums, job.kernel_size, job.parts, grad_kernels);
  if (grad_gains && !by_token) add_parts(job.gain_sums, job.gain_size, job.parts, grad_gains);
  if (grad_gains && by_token)
    for (int64_t part = 0; part < job.parts; ++part) {
      if (!job.shares_first_item(part)) continue;
      float *to = grad_gains + job.begin(part) / job.groups * item_gains;
      for (int64_t i = 0; i < item_gains; ++i) to[i] += job.gain_sums[part * item_gains + i];
    }
  return 0;
}

double spaudio_peak(int64_t lanes, int64_t threads, double seconds, ParallelRegion parallel) {
  Peak peak{*pick(lanes), seconds};
  const auto start = std::chrono::steady_clock::now();
  run_on_threads(parallel, threads, Peak::work, &peak);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return static_cast<double>(peak.operations.load()) / took.count();
}
