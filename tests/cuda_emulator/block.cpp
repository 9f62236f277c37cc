// Built without the thread sanitizer's instructions: it would see the switches of one thread as races.
#include <array>
#include <fmt/format.h>
#include <memory>
#include <numeric>
#include <string_view>
#include <vector>

#include "device.h"
#include "fiber.h"
#include "internal.h"

namespace millrace::emulator {
namespace {

#if defined(MILLRACE_EMULATOR_TSAN)
constexpr bool kFiberOfEachThread = true;  // else threads that never wait would count as one
void before_others(void* what) { __tsan_release(what); }
void after_others(void* what) { __tsan_acquire(what); }
#else
constexpr bool kFiberOfEachThread = false;
void before_others(void*) {}
void after_others(void*) {}
#endif

/// The threads of one block. They run one after the other until each waits or ends, then those run on whom
/// nothing holds. Blocks come in a random order, and half of them go from the last thread to the first, so
/// that order does not hide errors.
class Block {
 public:
  /// The error of the kernel, which was left then.
  cudaError_t run_grid(const void* kernel, dim3 grid, dim3 block, const std::function<void()>& body) {
    kernel_ = kernel;
    gridDim = grid;
    blockDim = block;
    body_ = &body;
    size_ = static_cast<int>(block.x * block.y * block.z);
    error_ = cudaSuccess;
    ++grids_;
    const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
    const std::uint64_t first = random_bits(grids_, 0) % blocks, step = coprime_to(blocks);
    for (std::uint64_t i = 0, place = first; i < blocks && error_ == cudaSuccess;
         ++i, place = (place + step) % blocks) {
      blockIdx = {static_cast<unsigned>(place % grid.x), static_cast<unsigned>(place / grid.x % grid.y),
                  static_cast<unsigned>(place / grid.x / grid.y)};
      backward_ = (random_bits(grids_, place) & 1) != 0;
      poison_shared();
      run_block();
    }
    kernel_ = nullptr;
    return error_;
  }

  bool is_running() const { return kernel_ != nullptr; }
  int lane() const { return current_ % warpSize; }

  /// Leaves the kernel for good: what is on its threads' stacks is never taken down.
  void abandon(cudaError_t error) {
    error_ = error;
    suspend();
  }

  /// "kernel NAME, block (0, 0, 0), thread (0, 0, 0)"
  std::string place() const {
    return fmt::format("kernel {}, block ({}, {}, {}), thread ({}, {}, {})", name_of(kernel_), blockIdx.x,
                       blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  }

  void barrier(const std::source_location& where) {
    void* order = &barrier_order_[barriers_ & 1];
    before_others(order);
    arrive(State::at_barrier, where);
    if (++waiting_ < size_) {
      suspend();
    } else {
      same_place(0, size_);
      release(0, size_, ~0u);
      waiting_ = 0;
      ++barriers_;
    }
    after_others(order);
  }

  /// With a `source` below 0 the bits of a vote.
  std::uint64_t warp(unsigned mask, std::uint64_t value, int source, const std::source_location& where) {
    Thread& self = threads_[current_];
    self.mask = mask;
    self.value = value;
    self.source = source;
    arrive(State::at_warp, where);
    if ((mask >> lane() & 1) == 0) {
      fail(fmt::format("thread {} is not in its own mask {:#x}", current_, mask));
    }
    const int first = current_ - lane();
    for (int i = first; i < first + warpSize; ++i) {
      const bool absent = i >= size_ || threads_[i].state == State::ended;
      if (absent && (mask >> (i % warpSize) & 1) != 0) {
        fail(fmt::format("the mask {:#x} names lane {} of the warp, which {}", mask, i % warpSize,
                         i >= size_ ? "is not there" : "has ended"));
      }
    }
    if (all_here(first, mask)) {
      same_place(first, std::min(size_, first + warpSize), mask);
      give_results(first, mask);
      release(first, first + warpSize, mask);
    } else {
      suspend();
    }
    return self.result;
  }

  void warp_barrier(unsigned mask, const std::source_location& where) {
    void* order = &warp_order_[current_ / warpSize];
    before_others(order);
    warp(mask, 0, -1, where);
    after_others(order);
  }

 private:
  enum class State : std::uint8_t { unstarted, ready, running, at_barrier, at_warp, ended };
  struct Thread {
    State state = State::unstarted;
    Fiber* fiber = nullptr;
    std::source_location where;
    unsigned mask = 0;
    int source = 0;
    std::uint64_t value = 0, result = 0;
  };

  std::uint64_t coprime_to(std::uint64_t count) const {
    std::uint64_t number = random_bits(grids_, 1) % count;
    while (std::gcd(number, count) != 1) {
      ++number;
    }
    return number;
  }

  int nth(int step) const { return backward_ ? size_ - 1 - step : step; }

  void run_block() {
    for (int i = 0; i < size_; ++i) {
      threads_[i].state = State::unstarted;
    }
    started_ = ended_ = waiting_ = 0;
    taken_ = 0;
    before_others(&start_order_);
    while (ended_ < size_) {
      bool moved = false;
      for (int step = 0; step < size_; ++step) {
        Thread& thread = threads_[nth(step)];
        if (thread.state == State::unstarted) {
          next_fiber().enter();
          moved = true;
        } else if (thread.state == State::ready) {
          make_current(nth(step));
          thread.fiber->enter();
          moved = true;
        }
        if (error_ != cudaSuccess) {
          std::ranges::for_each(fibers_, [](auto& fiber) { static_cast<void>(fiber.release()); });
          fibers_.clear();
          return;
        }
      }
      if (!moved) {
        fail("no thread can go on");
      }
    }
    after_others(&end_order_);
  }

  /// On a fiber: runs threads that have not started, until one waits; then goes on with it and those behind
  /// it.
  void run_threads(Fiber& fiber) {
    while (started_ < size_) {
      const int mine = nth(started_++);
      threads_[mine].fiber = &fiber;
      make_current(mine);
      after_others(&start_order_);
      (*body_)();
      before_others(&end_order_);
      threads_[mine].state = State::ended;
      ++ended_;
      if (kFiberOfEachThread) {
        break;
      }
    }
  }

  void make_current(int thread) {
    const auto place = static_cast<unsigned>(thread);
    current_ = thread;
    threads_[thread].state = State::running;
    threadIdx = {place % blockDim.x, place / blockDim.x % blockDim.y, place / (blockDim.x * blockDim.y)};
  }

  /// The next fiber of this block. One that comes back has ended the last of its threads.
  Fiber& next_fiber() {
    if (taken_ == fibers_.size()) {
      const std::size_t mine = taken_;
      fibers_.push_back(std::make_unique<Fiber>([this, mine] { run_threads(*fibers_[mine]); }));
    }
    return *fibers_[taken_++];
  }
  void suspend() { threads_[current_].fiber->leave(); }

  void arrive(State state, const std::source_location& where) {
    threads_[current_].state = state;
    threads_[current_].where = where;
  }
  void release(int begin, int end, unsigned mask) {
    for (int i = begin; i < end; ++i) {
      if ((mask >> (i % warpSize) & 1) != 0) {
        threads_[i].state = i == current_ ? State::running : State::ready;
      }
    }
  }

  bool is_here(int thread, unsigned mask) const {
    return thread < size_ && threads_[thread].state == State::at_warp && threads_[thread].mask == mask;
  }
  bool all_here(int first, unsigned mask) const {
    if (!is_here(first + std::bit_width(mask) - 1, mask)) {  // the one that comes last in most blocks
      return false;
    }
    for (int lane = 0; lane < warpSize; ++lane) {
      if ((mask >> lane & 1) != 0 && !is_here(first + lane, mask)) {
        return false;
      }
    }
    return true;
  }
  void give_results(int first, unsigned mask) {
    unsigned bits = 0;
    for (int lane = 0; lane < warpSize; ++lane) {
      if ((mask >> lane & 1) != 0 && threads_[first + lane].value != 0) {
        bits |= 1u << lane;
      }
    }
    for (int lane = 0; lane < warpSize; ++lane) {
      if ((mask >> lane & 1) == 0) {
        continue;
      }
      Thread& thread = threads_[first + lane];
      if (thread.source >= 0 && (mask >> thread.source & 1) == 0) {
        fail(fmt::format("thread {} reads lane {}, which is not in the mask {:#x}", first + lane,
                         thread.source, mask));
      }
      thread.result = thread.source < 0 ? bits : threads_[first + thread.source].value;
    }
  }
  void same_place(int begin, int end, unsigned mask = ~0u) {
    const std::source_location& here = threads_[current_].where;
    for (int i = begin; i < end; ++i) {
      const std::source_location& there = threads_[i].where;
      if ((mask >> (i % warpSize) & 1) != 0 &&
          (there.line() != here.line() || std::string_view(there.file_name()) != here.file_name())) {
        fail("threads meet that wait at different places");
      }
    }
  }

  [[noreturn]] void fail(std::string_view what) const {
    std::string message = fmt::format("kernel {}, block ({}, {}, {}) of {} threads: {}:", name_of(kernel_),
                                      blockIdx.x, blockIdx.y, blockIdx.z, size_, what);
    std::string before;
    for (int i = 0; i < size_; ++i) {
      const Thread& thread = threads_[i];
      const bool waits = thread.state == State::at_barrier || thread.state == State::at_warp;
      const std::string now =
          thread.state == State::ended ? "has ended"
          : waits ? fmt::format("waits at {}:{}, for its {}", thread.where.file_name(), thread.where.line(),
                                thread.state == State::at_barrier ? "block" : "warp")
                  : "can go on";
      if (now != before) {
        message += fmt::format("\n  from thread {} on: {}", i, now);
        before = now;
      }
    }
    die(message);
  }

  const void* kernel_ = nullptr;
  cudaError_t error_ = cudaSuccess;
  const std::function<void()>* body_ = nullptr;
  int size_ = 0, current_ = 0, started_ = 0, ended_ = 0, waiting_ = 0;
  unsigned grids_ = 0, barriers_ = 0;
  bool backward_ = false;
  std::array<Thread, 1024> threads_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::size_t taken_ = 0;
  // Addresses that name an order to the thread sanitizer.
  std::uint64_t start_order_ = 0, end_order_ = 0, barrier_order_[2] = {}, warp_order_[32] = {};
};

Block& block() {
  thread_local const auto mine = std::make_unique<Block>();
  return *mine;
}

}  // namespace

cudaError_t run_grid(const void* kernel, dim3 grid, dim3 threads, const std::function<void()>& body) {
  return block().run_grid(kernel, grid, threads, body);
}

void fault(cudaError_t error, const std::string& what) {
  if (!block().is_running()) {
    die(what);
  }
  if (!faults_are_errors()) {
    die(fmt::format("{}: {}", block().place(), what));
  }
  block().abandon(error);
}

int lane() { return block().lane(); }
void block_barrier(const std::source_location& where) { block().barrier(where); }
void warp_barrier(unsigned mask, const std::source_location& where) { block().warp_barrier(mask, where); }
std::uint64_t warp_exchange(unsigned mask, std::uint64_t value, int source,
                            const std::source_location& where) {
  return block().warp(mask, value, source, where);
}
unsigned warp_vote(unsigned mask, bool predicate, const std::source_location& where) {
  return static_cast<unsigned>(block().warp(mask, predicate ? 1 : 0, -1, where));
}

}  // namespace millrace::emulator
