#include "pipeline/loader/trace.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fmt/core.h>
#include <memory>
#include <system_error>

#include "base/tell.h"
#include "dataio/file.h"

namespace millrace {

void Trace::Track::add(const char* name, Clock::time_point begin, Clock::time_point end, const char* key,
                       std::int64_t value) {
  if (trace_.spans_.fetch_add(1, std::memory_order_relaxed) >= kMostSpans) {
    return;
  }
  const std::lock_guard lock(mutex_);
  spans_.push_back({name, key, value, begin, end});
}

Trace::~Trace() {
  if (written_) {
    return;
  }
  try {
    write();
  } catch (const std::exception& error) {
    tell(fmt::format("millrace: {}", error.what()));
  }
}

Trace::Track& Trace::track(std::string name) {
  const std::lock_guard lock(mutex_);
  return tracks_.emplace_back(*this, std::move(name));
}

void Trace::write() {
  const std::lock_guard lock(mutex_);
  written_ = true;
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path_.c_str(), "we"), close);
  if (!file) {
    throw_errno("write", path_);
  }
  try {
    write_to(file.get());
  } catch (const std::system_error& error) {  // fmt's, without the name of the file
    errno = error.code().value();
    throw_errno("write", path_);
  }
  if (std::fflush(file.get()) != 0 || std::ferror(file.get()) != 0) {
    throw_errno("write", path_);
  }
}

void Trace::write_to(std::FILE* file) {
  const auto microseconds = [this](Clock::time_point time) {
    return std::chrono::duration<double, std::micro>(time - start_).count();
  };
  fmt::print(file, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
  int row = 0;
  for (Track& track : tracks_) {
    fmt::print(
        file,
        "{}{{\"ph\":\"M\",\"pid\":1,\"tid\":{},\"name\":\"thread_name\",\"args\":{{\"name\":\"{}\"}}}},\n"
        "{{\"ph\":\"M\",\"pid\":1,\"tid\":{},\"name\":\"thread_sort_index\",\"args\":{{\"sort_index\":{}}}}}",
        row > 0 ? ",\n" : "", row, track.name_, row, row);
    const std::lock_guard track_lock(track.mutex_);
    for (const Track::Span& span : track.spans_) {
      fmt::print(file,
                 ",\n{{\"ph\":\"X\",\"pid\":1,\"tid\":{},\"name\":\"{}\",\"ts\":{:.3f},\"dur\":{:.3f},"
                 "\"args\":{{\"{}\":{}}}}}",
                 row, span.name, microseconds(span.begin),
                 std::max(0.0, microseconds(span.end) - microseconds(span.begin)), span.key, span.value);
    }
    ++row;
  }
  const std::size_t dropped = std::max(spans_.load(), kMostSpans) - kMostSpans;
  fmt::print(file, "\n],\"otherData\":{{\"spans_dropped\":{}}}}}\n", dropped);
}

}  // namespace millrace
