#include "app/training.h"

#include <cstring>
#include <fmt/format.h>

#include "app/exit_code.h"
#include "app/interruption.h"
#include "app/processes.h"

namespace millrace::app {
namespace {

/// @throws Interrupted once a checkpoint is on disk, if there are to be any.
[[noreturn]] void leave(int signal, const Training& training) {
  const std::string name = fmt::format("SIG{}", sigabbrev_np(signal));
  const std::int64_t steps = training.trainer.steps();
  Json event = {{"event", "interrupted"}, {"signal", name}, {"total_steps", steps}};
  if (training.processes.rank() > 0) {
    throw Interrupted(kInterrupted, fmt::format("{}: ended after step {}", name, steps));
  }
  if (training.checkpointer == nullptr) {
    training.log.write(event);
    throw Interrupted(
        128 + signal,
        fmt::format("{}: ended after step {}; nothing was saved, as there is no --checkpoint", name, steps));
  }
  const std::string path = training.checkpointer->save(training.trainer, training.loader).string();
  event["checkpoint"] = path;
  training.log.write(event);
  throw Interrupted(kInterrupted,
                    fmt::format("{}: ended after step {}; --resume auto goes on from {}", name, steps, path));
}

}  // namespace

void leave_if_asked(const Training& training, const Loader& used) {
  const Agreed all = agree(training.processes, noted_signal(), used);
  check_bad_rate(all.bad_samples, all.samples, training.max_bad_rate, "the ranks have named the first ones");
  if (all.signal != 0) {
    leave(all.signal, training);
  }
}

}  // namespace millrace::app
