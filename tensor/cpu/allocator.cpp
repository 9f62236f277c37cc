#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <functional>
#include <new>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tensor/device_memory.h"
#include "tensor/storage.h"

// Blocks come in size classes at eighths of powers of two, so at most one eighth is wasted. Each thread keeps
// the blocks it frees, per class at most as many as it ever had in use at once: a step that repeats finds all
// it needs, and a thread that only frees what others made keeps nothing.
namespace millrace {

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCached = false;  // so that sanitizers see each block's life
#else
constexpr bool kCached = true;
#endif
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr int kSteps = 8;
constexpr int kClasses = 48 * kSteps;

std::atomic<std::size_t> held_bytes{0};  // from the system, cached blocks included
std::atomic<std::size_t> peak_bytes{0};
std::atomic<std::size_t> cached_bytes{0};  // over all threads

/// Class 0 to 7: 64 to 512 bytes; then eight to each doubling.
int class_of(std::size_t bytes) {
  if (bytes <= kSteps * kAlignment) {
    return bytes == 0 ? 0 : static_cast<int>((bytes - 1) / kAlignment);
  }
  const int log = std::bit_width(bytes - 1) - 1;  // 2^log <= bytes - 1 < 2^(log + 1)
  return (log - 8) * kSteps + static_cast<int>((bytes - 1) >> (log - 3)) - kSteps;
}

std::size_t class_bytes(int size_class) {
  if (size_class < kSteps) {
    return (static_cast<std::size_t>(size_class) + 1) * kAlignment;
  }
  const int log = size_class / kSteps + 8;
  return (static_cast<std::size_t>(size_class % kSteps) + kSteps + 1) << (log - 3);
}

/// What is asked of the system: the whole class, or exactly `bytes` where sanitizers are to see their end.
std::size_t system_bytes(std::size_t bytes) { return kCached ? class_bytes(class_of(bytes)) : bytes; }

void* take_from_system(std::size_t bytes) {
  const bool huge = bytes >= kHugePage;
  void* data = nullptr;
  if (posix_memalign(&data, huge ? kHugePage : kAlignment, bytes) != 0) {
    return nullptr;
  }
  if (huge) {
    madvise(data, bytes, MADV_HUGEPAGE);
  }
  const std::size_t held = held_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  std::size_t peak = peak_bytes.load(std::memory_order_relaxed);
  while (held > peak && !peak_bytes.compare_exchange_weak(peak, held, std::memory_order_relaxed)) {
  }
  return data;
}

void give_to_system(void* data, std::size_t bytes) {
  std::free(data);
  held_bytes.fetch_sub(bytes, std::memory_order_relaxed);
}

/// Caches of all threads together may keep half of the machine's memory.
std::size_t cache_limit() {
  static const std::size_t limit =
      static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) / 2;
  return limit;
}

thread_local cpu::OwnBlocks* own_blocks = nullptr;
thread_local bool cache_gone = false;  // tensors may outlive the cache at the end of a thread

class ThreadCache {
 public:
  ~ThreadCache() {
    drop_all();
    cache_gone = true;
  }

  void* take(int size_class) {
    Class& c = classes_[static_cast<std::size_t>(size_class)];
    c.most_used = std::max(c.most_used, ++c.used);
    if (c.blocks.empty()) {
      return nullptr;
    }
    void* data = c.blocks.back();
    c.blocks.pop_back();
    cached_bytes.fetch_sub(class_bytes(size_class), std::memory_order_relaxed);
    return data;
  }

  /// False when the block should go back to the system.
  bool keep(void* data, int size_class) {
    Class& c = classes_[static_cast<std::size_t>(size_class)];
    c.used = std::max<std::int64_t>(c.used - 1, 0);
    const std::size_t bytes = class_bytes(size_class);
    if (static_cast<std::int64_t>(c.blocks.size()) >= c.most_used) {
      return false;
    }
    if (cached_bytes.load(std::memory_order_relaxed) + bytes > cache_limit()) {
      drop_all();
      return false;
    }
    try {
      c.blocks.push_back(data);
    } catch (const std::bad_alloc&) {
      return false;  // no memory left: none is kept back
    }
    cached_bytes.fetch_add(bytes, std::memory_order_relaxed);
    return true;
  }

  void drop_all() {
    for (int i = 0; i < kClasses; ++i) {
      Class& c = classes_[static_cast<std::size_t>(i)];
      for (void* data : c.blocks) {
        give_to_system(data, class_bytes(i));
        cached_bytes.fetch_sub(class_bytes(i), std::memory_order_relaxed);
      }
      c.blocks.clear();
      c.most_used = c.used;
    }
  }

 private:
  struct Class {
    std::vector<void*> blocks;
    std::int64_t used = 0;
    std::int64_t most_used = 0;
  };
  std::array<Class, kClasses> classes_;
};

ThreadCache* thread_cache() {
  if (!kCached || cache_gone) {
    return nullptr;
  }
  thread_local ThreadCache cache;
  return &cache;
}

}  // namespace

namespace cpu {

OwnBlocks::~OwnBlocks() {
  for (const auto& [data, block] : blocks_) {
    if (!block.in_use) {
      give_to_system(data, block.bytes);
    }
  }
}

void* OwnBlocks::take(std::size_t asked) {
  const std::size_t bytes = system_bytes(asked);
  std::vector<std::byte*>& free = free_[bytes];
  std::byte* data = nullptr;
  if (!free.empty()) {
    data = free.back();
    free.pop_back();
  } else if (bytes_ + bytes > most_bytes_) {
    enough_ = false;
    return nullptr;
  } else {
    data = static_cast<std::byte*>(take_from_system(bytes));
    if (data == nullptr) {
      return nullptr;
    }
    bytes_ += bytes;
  }
  blocks_[data] = {.bytes = bytes, .in_use = true};
  ++in_use_;
  return data;
}

bool OwnBlocks::give_back(void* data) {
  const auto block = blocks_.find(static_cast<std::byte*>(data));
  if (block == blocks_.end()) {
    return false;
  }
  block->second.in_use = false;
  free_[block->second.bytes].push_back(block->first);
  --in_use_;
  return true;
}

bool OwnBlocks::owns(const void* address) const {
  const auto* place = static_cast<const std::byte*>(address);
  const auto next = std::ranges::upper_bound(blocks_, place, std::less{}, [](const auto& block) {
    return static_cast<const std::byte*>(block.first);
  });
  if (next == blocks_.begin()) {
    return false;
  }
  const auto& [data, block] = *std::prev(next);
  return place < data + std::max(block.bytes, std::size_t{1});
}

OwnBlocks* exchange_own_blocks(OwnBlocks* blocks) { return std::exchange(own_blocks, blocks); }

void* allocate(std::size_t bytes) {
  if (own_blocks != nullptr) {
    if (void* data = own_blocks->take(bytes)) {
      return data;
    }
  }
  const int size_class = bytes >> 50 == 0 ? class_of(bytes) : kClasses;
  if (size_class < kClasses) {
    ThreadCache* cache = thread_cache();
    if (cache != nullptr) {
      if (void* data = cache->take(size_class)) {
        return data;
      }
    }
    if (void* data = take_from_system(system_bytes(bytes))) {
      return data;
    }
    if (cache != nullptr) {
      cache->drop_all();
      if (void* data = take_from_system(system_bytes(bytes))) {
        return data;
      }
    }
  }
  throw MachineError("allocate: no memory for {} bytes ({:.1f} MiB); {:.1f} MiB are held by tensors", bytes,
                     static_cast<double>(bytes) / (1 << 20),
                     static_cast<double>(held_bytes.load()) / (1 << 20));
}

void release(void* data, std::size_t bytes) {
  if (data == nullptr || (own_blocks != nullptr && own_blocks->give_back(data))) {
    return;
  }
  const int size_class = class_of(bytes);
  ThreadCache* cache = thread_cache();
  if (cache == nullptr || !cache->keep(data, size_class)) {
    give_to_system(data, system_bytes(bytes));
  }
}

}  // namespace cpu

MemoryUse cpu_memory_use() {
  return {.live = held_bytes.load(std::memory_order_relaxed),
          .peak = peak_bytes.load(std::memory_order_relaxed)};
}

}  // namespace millrace
