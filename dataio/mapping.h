#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace millrace {

/// A mapped file as the handler of SIGBUS sees it. A page that is not in the file any more reads as zeros and
/// is noted here; without this, touching it kills the process. Entries are used again and never freed, so
/// that the handler and a thread's list of what it read may look at any of them at any time.
struct WatchedMapping {
  std::atomic<std::uintptr_t> begin = 0, end = 0;  ///< end is 0 while it watches nothing.
  std::atomic<int> file = -1;                      ///< Open as long as it watches.
  /// Bytes from the beginning on that are there, as far as is known.
  std::atomic<std::uint64_t> intact = 0;
  std::atomic<std::uint64_t> life = 0;  ///< Counts the files that it has watched.
  std::atomic<bool> advised = false;    ///< Whether it was told what is needed soon.
  WatchedMapping* next = nullptr;
};

/// Watches a mapping of all of `file`. The first call installs the handler, which passes on what is not ours.
WatchedMapping& watch(std::span<const std::byte> mapped, int file);
/// Before it is unmapped.
void unwatch(WatchedMapping& mapping);
/// Tells mapped_reads_intact() that this thread reads up to `end`.
void note_mapped_read(const WatchedMapping& mapping, std::uint64_t end);

/// Whether all that this thread has read from mapped files since its last call was there. Else a file was cut
/// in the meantime, bytes may have been zeros, and what was made of them has to be made again: reading the
/// lost part once more is an InputError.
bool mapped_reads_intact();

}  // namespace millrace
