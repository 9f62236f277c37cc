#include "dataio/mapping.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <mutex>
#include <shared_mutex>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace millrace {

namespace {

std::atomic<WatchedMapping*> first_mapping = nullptr;
// Entries change under it, and files are open as long as it is held; the handler takes none.
std::shared_mutex watch_mutex;
struct sigaction previous_action;

/// Lowers what is known to be intact.
void lower(std::atomic<std::uint64_t>& intact, std::uint64_t to) {
  std::uint64_t known = intact.load();
  while (to < known && !intact.compare_exchange_weak(known, to)) {
  }
}

/// Puts zeros in place of the lost page and all that follow it. @returns whether the address was ours.
bool replace_lost_pages(std::uintptr_t address) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  for (WatchedMapping* each = first_mapping.load(); each != nullptr; each = each->next) {
    const std::uintptr_t begin = each->begin.load(), end = each->end.load();
    if (address < begin || address >= end) {
      continue;
    }
    const std::uintptr_t lost = address - address % page;
    lower(each->intact, lost - begin);
    return mmap(reinterpret_cast<void*>(lost), end - lost, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0) != MAP_FAILED;
  }
  return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  const bool ours = replace_lost_pages(reinterpret_cast<std::uintptr_t>(info->si_addr));
  errno = error;
  if (ours) {
    return;
  }
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {
    std::signal(signal, SIG_DFL);  // it comes again on return, and ends the process as it would have
    if (info->si_code <= 0) {      // sent by a process
      raise(signal);
    }
  }
}

void install_handler() {
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, nullptr, &previous_action);  // before ours can run
  sigaction(SIGBUS, &action, nullptr);
}

struct MappedRead {
  const WatchedMapping* mapping = nullptr;
  std::uint64_t life = 0;
  std::uint64_t end = 0;
};

thread_local std::vector<MappedRead> mapped_reads;  // the furthest of each mapping

}  // namespace

WatchedMapping& watch(std::span<const std::byte> mapped, int file) {
  static std::once_flag installed;
  std::call_once(installed, install_handler);
  const std::lock_guard lock(watch_mutex);
  WatchedMapping* free = first_mapping.load();
  while (free != nullptr && free->end.load() != 0) {
    free = free->next;
  }
  const bool is_new = free == nullptr;
  if (is_new) {
    free = new WatchedMapping;
    free->next = first_mapping.load();
  }
  const auto begin = reinterpret_cast<std::uintptr_t>(mapped.data());
  free->file = file;
  free->intact = mapped.size();
  free->advised = false;
  ++free->life;
  free->begin = begin;
  free->end = begin + mapped.size();  // last: now it can be found
  if (is_new) {
    first_mapping = free;
  }
  return *free;
}

void unwatch(WatchedMapping& mapping) {
  const std::lock_guard lock(watch_mutex);
  mapping.end = 0;
  mapping.file = -1;
}

void note_mapped_read(const WatchedMapping& mapping, std::uint64_t end) {
  const std::uint64_t life = mapping.life.load(std::memory_order_relaxed);
  const auto known = std::find_if(mapped_reads.rbegin(), mapped_reads.rend(), [&](const MappedRead& read) {
    return read.mapping == &mapping && read.life == life;
  });
  if (known == mapped_reads.rend()) {
    std::erase_if(mapped_reads, [&](const MappedRead& read) { return read.mapping == &mapping; });
    mapped_reads.push_back({&mapping, life, end});
  } else {
    known->end = std::max(known->end, end);
  }
}

bool mapped_reads_intact() {
  if (mapped_reads.empty()) {
    return true;
  }
  const std::shared_lock lock(watch_mutex);
  bool all = true;
  for (const MappedRead& read : mapped_reads) {
    if (read.life != read.mapping->life.load() || read.mapping->end.load() == 0) {  // it is unmapped
      continue;
    }
    // A cut within a page raises no signal: the rest of the page reads as zeros. So the size is asked for.
    struct stat status;
    auto& intact = const_cast<WatchedMapping*>(read.mapping)->intact;
    if (fstat(read.mapping->file.load(), &status) == 0) {
      lower(intact, static_cast<std::uint64_t>(status.st_size));
    }
    all = all && read.end <= intact.load();
  }
  mapped_reads.clear();
  return all;
}

}  // namespace millrace
