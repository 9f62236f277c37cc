#pragma once

#include <deque>
#include <utility>
#include <vector>

#include "tensor/device.h"

namespace millrace {

/// How long a stream of a GPU has nothing to do, from each `pause` to the `resume` after it, without waiting
/// for it. On the CPU it stands still.
class IdleClock {
 public:
  IdleClock() = default;
  ~IdleClock();
  IdleClock(const IdleClock&) = delete;
  IdleClock& operator=(const IdleClock&) = delete;

  /// What `stream` holds now is done: from then on it idles.
  void pause(const Stream& stream);
  /// What `stream` gets from now on is work again.
  void resume(const Stream& stream);
  /// The seconds of all pauses that are over.
  double seconds();

 private:
  using Mark = void*;  // a cudaEvent_t
  Mark mark(const Stream& stream);

  int device_ = 0;
  std::vector<Mark> free_;
  Mark paused_ = nullptr;
  std::deque<std::pair<Mark, Mark>> pauses_;
  double seconds_ = 0;
};

namespace cuda {
void* make_timed_event(int device);
/// Seconds between two timed events that are done.
double seconds_between(void* begin, void* end);
}  // namespace cuda

}  // namespace millrace
