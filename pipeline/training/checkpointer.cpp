#include <charconv>
#include <cstdio>
#include <fmt/format.h>

#include "base/tell.h"
#include "dataio/file.h"
#include "pipeline/training/checkpoint.h"
#include "pipeline/training/checkpoint_folder.h"

namespace millrace {

namespace fs = std::filesystem;

CheckpointInterval CheckpointInterval::parse(std::string_view text) {
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  if (error == std::errc() && count > 0 && count <= 1'000'000'000) {
    if (unit == "s") {
      return {.seconds = static_cast<double>(count)};
    }
    if (unit == "step" || unit == "steps") {
      return {.steps = count};
    }
    if (unit == "epoch" || unit == "epochs") {
      return {.epochs = count};
    }
  }
  throw InputError("checkpoints: got an interval of '{}', expected one such as 30s, 500steps or 1epoch",
                   text);
}

namespace {

CheckpointerOptions checked(CheckpointerOptions options) {
  const CheckpointInterval& every = options.every;
  if (options.keep < 1 || !(every.steps > 0 || every.epochs > 0 || every.seconds > 0)) {
    throw InputError(
        "checkpoints: got {} to keep, every {} steps, {} epochs or {} s; expected to keep at least 1, and an "
        "interval",
        options.keep, every.steps, every.epochs, every.seconds);
  }
  if (!options.say) {
    options.say = tell;
  }
  return options;
}

}  // namespace

Checkpointer::Checkpointer(CheckpointerOptions options)
    : options_(checked(std::move(options))),
      lock_(std::make_unique<FileDescriptor>(take_folder(options_.folder))) {}
Checkpointer::~Checkpointer() = default;

bool Checkpointer::is_due(const Trainer& trainer, const Loader& loader) const {
  const auto& [steps, epochs, seconds] = options_.every;
  if (steps > 0) {
    return trainer.steps() % steps == 0;
  }
  if (epochs > 0) {
    const LoaderState at = loader.state();
    return at.step == loader.steps_per_epoch() && (at.epoch + 1) % epochs == 0;
  }
  return std::chrono::steady_clock::now() - last_ >= std::chrono::duration<double>(seconds);
}

void Checkpointer::after_step(const Trainer& trainer, const Loader& loader) {
  due_ = due_ || is_due(trainer, loader);
  if (writing_.valid() && writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    return;
  }
  try {
    end();
    if (due_) {
      begin(trainer, loader);
    }
  } catch (const std::exception& error) {
    say_failed(error.what());
  }
}

void Checkpointer::say_failed(const char* reason) const {
  options_.say(fmt::format("no checkpoint of step {}: {}; training goes on, and {}", writing_step_, reason,
                           newest_.empty() ? "this run has written none yet"
                                           : fmt::format("{} is the last good one", newest_.string())));
}

fs::path Checkpointer::save(const Trainer& trainer, const Loader& loader) {
  try {
    end();
  } catch (const std::exception& error) {
    say_failed(error.what());  // what could not be written then may be written now
  }
  if (newest_step_ != trainer.steps()) {
    begin(trainer, loader);
    end();
  }
  return newest_;
}

/// Takes the copy and starts to write it.
void Checkpointer::begin(const Trainer& trainer, const Loader& loader) {
  due_ = false;
  last_ = std::chrono::steady_clock::now();
  writing_step_ = trainer.steps();
  writing_ = std::async(std::launch::async, [this, checkpoint = Checkpoint{trainer.state(), loader.state(),
                                                                           options_.run, options_.metadata}] {
    fs::path path = save_checkpoint(options_.folder, checkpoint);
    remove_old(options_.folder, checkpoint.trainer.steps, options_.keep);
    return path;
  });
}

/// Waits for what is being written. @throws what kept it from being written.
void Checkpointer::end() {
  if (writing_.valid()) {
    newest_ = writing_.get();
    newest_step_ = writing_step_;
  }
}

}  // namespace millrace
