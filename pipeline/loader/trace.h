#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

namespace millrace {

/// Records what happened when and writes it as a Chrome trace, which Perfetto (ui.perfetto.dev) opens. Memory
/// is bounded: the first half million spans are kept. Any thread may add spans.
class Trace {
 public:
  using Clock = std::chrono::steady_clock;

  /// A row of the picture: a thread, a slab.
  class Track {
   public:
    Track(Trace& trace, std::string name) : trace_(trace), name_(std::move(name)) {}
    /// `name` and `key`, which says what `value` is, must live for ever.
    void add(const char* name, Clock::time_point begin, Clock::time_point end, const char* key,
             std::int64_t value);

   private:
    friend class Trace;
    struct Span {
      const char *name, *key;
      std::int64_t value;
      Clock::time_point begin, end;
    };
    Trace& trace_;
    std::string name_;
    std::mutex mutex_;
    std::vector<Span> spans_;
  };

  explicit Trace(std::filesystem::path path) : path_(std::move(path)) {}
  /// Writes what was not written yet, so that a run that fails leaves its trace as well.
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  /// A new row; it lives as long as the trace.
  Track& track(std::string name);
  /// @throws InputError or MachineError when the file cannot be written.
  void write();

 private:
  void write_to(std::FILE* file);

  static constexpr std::size_t kMostSpans = std::size_t{1} << 19;

  std::filesystem::path path_;
  Clock::time_point start_ = Clock::now();
  std::atomic<std::size_t> spans_ = 0;  // kept or dropped
  std::mutex mutex_;
  std::deque<Track> tracks_;
  bool written_ = false;
};

}  // namespace millrace
