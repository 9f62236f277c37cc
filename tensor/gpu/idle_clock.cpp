#include "tensor/gpu/idle_clock.h"

#include "tensor/config.h"
#include "tensor/device_memory.h"

namespace millrace {

IdleClock::~IdleClock() {
  if constexpr (kWithCuda) {
    for (const auto& [begin, end] : pauses_) {
      free_.insert(free_.end(), {begin, end});
    }
    free_.push_back(paused_);
    for (Mark mark : free_) {
      if (mark != nullptr) {
        cuda::destroy_event(mark);
      }
    }
  }
}

IdleClock::Mark IdleClock::mark(const Stream& stream) {
  Mark mark = nullptr;
  if constexpr (kWithCuda) {
    device_ = stream.device().index;
    if (free_.empty()) {
      free_.push_back(cuda::make_timed_event(device_));
    }
    mark = free_.back();
    free_.pop_back();
    cuda::record_event(mark, stream);
  }
  return mark;
}

void IdleClock::pause(const Stream& stream) {
  if (stream.device().is_cuda() && paused_ == nullptr) {
    paused_ = mark(stream);
  }
}

void IdleClock::resume(const Stream& stream) {
  if (paused_ != nullptr) {
    pauses_.emplace_back(std::exchange(paused_, nullptr), mark(stream));
    seconds();  // gives back the marks of those that are over
  }
}

double IdleClock::seconds() {
  if constexpr (kWithCuda) {
    while (!pauses_.empty() && cuda::is_event_done(pauses_.front().second, device_)) {
      const auto [begin, end] = pauses_.front();
      pauses_.pop_front();
      seconds_ += cuda::seconds_between(begin, end);
      free_.insert(free_.end(), {begin, end});
    }
  }
  return seconds_;
}

}  // namespace millrace
