#pragma once

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <functional>

#if defined(MILLRACE_EMULATOR_TSAN)
#include <sanitizer/tsan_interface.h>
#elif defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace millrace::emulator {

/// A stack of its own that runs `turn` each time it is entered, and may leave in the middle of it. The
/// sanitizers are told of each switch; a switch orders nothing.
class Fiber {
 public:
  explicit Fiber(std::function<void()> turn) : turn_(std::move(turn)) {
    boost::context::protected_fixedsize_stack allocator(kStackBytes);
    const boost::context::stack_context stack = allocator.allocate();
    bottom_ = static_cast<std::byte*>(stack.sp) - stack.size;
    bytes_ = stack.size;
#if defined(MILLRACE_EMULATOR_TSAN)
    self_ = __tsan_create_fiber(0);
#endif
    context_ = {std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack), allocator,
                [this](boost::context::fiber&& caller) {
                  caller_ = std::move(caller);
                  arrived(nullptr);
                  run();
                  return std::move(caller_);
                }};
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() {
    stopped_ = true;
    enter();
#if defined(MILLRACE_EMULATOR_TSAN)
    __tsan_destroy_fiber(self_);
#endif
  }

  /// Goes on where the fiber left, until it leaves again.
  void enter() {
    [[maybe_unused]] void* fake = nullptr;
#if defined(MILLRACE_EMULATOR_TSAN)
    outer_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(self_, __tsan_switch_to_fiber_no_sync);
#elif defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&fake, bottom_, bytes_);
#endif
    context_ = std::move(context_).resume();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  /// Called on the fiber: back to where it was entered from.
  void leave() {
    void* fake = nullptr;
    leaving(&fake);
    caller_ = std::move(caller_).resume();
    arrived(fake);
  }

 private:
  static constexpr std::size_t kStackBytes = 256 << 10;

  void run() {
    while (!stopped_) {
      turn_();
      leave();
    }
    leaving(nullptr);
  }
  void leaving([[maybe_unused]] void** fake) {
#if defined(MILLRACE_EMULATOR_TSAN)
    __tsan_switch_to_fiber(outer_, __tsan_switch_to_fiber_no_sync);
#elif defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake, outer_bottom_, outer_bytes_);
#endif
  }
  void arrived([[maybe_unused]] void* fake) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, &outer_bottom_, &outer_bytes_);
#endif
  }

  std::function<void()> turn_;
  boost::context::fiber context_, caller_;
  const void* bottom_ = nullptr;
  std::size_t bytes_ = 0;
  bool stopped_ = false;
  [[maybe_unused]] void *self_ = nullptr, *outer_ = nullptr;  // the thread sanitizer's names
  [[maybe_unused]] const void* outer_bottom_ = nullptr;       // the address sanitizer's
  [[maybe_unused]] std::size_t outer_bytes_ = 0;
};

}  // namespace millrace::emulator
