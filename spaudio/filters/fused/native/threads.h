/* Threads, and the memory of one call. */
#pragma once
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>
#include <thread>
#include <vector>

#include "filterbank.h"

/* Runs work(argument) on `threads` threads at once: those of torch's own OpenMP, so that the two
   never compete for cores, or new threads if `parallel` is null. */
inline void run_on_threads(ParallelRegion parallel, int64_t threads, void (*work)(void *),
                           void *argument) {
  if (threads <= 1) return work(argument);
  if (parallel) return parallel(work, argument, static_cast<unsigned>(threads), 0);
  std::vector<std::thread> others;
  for (int64_t i = 1; i < threads; ++i) {
    try {
      others.emplace_back(work, argument);
    } catch (const std::exception &) {
      break; /* Fewer threads suffice: whichever runs takes the next part. */
    }
  }
  work(argument);
  for (std::thread &other : others) other.join();
}

class Memory {
 public:
  explicit Memory(int64_t bytes) {
    const size_t size = (static_cast<size_t>(bytes) / 64 + 1) * 64; /* never 0 */
    data_ = std::aligned_alloc(64, size);
    if (data_) std::memset(data_, 0, size);
  }
  ~Memory() { std::free(data_); }
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  void *data() const { return data_; }

 private:
  void *data_;
};
