#include <csignal>
#include <cstring>
#include <deque>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(data, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(data, bytes)
#endif

namespace millrace::emulator {
namespace {

// The thread sanitizer has room for less, and sees the host's touches as races; to open and close would order
// streams.
#if defined(__SANITIZE_THREAD__)
constexpr std::size_t kAddresses = std::size_t{64} << 30;
constexpr bool kProtect = false;
#else
constexpr std::size_t kAddresses = std::size_t{512} << 30;
constexpr bool kProtect = true;
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kNote = false;  // the address sanitizer knows by itself
#else
constexpr bool kNote = true;
#endif
constexpr std::size_t kMostDevices = 16;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kGuard = 64;
constexpr std::size_t kKeptBytes = std::size_t{16} << 20;

std::size_t pages_for(std::size_t bytes) { return (bytes + kGuard + kPage - 1) / kPage * kPage; }

/// Gives memory back to the system late, so that its filling is seen; then there are zeros.
void give_back(void* data, std::size_t bytes) {
  thread_local std::deque<std::pair<void*, std::size_t>> kept;
  thread_local std::size_t kept_bytes = 0;
  kept.emplace_back(data, bytes);
  kept_bytes += bytes;
  while (kept_bytes > kKeptBytes) {
    madvise(kept.front().first, kept.front().second, MADV_DONTNEED);
    kept_bytes -= kept.front().second;
    kept.pop_front();
  }
}

void* reserve(std::size_t bytes, int protection) {
  void* base = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    die(fmt::format("cannot reserve {} bytes of addresses", bytes));
  }
  return base;
}

struct sigaction previous_action;

/// Says whose memory was touched, then lets the fault happen again.
void on_fault(int, siginfo_t* info, void*) {
  if (device_of(info->si_addr) >= 0) {
    constexpr char kMessage[] = "cuda emulator: the host touched device memory\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  }
  sigaction(SIGSEGV, &previous_action, nullptr);
}

void watch_faults() {
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &previous_action);
}

}  // namespace

void die(const std::string& message) {
  fmt::print(stderr, "cuda emulator: {} (MILLRACE_EMULATOR_SEED={})\n", message, seed());
  std::fflush(stderr);
  std::abort();
}

Arena::Arena(std::size_t device) {
  if (device >= kMostDevices) {
    die(fmt::format("there can be {} devices", kMostDevices));
  }
  if (device == 0) {
    addresses_.base = static_cast<std::byte*>(reserve(kMostDevices * kAddresses, PROT_NONE));
    if (kNote) {
      addresses_.bytes = kMostDevices * kAddresses;
      addresses_.valid =
          static_cast<std::uint8_t*>(reserve(addresses_.bytes / kUnit, PROT_READ | PROT_WRITE));
    }
  }
  base_ = addresses_.base + device * kAddresses;
  if (kProtect) {
    [[maybe_unused]] static const bool watched = (watch_faults(), true);
  } else {
    protect(PROT_READ | PROT_WRITE);
  }
}

void Arena::protect(int protection) const {
  if (mprotect(base_, kAddresses, protection) != 0) {
    die("mprotect failed");
  }
}

void* Arena::take(std::size_t bytes) {
  const std::scoped_lock lock(host_);
  const std::size_t whole = pages_for(bytes);
  if (bytes > free_bytes()) {
    return nullptr;
  }
  if (next_ + whole > kAddresses) {
    die("all addresses of a device are used up (each is used once)");
  }
  std::byte* data = base_ + next_;
  next_ += whole;
  live_.emplace(data, bytes);
  used_.fetch_add(bytes, std::memory_order_relaxed);
  return data;
}

std::size_t Arena::forget(void* data) {
  const std::scoped_lock lock(host_);
  const auto found = live_.find(static_cast<std::byte*>(data));
  if (found == live_.end()) {
    return 0;
  }
  const std::size_t bytes = found->second;
  live_.erase(found);
  return bytes;
}

bool Arena::holds(const void* data, std::size_t bytes) const {
  const std::scoped_lock lock(host_);
  const auto* place = static_cast<const std::byte*>(data);
  auto found = live_.upper_bound(place);
  return found != live_.begin() && place + bytes <= (--found)->first + found->second;
}

bool Arena::contains(const void* data) const {
  const auto* place = static_cast<const std::byte*>(data);
  return place >= base_ && place < base_ + kAddresses;
}

std::size_t Arena::live() const {
  const std::scoped_lock lock(host_);
  return live_.size();
}

std::string Arena::describe(const void* data) const {
  const std::scoped_lock lock(placed_mutex_);
  const auto* place = static_cast<const std::byte*>(data);
  const auto next = placed_.upper_bound(place);
  if (next != placed_.begin()) {
    const auto [begin, bytes] = *std::prev(next);
    if (place < begin + pages_for(bytes)) {
      return fmt::format("{} bytes behind an allocation of {}",
                         place - begin - static_cast<std::ptrdiff_t>(bytes) + 1, bytes);
    }
  }
  return next != placed_.end() && next->first - place <= static_cast<std::ptrdiff_t>(kPage)
             ? fmt::format("{} bytes before an allocation of {}", next->first - place, next->second)
             : "in memory that was freed, or is not allocated yet";
}

void Arena::note(void* data, std::size_t bytes, bool valid) {
  if (!kNote) {
    return;
  }
  std::uint8_t* const units = addresses_.valid + (static_cast<std::byte*>(data) - addresses_.base) / kUnit;
  std::memset(units, valid ? kUnit : 0, bytes / kUnit);
  if (bytes % kUnit != 0) {
    units[bytes / kUnit] = static_cast<std::uint8_t>(valid ? bytes % kUnit : 0);
  }
  const std::scoped_lock lock(placed_mutex_);
  valid ? void(placed_.emplace(static_cast<std::byte*>(data), bytes))
        : void(placed_.erase(static_cast<std::byte*>(data)));
}

void Arena::prepare(void* data, std::size_t bytes) {
  std::memset(data, kFill, pages_for(bytes));
  note(data, bytes, true);
  ASAN_POISON_MEMORY_REGION(static_cast<std::byte*>(data) + bytes, pages_for(bytes) - bytes);
}

void Arena::clear(void* data, std::size_t bytes) {
  const std::size_t whole = pages_for(bytes);
  ASAN_UNPOISON_MEMORY_REGION(data, whole);
  const auto* begin = static_cast<const unsigned char*>(data);
  for (std::size_t i = bytes; i < whole; ++i) {
    if (begin[i] != kFill) {
      die(fmt::format("a kernel wrote behind its memory: {} bytes behind an allocation of {}", i - bytes + 1,
                      bytes));
    }
  }
  std::memset(data, kFill, bytes);
  note(data, bytes, false);
  ASAN_POISON_MEMORY_REGION(data, whole);
  used_.fetch_sub(bytes, std::memory_order_relaxed);
  give_back(data, whole);
}

void Arena::open() {
  if (!kProtect) {
    return;
  }
  const std::scoped_lock lock(users_mutex_);
  if (users_++ == 0) {
    protect(PROT_READ | PROT_WRITE);
  }
}

void Arena::close() {
  if (!kProtect) {
    return;
  }
  const std::scoped_lock lock(users_mutex_);
  if (--users_ == 0) {
    protect(PROT_NONE);
  }
}

}  // namespace millrace::emulator
