#include "app/training.h"

#include <cstring>
#include <fmt/format.h>

#include "app/exit_code.h"
#include "app/interruption.h"
#include "app/processes.h"

namespace millrace::app {
namespace {

/// @throws Interrupted once a checkpoint is on disk, if there are to be any.
[[noreturn]] void leave(int signal, const Training& parts) {
  const std::string name = fmt::format("SIG{}", sigabbrev_np(signal));
  const std::int64_t steps = parts.trainer.steps();
  Json event = {{"event", "interrupted"}, {"signal", name}, {"total_steps", steps}};
  if (parts.processes.rank() > 0) {
    throw Interrupted(kInterrupted, fmt::format("{}: ended after step {}", name, steps));
  }
  if (parts.checkpointer == nullptr) {
    parts.log.write(event);
    throw Interrupted(
        128 + signal,
        fmt::format("{}: ended after step {}; nothing was saved, as there is no --checkpoint", name, steps));
  }
  const std::string path = parts.checkpointer->save(parts.trainer, parts.loader).string();
  event["checkpoint"] = path;
  parts.log.write(event);
  throw Interrupted(kInterrupted,
                    fmt::format("{}: ended after step {}; --resume auto goes on from {}", name, steps, path));
}

}  // namespace

void leave_if_asked(const Training& parts, const Loader& used) {
  const Agreed all = agree(parts.processes, noted_signal(), used);
  check_bad_rate(all.bad_samples, all.samples, parts.max_bad_rate, "the ranks have named the first ones");
  if (all.signal != 0) {
    leave(all.signal, parts);
  }
}

}  // namespace millrace::app
